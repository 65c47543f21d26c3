"""New SQLite files of the store, published whole and never half made: the first one, and backups."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, NullPool, create_engine, event

from muxly.errors import StoreError
from muxly.store.faults import translated
from muxly.store.sqlite_file import APPLICATION_ID, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

__all__ = ["back_up", "create"]

_DAY_SECONDS = 86_400.0


def create(path: Path, fill: Callable[[Connection], object]) -> None:
    """Make a new store and give it its name when it is whole, unless another process was faster.

    So a file that bears the store's name is never empty or half made, however a process dies.

    Args:
        path: Where no store is yet. Its folder is created for its owner only.
        fill: Creates the tables, inside a transaction.

    Raises:
        StoreError: The folder or the file cannot be written.
    """
    with _explained(path, "created"):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with _new_file(path) as new:
            _build(new, fill)
            _sync(new)
            _name(new, path)


def back_up(path: Path, suffix: str) -> Path:
    """Copy the store to ``<path>.backup-<suffix>``, as of one moment, also while others use it.

    An older copy of that name, from an upgrade that did not end, is replaced.

    Raises:
        StoreError: The copy cannot be written.
    """
    target = path.with_name(f"{path.name}.backup-{suffix}")
    with _explained(target, "written"), _new_file(path) as new:
        with closing(connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        _sync(new)
        new.replace(target)
        _sync(path.parent)
    return target


@contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        raise StoreError(
            f"{path} cannot be {verb} ({cause}); check that {path.parent} may be written and has free space"
        ) from cause


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that only its owner may read; removed at the end if it is still there."""
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what a process that died here left behind; a day is longer than any process needs."""
    for left in path.parent.glob(f".{path.name}.*.new*"):
        if time.time() - left.stat().st_mtime > _DAY_SECONDS:
            left.unlink(missing_ok=True)


def _build(new: Path, fill: Callable[[Connection], object]) -> None:
    url = URL.create("sqlite", database=str(new))
    engine = create_engine(url, creator=lambda: _connect_unsafely(new), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with translated(engine), engine.begin() as connection:
        fill(connection)
    with closing(sqlite3.connect(new)) as plain:
        plain.execute("PRAGMA journal_mode = WAL")


def _connect_unsafely(new: Path) -> sqlite3.Connection:
    # Neither a journal nor waiting for the disk: nobody sees the file before it is whole and synced.
    connection = sqlite3.connect(new, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return connection


def _name(new: Path, path: Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        return
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
