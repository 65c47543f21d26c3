"""Creating a store, upgrading it to the revision that this code works with, and checking it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from muxly.store.database import sqlite
from muxly.store.database.engine import open_engine, reading, transaction
from muxly.store.database.errors import damaged, location_of
from muxly.store.schema import migrate
from muxly.store.schema.migrate import Revision
from muxly.store.schema.tables import metadata

__all__ = ["check", "current", "ensure_current", "head", "open_store", "stored", "upgrade"]

_SHOWN = 10


def head() -> str:
    """The revision that this version of Muxly works with."""
    return migrate.HEAD


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
        revision = stored(engine)
        assert revision is not None
        return revision


def ensure_current(engine: Engine) -> None:
    """Create the tables, or run the migrations that are due; nothing to do costs one small query.

    Any number of processes may do it at once. A SQLite file is copied first, to
    ``<name>.backup-<revision>`` beside it. A crash leaves the old or the new revision.

    Raises:
        StoreError: The store is newer than this code, damaged, or in use by a run of an
            older Muxly.
        RetryableError: The database is busy or cannot be reached.
    """
    revision = stored(engine)
    if revision is None:
        revision = _create(engine)
    migrate.refuse_newer(engine, revision)
    if revision.number != migrate.HEAD:
        migrate.migrate(engine)


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def stored(engine: Engine) -> Revision | None:
    """The store's revision; None if there is no store yet. A file that a crash left open is checked first.

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
        revision = migrate.stored_revision(connection)
    if revision is None and path is not None:
        raise damaged(path, "the table that holds its revision is missing or empty")
    return revision


def _create(engine: Engine) -> Revision:
    path = sqlite.path_of(engine)
    if path is not None:
        sqlite.create(path, _fill)
        revision = stored(engine)
        assert revision is not None
        return revision
    with transaction(engine) as connection:
        migrate.take_lock(connection)
        return migrate.stored_revision(connection) or _fill(connection)


def _fill(connection: Connection) -> Revision:
    metadata.create_all(connection, checkfirst=False)
    return migrate.stamp(connection, migrate.HEAD)


def check(url: str) -> tuple[str, ...]:
    """What is wrong with the store at `url`, a sentence each; nothing if all is well.

    It reads the whole of a SQLite file, so it takes long for a large one.

    Raises:
        StoreError: The store is too damaged to be opened, or newer than this code.
        RetryableError: The database is busy or cannot be reached.
    """
    with _opened(url) as engine:
        return tuple(_problems(engine))


def _problems(engine: Engine) -> Iterator[str]:
    revision = stored(engine)
    if revision is None:
        yield f"there is no store at {location_of(engine)} yet; the first run or `muxly db upgrade` creates it"
        return
    migrate.refuse_newer(engine, revision)
    with reading(engine) as connection:
        damages = tuple(_damages(connection)) if engine.dialect.name == "sqlite" else ()
        yield from damages
        if damages:
            return
        if revision.number != migrate.HEAD:
            yield (
                f"the store has revision {revision.number}, but this Muxly needs {migrate.HEAD}; run `muxly db upgrade`"
            )
        else:
            yield from _differences(connection)


def _damages(connection: Connection) -> Iterator[str]:
    lines = connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})").scalars().all()
    if lines != ["ok"]:
        yield from (f"the file is damaged: {' '.join(line.split())}; restore a backup" for line in lines)
        return
    for table, number, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN):
        yield f"row {number} of the table {table} refers to a missing row of {parent}; restore a backup"


def _differences(connection: Connection) -> Iterator[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = {
        "version_table": migrate.VERSION_TABLE,
        "compare_server_default": True,
        "include_object": _is_ours,
    }
    context = MigrationContext.configure(connection, opts=options)
    for difference in compare_metadata(context, metadata):
        yield f"the tables differ from those that Muxly created: {difference!r}; restore a backup"


def _is_ours(_thing: object, _name: str | None, kind: str, reflected: bool, wanted: Any) -> bool:
    """Others' tables may lie in the same PostgreSQL database."""
    return not (kind == "table" and reflected and wanted is None)
