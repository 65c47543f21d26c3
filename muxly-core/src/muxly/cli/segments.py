"""``muxly segments``: the segments in the spool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import current_messages, write_listing
from muxly.cli._project import (
    ProjectSelection,
    as_json,
    confirm,
    ledger_name,
    ledger_rows,
    project_options,
    require_known,
    write_ledger,
    yes_option,
)
from muxly.errors import ConfigurationError
from muxly.store import positions, retention

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="segments",
    default="list",
    examples="""
        muxly segments list --stream deals
        muxly segments list --state quarantined
        muxly segments drop deals 17 18
    """,
)
def command() -> None:
    """What the spool holds of each stream, by position."""


@command.command("list", examples="muxly segments list --state quarantined --json")
@project_options()
@click.option("--stream", help="Only for this stream.")
@click.option("--state", type=click.Choice(["sealed", "quarantined", "dropped"]), help="Only in this state.")
@as_json
def list_segments(selection: ProjectSelection, stream: str | None, state: str | None, as_json: bool) -> None:
    """List segments: position, size, and whether they are whole."""

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        for segment in retention.log(ledger, stream):
            if state in {None, segment.state}:
                keys = ("stream", "position", "records", "length", "generation", "state", "file", "offset", "digest")
                yield {key: getattr(segment, key) for key in keys}

    write_listing(
        ("pipeline", "stream", "position", "records", "length", "generation", "state", "file"),
        ledger_rows(selection.open(), rows),
        as_json=as_json,
        empty="there is no such segment in the spool",
    )


@command.command("drop", examples="muxly segments drop deals 17 --pipeline crm")
@click.argument("stream")
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, required=True, metavar="POSITION...")
@project_options(arguments="")
@yes_option
def drop(selection: ProjectSelection, stream: str, numbers: tuple[int, ...], confirmed: bool) -> None:
    """Give up segments, so that a damaged one does not hold its stream back any longer.

    Their records count as dropped on each route that did not have them. To read them again from
    the source instead, see `muxly state set --before`.
    """
    project = selection.open()
    name = ledger_name(project)
    confirm(confirmed, f"Give up position {', '.join(map(str, numbers))} of stream {stream!r} of {name!r}?")
    with write_ledger(project, name, "segments drop") as session:
        require_known(stream, positions.definitions(session.ledger), "stream")
        _refuse_missing(session.ledger, stream, numbers)
        count, files = retention.drop(session.ledger, stream, numbers)
        session.spool.delete(files)
    current_messages().say("info", f"{name}: {count:,} records of stream {stream!r} were dropped, over all routes")


def _refuse_missing(ledger: Ledger, stream: str, numbers: tuple[int, ...]) -> None:
    kept = {segment.position for segment in retention.log(ledger, stream)}
    if missing := sorted(set(numbers) - kept):
        span = f"it keeps {min(kept)} to {max(kept)}" if kept else "it keeps none"
        raise ConfigurationError(f"the ledger has no position {missing[0]} of stream {stream!r}; {span}")
