"""``muxly routes``: the progress of each route, and changes to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import current_messages, write_listing
from muxly.cli._project import (
    ProjectSelection,
    as_json,
    configured_routes,
    confirm,
    ledger_name,
    ledger_rows,
    project_options,
    read_ledger,
    require_known,
    write_ledger,
    yes_option,
)
from muxly.errors import ConfigurationError
from muxly.store import accounts, dead_letters, positions

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="routes",
    default="list",
    examples="""
        muxly routes list
        muxly routes rename lake archive     # after renaming it in the file
        muxly routes discard lake            # after removing it from the file
    """,
)
def command() -> None:
    """How far each route has got in each stream.

    A route is its name: renamed or removed in the file, it keeps its backlog under the old name,
    and runs are refused until it is renamed here or given up.
    """


@command.command("list", examples="muxly routes list muxly.yaml crm --json")
@project_options()
@as_json
def list_routes(selection: ProjectSelection, as_json: bool) -> None:
    """List positions, what waits, and dead letters, by route and stream."""
    project = selection.open()

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        configured = configured_routes(project, ledger.pipeline)
        waiting, dead = accounts.pending(ledger), dead_letters.count(ledger)
        for position in positions.every(ledger):
            yield {
                "route": position.route,
                "stream": position.stream,
                "position": position.position,
                "head": positions.generations_of(ledger, position.stream).head,
                "waits": waiting.get((position.route, position.stream), 0),
                "dead_letters": dead.get((position.route, position.stream), 0),
                "state": _state(position, configured),
            }

    write_listing(
        ("pipeline", "route", "stream", "position", "head", "waits", "dead_letters", "state"),
        ledger_rows(project, rows),
        as_json=as_json,
        empty="no route has a position yet; `muxly run` gives them one",
    )


def _state(position: Any, configured: dict[str, Any]) -> str:
    if position.route not in configured:
        return "not in the file"
    return "detached" if position.detached else "attached"


@command.command("rename", examples="muxly routes rename lake archive --pipeline crm")
@click.argument("old")
@click.argument("new")
@project_options(arguments="")
def rename(selection: ProjectSelection, old: str, new: str) -> None:
    """Give the positions, backlog and dead letters of route OLD to route NEW of the file."""
    project = selection.open()
    name = ledger_name(project)
    configured = configured_routes(project, name)
    if new not in configured:
        listing = ", ".join(configured) or "none"
        raise ConfigurationError(f"the pipeline {name!r} has no route {new!r}; it has {listing}; rename it there first")
    with write_ledger(project, name, "routes rename") as session:
        names = {position.route for position in positions.every(session.ledger)}
        require_known(old, names, "route")
        if new in names:
            raise ConfigurationError(f"route {new!r} already has positions; `muxly routes discard {new}` discards them")
        positions.rename(session.ledger, old, new)
    current_messages().say("info", f"{name}: route {old!r} is now {new!r}")


@command.command("discard", examples="muxly routes discard lake --pipeline crm")
@click.argument("route")
@click.option("--stream", "streams", multiple=True, help="Only this stream of the route; may be repeated.")
@project_options(arguments="")
@yes_option
def discard(selection: ProjectSelection, route: str, streams: tuple[str, ...], confirmed: bool) -> None:
    """Give up a route, or some of its streams: positions are forgotten, the backlog counts as dropped.

    A route that is still in the file begins again with what is read from then on; `muxly replay`
    fills it from the spool.
    """
    project = selection.open()
    name = ledger_name(project)
    with read_ledger(project.home, name) as ledger:
        served = positions.every(ledger) if ledger is not None else []
        waiting = accounts.pending(ledger) if ledger is not None else {}
    require_known(route, {position.route for position in served}, "route")
    for stream in streams:
        require_known(stream, {position.stream for position in served if position.route == route}, "stream")
    backlogs = {key: count for key, count in waiting.items() if key[0] == route and (not streams or key[1] in streams)}
    what = f"route {route!r} of {name!r}" if not streams else f"{', '.join(streams)} on route {route!r} of {name!r}"
    confirm(confirmed, f"Give up {what}, and the {sum(backlogs.values()):,} records that wait for it?")
    with write_ledger(project, name, "routes discard") as session:
        count = positions.forget(session.ledger, route, streams or None)
    current_messages().say("info", f"{name}: route {route!r} is given up; {count:,} records were dropped")
