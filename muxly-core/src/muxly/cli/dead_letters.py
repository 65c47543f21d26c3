"""``muxly dead-letters``: records that could not be read or delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from muxly.cli._app import Group
from muxly.cli._output import write, write_json, write_listing
from muxly.cli._project import ProjectSelection, as_json, ledger_names, ledger_rows, project_options, read_ledger
from muxly.errors import ConfigurationError
from muxly.store import dead_letters

if TYPE_CHECKING:
    from muxly.store.dead_letters import StoredLetter
    from muxly.store.ledger import Ledger


@click.group(
    cls=Group,
    name="dead-letters",
    default="list",
    examples="""
        muxly dead-letters list --route lake
        muxly dead-letters show 01KAR1T5Z0M5R7Q3V6N8X2C4B9
        muxly replay --route lake --dead-letters    # deliver them again
    """,
)
def command() -> None:
    """Records that could not be read or delivered, each kept with its reason."""


@command.command("list", examples="muxly dead-letters list --stream deals --limit 20 --json")
@project_options()
@click.option("--route", help="Only for this route; '' = those that could not be read.")
@click.option("--stream", help="Only for this stream.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show at most this many.")
@as_json
def list_letters(selection: ProjectSelection, route: str | None, stream: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, the oldest first."""

    def rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
        for letter in dead_letters.waiting(ledger, route=route, stream=stream, limit=limit):
            yield _row(letter)

    listed = ledger_rows(selection.open(), rows)
    shown = listed if as_json else [{**row, "route": row["route"] or "(reading)"} for row in listed]
    write_listing(
        ("id", "pipeline", "route", "stream", "place", "reason"),
        shown,
        as_json=as_json,
        empty="there is no dead letter",
    )


def _row(stored: StoredLetter) -> dict[str, Any]:
    letter = stored.letter
    return {
        "id": stored.id,
        "route": stored.route,
        "stream": letter.stream,
        "place": letter.place or _place(letter.position, letter.number),
        "reason": letter.reason,
        "run": stored.run,
        "created_at": stored.created_at,
        "format": letter.format,
    }


def _place(position: int | None, number: int | None) -> str | None:
    return None if position is None else f"position {position}, record {number}"


@command.command("show", examples="muxly dead-letters show 01KAR1T5Z0M5R7Q3V6N8X2C4B9")
@click.argument("identifier", metavar="ID")
@project_options(arguments="")
@as_json
def show(selection: ProjectSelection, identifier: str, as_json: bool) -> None:
    """Show one dead letter and its record; ID may be cut short if it stays unique."""
    name, stored = _found(selection, identifier)
    row = {"pipeline": name, **_row(stored)}
    if as_json:
        write_json({**row, "record": _record(stored)})
        return
    for key, value in row.items():
        write(f"{key.replace('_', ' ')}: {value or '-'}")
    record = _record(stored)
    for key, value in record.items() if isinstance(record, dict) else (("record", record),):
        write(f"  {key}: {value}")


def _found(selection: ProjectSelection, identifier: str) -> tuple[str, StoredLetter]:
    project = selection.open()
    letters: list[tuple[str, StoredLetter]] = []
    for name in ledger_names(project):
        with read_ledger(project.home, name) as ledger:
            waiting = dead_letters.waiting(ledger) if ledger is not None else []
            letters += [(name, letter) for letter in waiting if letter.id.startswith(identifier.upper())]
    if len(letters) != 1:
        many = f"{len(letters)} dead letters begin with" if letters else "there is no dead letter"
        raise ConfigurationError(f"{many} {identifier!r}; `muxly dead-letters list` shows their ids")
    return letters[0]


def _record(stored: StoredLetter) -> Any:
    """The record as JSON values, or as text."""
    content, kind = stored.letter.record, stored.letter.format
    if content is None or kind == "none":
        return None
    if kind == "arrow":
        import pyarrow as pa

        records: list[Any] = pa.ipc.open_stream(content).read_all().to_pylist()
        return records[0] if records else None
    if kind == "json":
        import json

        return json.loads(content)
    return content.decode("utf-8", "backslashreplace")
