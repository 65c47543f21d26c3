"""``muxly db``: the store of ledger and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Group, current_messages
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._exits import ExitCode
from muxly.cli._output import write, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly.store.schema.migrate import Revision


@click.group(
    cls=Group,
    name="db",
    examples="""
        muxly db current
        muxly db check --home /var/lib/muxly
        muxly db upgrade --store postgresql://muxly@db/muxly
    """,
)
def command() -> None:
    """The store: its revision, its upgrade, its soundness.

    A store is upgraded by the first run that finds it older; a SQLite file is copied before.
    """


def _store(found: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--store", metavar="URL", help="A store, in place of the configuration's.")(found)


def _url(where: Where, store: str | None) -> str:
    """The store's URL; no configuration is needed if --store or --home says where it is."""
    if store is not None:
        return store
    if where.home is not None and where.file is None:
        from muxly._runner.session import Home

        return Home(folder=where.home.absolute()).url()
    return where.open().home.url()


@command.command("current", examples="muxly db current --json")
@located(words="[FILE]")
@_store
@as_json
def current(where: Where, store: str | None, as_json: bool) -> None:
    """Show the revision of the store, without changing it."""
    from muxly.store.schema import upgrade

    found = upgrade.current(_url(where, store))
    if as_json:
        write_json({**_revision(found), "head": upgrade.head()})
    elif found is None:
        write(f"there is no store yet; this Muxly would make revision {upgrade.head()}")
    else:
        write(f"revision {found.number}, made by Muxly {found.muxly}; this Muxly works with {upgrade.head()}")


def _revision(found: Revision | None) -> dict[str, Any]:
    if found is None:
        return {"revision": None, "muxly": None, "upgraded_at": None}
    return {"revision": found.number, "muxly": found.muxly, "upgraded_at": found.upgraded_at}


@command.command("upgrade", examples="muxly db upgrade muxly.yaml")
@located(words="[FILE]")
@_store
def upgrade_store(where: Where, store: str | None) -> None:
    """Create the store, or bring it to the revision of this Muxly."""
    from muxly.store.schema import upgrade

    found = upgrade.upgrade(_url(where, store))
    current_messages().say("info", f"the store has revision {found.number}")


@command.command("check", examples="muxly db check")
@located(words="[FILE]")
@_store
@as_json
@click.pass_context
def check(ctx: click.Context, /, where: Where, store: str | None, as_json: bool) -> None:
    """Look whether the store is whole and has the tables it should.

    It reads all of a SQLite file. The exit code is 1 if something is wrong.
    """
    from muxly.store.schema import upgrade as checking

    problems = checking.check(_url(where, store))
    if as_json:
        write_json(list(problems))
    for one in problems:
        current_messages().say("error", one)
    if problems:
        ctx.exit(ExitCode.FAILED)
    current_messages().say("info", "the store is sound")
