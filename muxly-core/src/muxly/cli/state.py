"""``muxly state``: how far each stream has been read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import current_messages, short_json, write_listing
from muxly.cli._project import (
    ProjectSelection,
    as_json,
    confirm,
    ledger_name,
    ledger_rows,
    matching_names,
    project_options,
    read_ledger,
    require_known,
    write_ledger,
    yes_option,
)
from muxly.errors import ConfigurationError, StoreError
from muxly.store import json_codec, plans, positions, retention

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="state",
    default="show",
    examples="""
        muxly state show
        muxly state set deals '"2026-11-01"'
        muxly state set deals --before 120       # read again from position 120
        muxly state reset 'deals*' --yes
    """,
)
def command() -> None:
    """How far each stream has been read: its cursor.

    Changing a cursor changes what the next run reads; what was sealed already is not touched.
    """


@command.command("show", examples="muxly state show muxly.yaml crm --json")
@project_options()
@as_json
def show(selection: ProjectSelection, as_json: bool) -> None:
    """Show the cursor of each stream, and how much of an unfinished plan is left.

    Cursors are written as `muxly state set` takes them.
    """
    listed = ledger_rows(selection.open(), _rows)
    columns = ("pipeline", "stream", "cursor", "head", "generation", "unfinished")
    shown = listed if as_json else [{**row, "cursor": short_json(row["cursor"])} for row in listed]
    write_listing(columns, shown, as_json=as_json, empty="nothing has been read yet; `muxly run` starts")


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    for stream, definition in sorted(positions.definitions(ledger).items()):
        cursor = plans.stream_cursor(ledger, stream)
        log = positions.generations_of(ledger, stream)
        plan = plans.unfinished(ledger, stream)
        left = sum(not partition.done for partition in plan.partitions) if plan is not None else 0
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
@project_options(arguments="")
@yes_option
def set_state(
    selection: ProjectSelection, stream: str, cursor: str | None, before: int | None, confirmed: bool
) -> None:
    """Set the cursor of STREAM to CURSOR, JSON as `muxly state show` writes it.

    The stream's unfinished plan is given up. What the next run reads again is delivered again:
    routes in `upsert` and `replace` do not mind, routes in `append` hold it twice.
    """
    if (cursor is None) == (before is None):
        raise click.UsageError("give either a CURSOR or --before POSITION")
    project = selection.open()
    name = ledger_name(project)
    with read_ledger(project.home, name) as ledger:
        if ledger is not None:
            require_known(stream, positions.definitions(ledger), "stream")
    confirm(confirmed, f"Set the cursor of stream {stream!r} of {name!r}?")
    with write_ledger(project, name, "state set") as session:
        require_known(stream, positions.definitions(session.ledger), "stream")
        value = _parsed_cursor(cursor) if cursor is not None else _cursor_before(session.ledger, stream, before or 0)
        plans.set_cursor(session.ledger, stream, value)
    shown = "the start" if value is None else json_codec.encode(value)
    current_messages().say("info", f"{name}: the next run reads stream {stream!r} from {shown}")


def _parsed_cursor(text: str) -> Any:
    try:
        return json_codec.decode(text)
    except StoreError:
        raise click.UsageError(
            f"{text!r} is no cursor; write it as JSON, as `muxly state show` does: text as {json.dumps(text)!r}"
        ) from None


def _cursor_before(ledger: Ledger, stream: str, position: int) -> Any:
    kept = [segment.position for segment in retention.log(ledger, stream)]
    if position not in kept:
        span = f"it keeps {min(kept)} to {max(kept)}" if kept else "it keeps none"
        raise ConfigurationError(f"the ledger has no position {position} of stream {stream!r}; {span}")
    before, current = plans.cursor_before(ledger, stream, position), plans.stream_cursor(ledger, stream)
    if before is not None and current is not None and type(before) is not type(current):
        raise ConfigurationError(
            f"stream {stream!r} is read in partitions, and position {position} only has the cursor of its "
            f"partition only; `muxly state reset {stream}` reads the whole stream again"
        )
    return before


@command.command("reset", examples="muxly state reset contacts 'deals*' --pipeline crm")
@click.argument("streams", nargs=-1, required=True, metavar="STREAM...")
@project_options(arguments="")
@yes_option
def reset(selection: ProjectSelection, streams: tuple[str, ...], confirmed: bool) -> None:
    """Forget how far streams have been read; the next run reads them from the start.

    STREAM is a name or a glob; '*' means all.
    """
    project = selection.open()
    name = ledger_name(project)
    with read_ledger(project.home, name) as ledger:
        chosen = matching_names(positions.definitions(ledger) if ledger is not None else (), streams)
    confirm(confirmed, f"Read {', '.join(chosen) or 'nothing'} of {name!r} from the start again?")
    with write_ledger(project, name, "state reset") as session:
        plans.reset(session.ledger, chosen)
    current_messages().say("info", f"{name}: the next run reads {', '.join(chosen) or 'nothing'} from the start")
