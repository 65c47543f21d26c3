"""``muxly db``: the store of ledgers and runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import ExitCode, current_messages, write, write_json
from muxly.cli._project import ProjectSelection, as_json, project_options

if TYPE_CHECKING:
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
    """The store: its revision, its upgrade, its integrity.

    A store is upgraded by the first run that finds it older; a SQLite file is copied before.
    """


def _store(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--store", metavar="URL", help="A store to use instead of the configuration's.")(command)


def _url(selection: ProjectSelection, store: str | None) -> str:
    """The store's URL; no configuration is needed if --store or --home says where it is."""
    if store is not None:
        return store
    if selection.home is not None and selection.file is None:
        from muxly._runner.session import Home

        return Home(folder=selection.home.absolute()).url()
    return selection.open().home.url()


@command.command("current", examples="muxly db current --json")
@project_options(arguments="[FILE]")
@_store
@as_json
def current(selection: ProjectSelection, store: str | None, as_json: bool) -> None:
    """Show the revision of the store, without changing it."""
    from muxly.store.schema import upgrade

    stored = upgrade.current(_url(selection, store))
    if as_json:
        write_json({**_revision(stored), "head": upgrade.head()})
    elif stored is None:
        write(f"there is no store yet; this Muxly would create revision {upgrade.head()}")
    else:
        write(f"revision {stored.number}, made by Muxly {stored.muxly}; this Muxly works with {upgrade.head()}")


def _revision(stored: Revision | None) -> dict[str, Any]:
    if stored is None:
        return {"revision": None, "muxly": None, "upgraded_at": None}
    return {"revision": stored.number, "muxly": stored.muxly, "upgraded_at": stored.upgraded_at}


@command.command("upgrade", examples="muxly db upgrade muxly.yaml")
@project_options(arguments="[FILE]")
@_store
def upgrade_store(selection: ProjectSelection, store: str | None) -> None:
    """Create the store, or bring it to the revision of this Muxly."""
    from muxly.store.schema import upgrade

    stored = upgrade.upgrade(_url(selection, store))
    current_messages().say("info", f"the store has revision {stored.number}")


@command.command("check", examples="muxly db check")
@project_options(arguments="[FILE]")
@_store
@as_json
@click.pass_context
def check(ctx: click.Context, /, selection: ProjectSelection, store: str | None, as_json: bool) -> None:
    """Check whether the store is whole and has the tables that it should.

    It reads all of a SQLite file. The exit code is 1 if something is wrong.
    """
    from muxly.store.schema import upgrade

    problems = upgrade.check(_url(selection, store))
    if as_json:
        write_json(list(problems))
    for problem in problems:
        current_messages().say("error", problem)
    if problems:
        ctx.exit(ExitCode.FAILED)
    current_messages().say("info", "the store is sound")
