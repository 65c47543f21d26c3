"""Destinations of the fake routers: in memory, or in a SQLite file that survives its process."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from attrs import field, frozen

from muxly.router import Delivery
from muxly.stream import Stream
from muxly_testing._faults import Calls

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["FakeDestination", "DestinationEntry", "FileDestination", "MemoryDestination"]


def _rows(value: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in value)


@frozen(kw_only=True)
class DestinationEntry:
    """A change of the destination, applied as a whole.

    Args:
        kind: ``"delivery"``, ``"begin"`` or ``"complete"``.
        stream: The stream's name.
        primary_key: Of the stream.
        overwrite_key: Of the stream.
        cursor_field: Of the stream.
        mode: Of the delivery.
        generation: Of the delivery, or the one that begins or is complete.
        id: Of the delivery.
        digest: Of the delivery.
        replaces: Of the delivery, as text.
        first: Number of records of the delivery before these.
        left_out: Numbers of the records of the delivery that were refused.
    """

    kind: str
    stream: str
    primary_key: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    overwrite_key: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    cursor_field: str | None = None
    mode: str = ""
    generation: int | None = None
    id: str = ""
    digest: str = ""
    replaces: tuple[tuple[str, ...], ...] = field(default=(), converter=_rows)
    first: int = 0
    left_out: tuple[int, ...] = field(default=(), converter=tuple[int, ...])


StoredEntry = tuple[DestinationEntry, "Callable[[], Iterator[pa.RecordBatch]]"]


class FakeDestination(Protocol):
    """An append-only list of entries; an entry is there as a whole, or not at all."""

    def add(self, entry: DestinationEntry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry; durable on return."""

    def entries(self) -> Sequence[StoredEntry]:
        """Every entry, each with a function that gives its batches."""

    def clear(self) -> None:
        """Forget everything."""


def entry_of(delivery: Delivery, *, left_out: Iterable[int] = ()) -> DestinationEntry:
    """The entry for a delivery's records after ``delivered``."""
    return attrs.evolve(
        _entry(delivery.stream, "delivery", delivery.generation),
        mode=delivery.mode,
        id=delivery.id,
        digest=delivery.digest,
        replaces=[[str(part) for part in value] for value in delivery.replaces],
        first=delivery.delivered,
        left_out=sorted(left_out),
    )


def generation_entry(stream: Stream, kind: str, generation: int) -> DestinationEntry:
    """The entry for ``begin`` or ``complete``."""
    return _entry(stream, kind, generation)


def _entry(stream: Stream, kind: str, generation: int | None) -> DestinationEntry:
    return DestinationEntry(
        kind=kind,
        stream=stream.name,
        primary_key=stream.primary_key,
        overwrite_key=stream.overwrite_key,
        cursor_field=stream.cursor_field,
        generation=generation,
    )


