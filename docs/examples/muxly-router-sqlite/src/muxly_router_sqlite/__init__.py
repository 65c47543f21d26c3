"""Appends each stream to a table of a SQLite database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import muxly

__all__ = ["Sqlite"]

DELIVERIES = "CREATE TABLE IF NOT EXISTS _muxly_deliveries (id TEXT PRIMARY KEY, digest TEXT NOT NULL)"


class Sqlite(muxly.Router):
    """Keeps a delivery's records and its id in one transaction, so a repeat is known and left out."""

    promise: ClassVar[muxly.Promise] = "effectively_once"

    path: Path = muxly.option("The database file; made if it is not there.")

    _database: sqlite3.Connection | None = None

    def open(self, run: muxly.Run) -> None:
        """Connect; calls come from one thread at a time, but not always from the same."""
        with _typed_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute(DELIVERIES)

    def close(self) -> None:
        """Disconnect; what was not committed was not delivered."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def deliver(self, delivery: muxly.Delivery) -> None:
        """Records and id, in one transaction."""
        assert self._database is not None
        with _typed_errors(self.path), _transaction(self._database) as database:
            known = database.execute("SELECT digest FROM _muxly_deliveries WHERE id = ?", (delivery.id,)).fetchone()
            if known is None:
                database.execute("INSERT INTO _muxly_deliveries VALUES (?, ?)", (delivery.id, delivery.digest))
                _append(database, delivery)
            elif known[0] != delivery.digest:
                raise muxly.ConflictError(f"{self.path} holds the delivery {delivery.id} with other records")


def _append(database: sqlite3.Connection, delivery: muxly.Delivery) -> None:
    table, names = _quoted(delivery.stream.name), delivery.schema.names
    columns = ", ".join(map(_quoted, names))
    database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    there = {column[1].lower() for column in database.execute(f"PRAGMA table_info({table})")}
    for name in names:
        if name.lower() not in there:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {_quoted(name)}")
    insert = f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})"
    database.executemany(insert, ([_value(record[name]) for name in names] for record in delivery.records()))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(value: Any) -> Any:
    """SQLite knows null, 64-bit integers, floats, text and bytes; all else becomes text."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    return value if value is None or isinstance(value, float | str | bytes) else str(value)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    """A database that is busy is tried again; one that is wrong stops this route, not the others."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise muxly.RetryableError(f"{path} is in use by another program") from error
        raise muxly.RouteError(f"{path} cannot be written: {error}") from error
    except (OSError, sqlite3.Error) as error:
        raise muxly.RouteError(f"{path} cannot be used as a SQLite database: {error}") from error


@muxly.hookimpl
def muxly_router() -> type[muxly.Router]:
    """What the entry point ``sqlite`` provides."""
    return Sqlite
