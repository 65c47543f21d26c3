"""``muxly routes``: how far each route has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Group, current_messages
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._ledgers import ask, known, ledger_name, listed, looking, routes_of, writing, yes
from muxly.cli._output import write_listing
from muxly.errors import ConfigurationError
from muxly.store import accounts, dead_letters, positions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="routes",
    default="list",
    examples="""
        muxly routes list
        muxly routes rename lake archive     # after renaming it in the file
        muxly routes discard lake            # after taking it out of the file
    """,
)
def command() -> None:
    """How far each route has come in each stream.

    A route is its name: renamed or removed in the file, it keeps its backlog under the old name,
    and runs are refused until it is renamed here or given up.
    """


@command.command("list", examples="muxly routes list muxly.yaml crm --json")
@located()
@as_json
def list_routes(where: Where, as_json: bool) -> None:
    """List positions, what waits, and dead letters, by route and stream."""
    project = where.open()

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        configured = routes_of(project, ledger.pipeline)
        waiting, dead = accounts.pending(ledger), dead_letters.count(ledger)
        for one in positions.every(ledger):
            yield {
                "route": one.route,
                "stream": one.stream,
                "position": one.position,
                "head": positions.generations_of(ledger, one.stream).head,
                "waits": waiting.get((one.route, one.stream), 0),
                "dead_letters": dead.get((one.route, one.stream), 0),
                "state": _state(one, configured),
            }

    write_listing(
        ("pipeline", "route", "stream", "position", "head", "waits", "dead_letters", "state"),
        listed(project, rows),
        as_json=as_json,
        empty="no route has a position yet; `muxly run` gives them one",
    )


def _state(one: Any, configured: dict[str, Any]) -> str:
    if one.route not in configured:
        return "not in the file"
    return "detached" if one.detached else "attached"


@command.command("rename", examples="muxly routes rename lake archive --pipeline crm")
@click.argument("old")
@click.argument("new")
@located(words="")
def rename(where: Where, old: str, new: str) -> None:
    """Give the positions, backlog and dead letters of route OLD to route NEW of the file."""
    project = where.open()
    name = ledger_name(project)
    configured = routes_of(project, name)
    if new not in configured:
        listing = ", ".join(configured) or "none"
        raise ConfigurationError(f"the pipeline {name!r} has no route {new!r}; it has {listing}: rename it there first")
    with writing(project, name, "routes rename") as session:
        names = {one.route for one in positions.every(session.ledger)}
        known(old, names, "route")
        if new in names:
            raise ConfigurationError(
                f"route {new!r} has positions of its own; `muxly routes discard {new}` gives them up"
            )
        positions.rename(session.ledger, old, new)
    current_messages().say("info", f"{name}: route {old!r} is {new!r} now")


@command.command("discard", examples="muxly routes discard lake --pipeline crm")
@click.argument("route")
@click.option("--stream", "streams", multiple=True, help="Only this stream of the route; may be repeated.")
@located(words="")
@yes
def discard(where: Where, route: str, streams: tuple[str, ...], sure: bool) -> None:
    """Give up a route, or some of its streams: positions are forgotten, the backlog counts as dropped.

    A route that is still in the file begins again with what is read from then on; `muxly replay`
    fills it from the spool.
    """
    project = where.open()
    name = ledger_name(project)
    with looking(project.home, name) as ledger:
        served = positions.every(ledger) if ledger is not None else []
        waiting = accounts.pending(ledger) if ledger is not None else {}
    known(route, {one.route for one in served}, "route")
    for stream in streams:
        known(stream, {one.stream for one in served if one.route == route}, "stream")
    count = sum(
        number for (one, stream), number in waiting.items() if one == route and (not streams or stream in streams)
    )
    what = f"route {route!r} of {name!r}" if not streams else f"{', '.join(streams)} on route {route!r} of {name!r}"
    ask(sure, f"Give up {what}, and the {count:,} records that wait for it?")
    with writing(project, name, "routes discard") as session:
        count = positions.forget(session.ledger, route, streams or None)
    current_messages().say("info", f"{name}: route {route!r} is given up; {count:,} records were dropped")
