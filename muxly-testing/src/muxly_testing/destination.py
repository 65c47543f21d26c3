"""A destination that remembers deliveries: in memory, or in a SQLite file that survives its process."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from muxly.router import Delivery
    from muxly.stream import Stream

__all__ = ["Destination", "Entry", "FileDestination", "MemoryDestination"]


def _rows(value: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in value)


@frozen(kw_only=True)
class Entry:
    """Something that happened at the destination, in one piece.

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
        first: How many records of the delivery came before these.
        left_out: Numbers of records in the delivery that were refused.
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


Stored = tuple[Entry, "Callable[[], Iterator[pa.RecordBatch]]"]


class Destination(Protocol):
    """An append-only list of entries; an entry is there as a whole, or not at all."""

    def add(self, entry: Entry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry; durable on return."""

    def entries(self) -> Sequence[Stored]:
        """Every entry, each with a function that gives its batches."""

    def clear(self) -> None:
        """Forget everything."""


def entry_of(delivery: Delivery, *, left_out: Iterable[int] = ()) -> Entry:
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


def generation_entry(stream: Stream, kind: str, generation: int) -> Entry:
    """The entry for ``begin`` or ``complete``."""
    return _entry(stream, kind, generation)


def _entry(stream: Stream, kind: str, generation: int | None) -> Entry:
    return Entry(
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
        self._entries: list[tuple[Entry, list[pa.RecordBatch]]] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry, once all its batches were given."""
        kept = list(batches)
        with self._lock:
            self._entries.append((entry, kept))

    def entries(self) -> Sequence[Stored]:
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
        path: The file; made when the first entry comes.
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

    def add(self, entry: Entry, batches: Iterable[pa.RecordBatch] = ()) -> None:
        """Append an entry in one transaction; batches go to disk one by one."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            cursor = connection.execute("INSERT INTO entries (entry) VALUES (?)", (_entry_text(entry),))
            connection.executemany(
                "INSERT INTO batches VALUES (?, ?, ?)",
                ((cursor.lastrowid, number, _to_bytes(batch)) for number, batch in enumerate(batches)),
            )
            connection.execute("COMMIT")

    def entries(self) -> Sequence[Stored]:
        """Every committed entry; batches are read when they are asked for."""
        if not self._path.exists():
            return []
        with self._connected() as connection:
            found = connection.execute("SELECT number, entry FROM entries ORDER BY number").fetchall()
        return [(Entry(**json.loads(text)), self._reader(number)) for number, text in found]

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


def _entry_text(entry: Entry) -> str:
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
