"""Bringing a store to the revision that this code works with: created at once, upgraded safely, or refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from muxly.store.database import sqlite
from muxly.store.database.engine import open_engine, reading, transaction
from muxly.store.database.errors import damaged
from muxly.store.schema import revision
from muxly.store.schema.migrate import migrate, refuse_newer, take_lock
from muxly.store.schema.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from muxly.store.schema.revision import Revision

__all__ = ["current", "ensure_current", "head", "open_store", "stored", "upgrade"]


def head() -> str:
    """The revision that this version of Muxly works with."""
    return revision.HEAD


def open_store(url: str) -> Engine:
    """An engine for the store at `url`, created or upgraded if need be.

    Raises:
        StoreError: See `open_engine` and `ensure_current`.
        RetryableError: The database is busy or cannot be reached.
    """
    engine = open_engine(url)
    try:
        ensure_current(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def current(url: str) -> Revision | None:
    """The revision of the store at `url`; None if there is none yet. Nothing is created or changed.

    Raises:
        StoreError: See `open_engine`.
        RetryableError: The database is busy or cannot be reached.
    """
    with _opened(url) as engine:
        return stored(engine)


def upgrade(url: str) -> Revision:
    """Create the store at `url`, or bring it to this code's revision; returns what it has then.

    Raises:
        StoreError: See `ensure_current`.
        RetryableError: The database is busy or cannot be reached.
    """
    with _opened(url) as engine:
        ensure_current(engine)
        found = stored(engine)
        assert found is not None
        return found


def ensure_current(engine: Engine) -> None:
    """Create the tables, or run the migrations that are due; nothing to do costs one small query.

    Any number of processes may do it at once. A SQLite file is copied first, to
    ``<name>.backup-<revision>`` beside it. A crash leaves the old or the new revision.

    Raises:
        StoreError: The store is newer than this code, damaged, or in use by a run of an
            older Muxly.
        RetryableError: The database is busy or cannot be reached.
    """
    found = stored(engine)
    if found is None:
        found = _create(engine)
    refuse_newer(engine, found)
    if found.number != revision.HEAD:
        migrate(engine)


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def stored(engine: Engine) -> Revision | None:
    """The store's revision; None if there is no store yet. A file that a crash left open is looked over first.

    Raises:
        StoreError: The file is damaged.
        RetryableError: The database is busy or cannot be reached.
    """
    path = sqlite.path_of(engine)
    if path is not None and not path.exists():
        return None
    crashed = path is not None and sqlite.was_left_open(path)
    with reading(engine) as connection:
        if crashed:
            sqlite.check_pages(connection, str(path))
        found = revision.stored_revision(connection)
    if found is None and path is not None:
        raise damaged(path, "the table that holds its revision is missing or empty")
    return found


def _create(engine: Engine) -> Revision:
    path = sqlite.path_of(engine)
    if path is not None:
        sqlite.create(path, _fill)
        found = stored(engine)
        assert found is not None
        return found
    with transaction(engine) as connection:
        take_lock(connection)
        return revision.stored_revision(connection) or _fill(connection)


def _fill(connection: Connection) -> Revision:
    metadata.create_all(connection, checkfirst=False)
    return revision.stamp(connection, revision.HEAD)