class MemoryDestination:
    """Entries in the memory of this process."""

    def __init__(self) -> None:
        self._entries: list[tuple[DestinationEntry, list[pa.RecordBatch]]] = []
        self._lock = threading.Lock()

    def add(self, entry: DestinationEntry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry after reading all its batches."""
        kept = list(batches)
        with self._lock:
            self._entries.append((entry, kept))

    def entries(self) -> Sequence[StoredEntry]:
        """Every entry so far."""
        with self._lock:
            return [(entry, batches.__iter__) for entry, batches in self._entries]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


_TABLES = """
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    entry INTEGER NOT NULL, number INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (entry, number)
);
"""


class FileDestination:
    """Entries in a SQLite file, one transaction each.

    Args:
        path: The file; created with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_TABLES)
            yield connection

    def add(self, entry: DestinationEntry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry in one transaction, writing its batches one at a time."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            cursor = connection.execute("INSERT INTO entries (entry) VALUES (?)", (_entry_text(entry),))
            connection.executemany(
                "INSERT INTO batches VALUES (?, ?, ?)",
                ((cursor.lastrowid, number, _to_bytes(batch)) for number, batch in enumerate(batches)),
            )
            connection.execute("COMMIT")

    def entries(self) -> Sequence[StoredEntry]:
        """Every committed entry; batches are read when they are iterated over."""
        if not self._path.exists():
            return []
        with self._connected() as connection:
            rows = connection.execute("SELECT number, entry FROM entries ORDER BY number").fetchall()
        return [(DestinationEntry(**json.loads(text)), self._reader(number)) for number, text in rows]

    def _reader(self, entry: int) -> Callable[[], Iterator[pa.RecordBatch]]:
        def read() -> Iterator[pa.RecordBatch]:
            with self._connected() as connection:
                query = "SELECT content FROM batches WHERE entry = ? ORDER BY number"
                for (content,) in connection.execute(query, (entry,)):
                    yield _from_bytes(content)

        return read

    def clear(self) -> None:
        """Forget everything."""
        with self._connected() as connection:
            connection.executescript("DELETE FROM batches; DELETE FROM entries;")


def _entry_text(entry: DestinationEntry) -> str:
    return json.dumps(attrs.asdict(entry))


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _from_bytes(content: bytes) -> Any:
    import pyarrow as pa

    return next(iter(pa.ipc.open_stream(content)))


_Record = dict[str, Any]
TOMBSTONE = "_deleted_at"
SEQUENCE = "_muxly_sequence"
"""A column of stored batches: the position of each record in its stream's log. Readers do not see it."""


def visible_records(entries: Sequence[StoredEntry], stream: str) -> list[_Record]:
    """The records of the stream, as all entries together leave them."""
    mine = [stored for stored in entries if stored[0].stream == stream]
    newest = visible_generation(entries, stream)
    shown: list[_Record] = []
    for entry, batches in mine:
        if entry.kind == "delivery" and (entry.mode != "replace" or entry.generation == newest):
            shown = _with_entry(shown, entry, list(entry_records(entry, batches())))
    return [{name: value for name, value in record.items() if name != SEQUENCE} for record in shown]


def visible_generation(entries: Sequence[StoredEntry], stream: str) -> int | None:
    """The newest generation of the stream that is complete."""
    complete = [entry.generation for entry, _ in entries if entry.stream == stream and entry.kind == "complete"]
    return max((generation for generation in complete if generation is not None), default=None)


def entry_records(entry: DestinationEntry, batches: Iterator[Any]) -> Iterator[_Record]:
    """The records of an entry without those that it left out."""
    number, left_out = entry.first, set(entry.left_out)
    for batch in batches:
        for record in batch.to_pylist():
            if number not in left_out:
                yield record
            number += 1


def _with_entry(shown: list[_Record], entry: DestinationEntry, new: list[_Record]) -> list[_Record]:
    if entry.mode == "upsert":
        return _with_upserted(shown, entry, new)
    if entry.mode == "overwrite":
        values = {_key_values(record, entry.overwrite_key) for record in new} | set(entry.replaces)
        shown = [record for record in shown if _key_values(record, entry.overwrite_key) not in values]
    return [*shown, *new]


def _with_upserted(shown: list[_Record], entry: DestinationEntry, new: list[_Record]) -> list[_Record]:
    """Merge by primary key: the greater cursor field wins; of equal ones, the record later in the log."""
    merged = {_key_values(record, entry.primary_key): record for record in shown}
    for record in new:
        key = _key_values(record, entry.primary_key)
        if key not in merged or not _older(record, merged[key], entry.cursor_field):
            merged[key] = record
    return list(merged.values())


def _older(record: _Record, other: _Record, cursor_field: str | None) -> bool:
    mine, theirs = (None if cursor_field is None else version.get(cursor_field) for version in (record, other))
    if mine == theirs:
        return bool(record.get(SEQUENCE, 0) < other.get(SEQUENCE, 0))
    return theirs is not None and (mine is None or bool(mine < theirs))


def _key_values(record: Mapping[str, Any], key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(record.get(column)) for column in key)


def without_tombstones(shown: list[_Record]) -> list[_Record]:
    """The records without those that are marked as deleted."""
    return [record for record in shown if record.get(TOMBSTONE) is None]


# Shared by the whole process on purpose: the copy that a run opens and the value that the test holds meet here.
_states: dict[str, SharedState] = {}
_lock = threading.Lock()


class SharedState:
    """The calls of fake components that share a token or a folder, and the destination of their deliveries."""

    def __init__(self, folder: Path | None = None) -> None:
        self.calls = Calls(None if folder is None else folder / "calls.jsonl")
        self.destination: FakeDestination = (
            MemoryDestination() if folder is None else FileDestination(folder / "delivered.sqlite")
        )

    @classmethod
    def of(cls, token: str, folder: Path | None) -> SharedState:
        """The state that belongs to a token in this process, or to a folder for all processes."""
        if folder is not None:
            return cls(folder)
        with _lock:
            return _states.setdefault(token, cls())


def new_token() -> str:
    """A token that no other component has."""
    return uuid.uuid4().hex
