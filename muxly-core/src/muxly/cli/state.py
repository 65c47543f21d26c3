"""``muxly state``: how far each stream has been read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Group, current_messages
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._ledgers import ask, known, ledger_name, listed, looking, matching, writing, yes
from muxly.cli._output import short_json, write_listing
from muxly.errors import ConfigurationError, StoreError
from muxly.store import json_codec, plans, positions, retention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="state",
    default="show",
    examples="""
        muxly state show
        muxly state set deals '"2026-11-01"'
        muxly state set deals --before 120       # read again what position 120 holds, and what follows
        muxly state reset 'deals*' --yes
    """,
)
def command() -> None:
    """How far each stream has been read: its cursor.

    Changing a cursor changes what the next run reads; what was sealed already is not touched.
    """


@command.command("show", examples="muxly state show muxly.yaml crm --json")
@located()
@as_json
def show(where: Where, as_json: bool) -> None:
    """Show the cursor of each stream, and how much of an unfinished plan is left.

    Cursors are written as `muxly state set` takes them.
    """
    found = listed(where.open(), _rows)
    columns = ("pipeline", "stream", "cursor", "head", "generation", "unfinished")
    shown = found if as_json else [{**one, "cursor": short_json(one["cursor"])} for one in found]
    write_listing(columns, shown, as_json=as_json, empty="nothing has been read yet; `muxly run` begins")


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    for stream, definition in sorted(positions.definitions(ledger).items()):
        cursor = plans.stream_cursor(ledger, stream)
        log = positions.generations_of(ledger, stream)
        plan = plans.unfinished(ledger, stream)
        left = sum(not one.done for one in plan.partitions) if plan is not None else 0
        yield {
            "stream": stream,
            "parent": definition.get("parent"),
            "cursor": None if cursor is None else json.loads(json_codec.encode(cursor)),
            "head": log.head,
            "generation": log.newest,
            "unfinished": f"{left} of {len(plan.partitions)} partitions" if plan is not None else None,
        }


@command.command("set", examples='muxly state set deals \'{"$date": "2026-11-01"}\' --pipeline crm')
@click.argument("stream")
@click.argument("cursor", required=False)
@click.option("--before", type=click.IntRange(min=1), metavar="POSITION", help="The cursor before that segment.")
@located(words="")
@yes
def set_state(where: Where, stream: str, cursor: str | None, before: int | None, sure: bool) -> None:
    """Set the cursor of STREAM to CURSOR, JSON as `muxly state show` writes it.

    The stream's unfinished plan is given up. What the next run reads again is delivered again:
    routes in `upsert` and `replace` do not mind, routes in `append` hold it twice.
    """
    if (cursor is None) == (before is None):
        raise click.UsageError("give either a CURSOR or --before POSITION")
    project = where.open()
    name = ledger_name(project)
    with looking(project.home, name) as ledger:
        if ledger is not None:
            known(stream, positions.definitions(ledger), "stream")
    ask(sure, f"Set the cursor of stream {stream!r} of {name!r}?")
    with writing(project, name, "state set") as session:
        known(stream, positions.definitions(session.ledger), "stream")
        value = _parsed(cursor) if cursor is not None else _before(session.ledger, stream, before or 0)
        plans.set_cursor(session.ledger, stream, value)
    shown = "the start" if value is None else json_codec.encode(value)
    current_messages().say("info", f"{name}: the next run reads stream {stream!r} from {shown}")


def _parsed(text: str) -> Any:
    try:
        return json_codec.decode(text)
    except StoreError:
        raise click.UsageError(
            f"{text!r} is no cursor; write it as JSON, as `muxly state show` does: text as {json.dumps(text)!r}"
        ) from None


def _before(ledger: Ledger, stream: str, position: int) -> Any:
    kept = [one.position for one in retention.log(ledger, stream)]
    if position not in kept:
        span = f"it keeps {min(kept)} to {max(kept)}" if kept else "it keeps none"
        raise ConfigurationError(f"the ledger has no position {position} of stream {stream!r}; {span}")
    before, current = plans.cursor_before(ledger, stream, position), plans.stream_cursor(ledger, stream)
    if before is not None and current is not None and type(before) is not type(current):
        raise ConfigurationError(
            f"stream {stream!r} is read in partitions, and what position {position} knows is the cursor of its "
            f"partition only; `muxly state reset {stream}` reads the whole stream again"
        )
    return before


@command.command("reset", examples="muxly state reset contacts 'deals*' --pipeline crm")
@click.argument("streams", nargs=-1, required=True, metavar="STREAM...")
@located(words="")
@yes
def reset(where: Where, streams: tuple[str, ...], sure: bool) -> None:
    """Forget how far streams have been read; the next run reads them from the start.

    STREAM is a name or a glob; '*' means all.
    """
    project = where.open()
    name = ledger_name(project)
    with looking(project.home, name) as ledger:
        chosen = matching(positions.definitions(ledger) if ledger is not None else (), streams)
    ask(sure, f"Read {', '.join(chosen) or 'nothing'} of {name!r} from the start again?")
    with writing(project, name, "state reset") as session:
        plans.reset(session.ledger, chosen)
    current_messages().say("info", f"{name}: the next run reads {', '.join(chosen) or 'nothing'} from the start")
