"""Revisions of a store's tables, and the migrations from one to the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import attrs
from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, func, insert, select, text, update

from muxly.errors import StoreError
from muxly.store.database import sqlite
from muxly.store.database.engine import now, transaction
from muxly.store.database.errors import location_of, translated
from muxly.store.schema.tables import UtcTime, leases

__all__ = [
    "HEAD",
    "SCRIPTS",
    "VERSION_TABLE",
    "Revision",
    "migrate",
    "refuse_newer",
    "stamp",
    "stored_revision",
    "take_lock",
]

HEAD = "0002"
"""The revision that this code works with; a test holds it to the newest migration."""

VERSION_TABLE = "store_revision"

# Alembic reads and writes the first column and leaves the others alone. The table stands
# outside the ledger's metadata, for Alembic compares that with the database.
_revision = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), primary_key=True),
    Column("muxly", String(32)),
    Column("upgraded_at", UtcTime),
)


@attrs.frozen
class Revision:
    """A store's revision.

    Args:
        number: Four digits; a later revision has a greater number.
        muxly: The version of Muxly that created or upgraded the store.
        upgraded_at: When it did, in UTC.
    """

    number: str
    muxly: str | None = attrs.field(default=None, kw_only=True)
    upgraded_at: datetime | None = attrs.field(default=None, kw_only=True)


def stored_revision(connection: Connection) -> Revision | None:
    """The revision that the store says it has; None where there are no tables yet."""
    if not connection.dialect.has_table(connection, VERSION_TABLE):
        return None
    row = connection.execute(select(_revision)).first()
    return None if row is None else Revision(row[0], muxly=row[1], upgraded_at=row[2])


def stamp(connection: Connection, number: str) -> Revision:
    """Record that the store has this revision now, and that this Muxly brought it there."""
    stamped = Revision(number, muxly=version("muxly-core"), upgraded_at=now(connection))
    values = {
        "version_num": stamped.number,
        "muxly": stamped.muxly,
        "upgraded_at": stamped.upgraded_at,
    }
    if connection.dialect.has_table(connection, VERSION_TABLE):
        connection.execute(update(_revision).values(values))
    else:
        _revision.create(connection, checkfirst=False)
        connection.execute(insert(_revision).values(values))
    return stamped


SCRIPTS = Path(__file__).with_name("migrations")
# Alembic keeps the running migration in its own module's globals: one at a time in a process.
_ALEMBIC = threading.Lock()
_ADVISORY_LOCK = 0x6D75786C79  # "muxly"; who creates or upgrades a PostgreSQL store holds it
_LOCK_WAIT_MS = 600_000


def migrate(engine: Engine) -> None:
    """Bring an older store to this code's revision, or find that another process just has.

    Raises:
        StoreError: A run is going on, or a migration failed; the store is as it was.
        RetryableError: The database is busy or cannot be reached.
    """
    with _ALEMBIC:
        if engine.dialect.name == "sqlite":
            _migrate_sqlite(engine)
            return
        with transaction(engine) as connection:
            take_lock(connection)
            if _is_due(engine, connection):
                _run(connection)


def refuse_newer(engine: Engine, stored: Revision) -> None:
    """Refuse a store that a newer Muxly has upgraded.

    Raises:
        StoreError: Names the version that did.
    """
    if stored.number <= HEAD:
        return
    by = f"Muxly {stored.muxly}" if stored.muxly else "a newer Muxly"
    raise StoreError(
        f"the store {location_of(engine)} was written by {by} (revision {stored.number}); this is Muxly "
        f"{version('muxly-core')}, which supports revisions up to {HEAD}. "
        f"Install {by} or later, or restore the backup that was made before the upgrade"
    )


def take_lock(connection: Connection) -> None:
    """Wait, inside a PostgreSQL transaction, until no other process creates or upgrades the store."""
    connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MS}"))
    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _migrate_sqlite(engine: Engine) -> None:
    path = sqlite.path_of(engine)
    assert path is not None
    with translated(engine), engine.connect() as connection, _alone(connection), connection.begin():
        if not _is_due(engine, connection):
            return
        before = stored_revision(connection)
        assert before is not None
        # The write lock is held, so the copy is of exactly what is about to change.
        sqlite.back_up(path, before.number)
        _run(connection)
        _check_foreign_keys(engine, connection)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Suspend foreign keys, and wait long for other processes; both before the transaction begins.

    A migration re-creates tables: with foreign keys on, dropping the old one would delete
    its children's rows. Inside a transaction the PRAGMA does nothing, silently, and
    SQLAlchemy begins one with the first statement, so the driver's own connection is used.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    (timeout,) = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_MS}")
    driver.execute("PRAGMA foreign_keys = OFF")
    assert driver.execute("PRAGMA foreign_keys").fetchone() == (0,)
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.execute(f"PRAGMA busy_timeout = {timeout}")


def _check_foreign_keys(engine: Engine, connection: Connection) -> None:
    """Look for rows whose parent is gone, which nothing noticed while foreign keys were off."""
    lost = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if lost is not None:
        raise StoreError(
            f"the store {location_of(engine)} cannot be upgraded: row {lost[1]} of the table {lost[0]} refers "
            f"to a missing row of {lost[2]}. Nothing was changed; restore a backup, and report this as a bug"
        )


def _is_due(engine: Engine, connection: Connection) -> bool:
    before = stored_revision(connection)
    assert before is not None
    refuse_newer(engine, before)
    if before.number == HEAD:
        return False
    _refuse_running(engine, connection, before)
    return True


def _refuse_running(engine: Engine, connection: Connection, stored: Revision) -> None:
    """A run of an older Muxly would go on writing as if the tables had not changed."""
    alive = leases.c.expires_at > now(connection)
    held = connection.execute(select(leases.c.pipeline, leases.c.holder).where(alive)).first()
    if held is not None:
        raise StoreError(
            f"the store {location_of(engine)} must be upgraded from revision {stored.number} to {HEAD}, but "
            f"{held.holder} is running the pipeline {held.pipeline!r}; try again when that run has ended"
        )


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["muxly"] = {
        "connection": connection,
        "version_table": VERSION_TABLE,
        "render_as_batch": True,
    }
    command.upgrade(config, HEAD)
    stamp(connection, HEAD)
