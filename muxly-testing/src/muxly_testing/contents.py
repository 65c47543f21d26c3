"""What a reader of the destination sees: a pure fold over its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from muxly_testing.destination import Entry, Stored

Record = dict[str, Any]
TOMBSTONE = "_deleted_at"
SEQUENCE = "_muxly_sequence"
"""The column of a kept batch that says where each record stood in its stream's log; readers do not see it."""


def visible(entries: Sequence[Stored], stream: str) -> list[Record]:
    """The records of the stream, as all entries together leave them."""
    mine = [stored for stored in entries if stored[0].stream == stream]
    newest = visible_generation(entries, stream)
    found: list[Record] = []
    for entry, batches in mine:
        if entry.kind == "delivery" and (entry.mode != "replace" or entry.generation == newest):
            found = _apply(found, entry, list(records(entry, batches())))
    return [{name: value for name, value in record.items() if name != SEQUENCE} for record in found]


def visible_generation(entries: Sequence[Stored], stream: str) -> int | None:
    """The newest generation of the stream that is complete."""
    complete = [entry.generation for entry, _ in entries if entry.stream == stream and entry.kind == "complete"]
    return max((one for one in complete if one is not None), default=None)


def records(entry: Entry, batches: Iterator[Any]) -> Iterator[Record]:
    """The records of an entry without those that it left out."""
    number, left_out = entry.first, set(entry.left_out)
    for batch in batches:
        for record in batch.to_pylist():
            if number not in left_out:
                yield record
            number += 1


def _apply(found: list[Record], entry: Entry, new: list[Record]) -> list[Record]:
    if entry.mode == "upsert":
        return _upsert(found, entry, new)
    if entry.mode == "overwrite":
        values = {_value(record, entry.overwrite_key) for record in new} | set(entry.replaces)
        found = [record for record in found if _value(record, entry.overwrite_key) not in values]
    return [*found, *new]


def _upsert(found: list[Record], entry: Entry, new: list[Record]) -> list[Record]:
    """By primary key; the greater cursor field wins, and of equals what stood later in the log."""
    merged = {_value(record, entry.primary_key): record for record in found}
    for record in new:
        key = _value(record, entry.primary_key)
        if key not in merged or not _older(record, merged[key], entry.cursor_field):
            merged[key] = record
    return list(merged.values())


def _older(record: Record, other: Record, cursor_field: str | None) -> bool:
    mine, theirs = (None if cursor_field is None else one.get(cursor_field) for one in (record, other))
    if mine == theirs:
        return bool(record.get(SEQUENCE, 0) < other.get(SEQUENCE, 0))
    return theirs is not None and (mine is None or bool(mine < theirs))


def _value(record: Mapping[str, Any], key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(record.get(column)) for column in key)


def alive(found: list[Record]) -> list[Record]:
    """Without tombstones, which a reader of an upserted table does not see."""
    return [record for record in found if record.get(TOMBSTONE) is None]
