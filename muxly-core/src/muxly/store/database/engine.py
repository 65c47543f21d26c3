"""The store's engine, and its two kinds of transaction: one that writes and one that only reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, RootTransaction, create_engine, event, exc, make_url, text

from muxly.errors import RetryableError, StoreError
from muxly.store.database import postgres, sqlite
from muxly.store.database.errors import first_line, location_of, translated

__all__ = ["Engine", "Statements", "now", "open_engine", "reading", "sqlite_url", "transaction"]

_MAX_STATEMENTS = 1_000


class Statements(dict[Any, Any]):
    """A cache of compiled statements by their content, whichever engine compiled them.

    SQLAlchemy keeps one for each engine, and each run opens an engine: compiling the same hundred statements
    again took 40 % of a short run. It may be given to engines that are made alike.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        """The statement of that key; the key's first part is the engine's dialect."""
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= _MAX_STATEMENTS:
            self.clear()
        super().__setitem__(key[1:], compiled)


_TURN = "muxly_turn"
_BEGIN = "muxly_begin"
_TURN_SECONDS = 60.0
_STATEMENTS = Statements()


def sqlite_url(path: object) -> str:
    """The URL of a store in the SQLite file at `path`."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def open_engine(url: str) -> Engine:
    """An engine for the store at `url`; it connects at the first transaction.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Returns:
        An engine that any thread may use. A SQLite file is never created here
        (`muxly.store.schema.upgrade.ensure_current` does that), so a lost store is noticed.

    Raises:
        StoreError: The URL names no such database, its driver is not installed, or the
            SQLite file is damaged or lies on a network file system.
    """
    parsed = _parsed(url)
    return _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else postgres.open_server(parsed)


def _parsed(url: str) -> URL:
    try:
        # `postgres://` is what many hosting companies hand out.
        parsed = make_url(f"postgresql{url[8:]}" if url.startswith("postgres://") else url)
    except (exc.ArgumentError, ValueError) as cause:
        raise StoreError(f"the store's URL is not valid; {_EXPECTED}") from cause
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise StoreError(f"{backend!r} cannot be used as a store; {_EXPECTED}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise StoreError(f"a store cannot be in memory, because it would be lost; {_EXPECTED}")
    return parsed


_EXPECTED = "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"


def _sqlite(url: URL) -> Engine:
    path = sqlite.checked(str(url.database))
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=lambda: sqlite.connect(path),
        hide_parameters=True,
        max_overflow=-1,
        # Within one process writers wait here, in turn and without polling.
        execution_options={_TURN: threading.Lock(), "compiled_cache": _STATEMENTS},
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that writes takes the lock at once: to take it later is to find that
    # another has written since, and to fail.
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes: committed and durable at the end, undone by any exception.

    On SQLite it holds the file's write lock from its start. On PostgreSQL it is READ
    COMMITTED: what must not change meanwhile is locked by ``SELECT ... FOR UPDATE``.
    It must not be opened inside another one of the same thread.

    Raises:
        RetryableError: The store is busy or the connection was lost; nothing was committed.
        StoreError: The store is damaged, full or unreadable, or the connection was lost
            during COMMIT and the server could not be asked whether it took place.
    """
    with _turn(engine), translated(engine), engine.connect() as connection, connection.begin() as begun:
        yield connection
        if engine.dialect.name == "sqlite":
            begun.commit()
        else:
            _commit_remotely(engine, connection, begun)


def _commit_remotely(engine: Engine, connection: Connection, begun: RootTransaction) -> None:
    number = postgres.transaction_number(connection)
    try:
        begun.commit()
    except exc.DBAPIError as cause:
        if not cause.connection_invalidated or number is None:
            raise
        fate = postgres.fate(engine, number)
        if fate == "aborted":
            raise
        if fate != "committed":
            raise StoreError(
                f"the store {location_of(engine)}: the connection was lost during COMMIT ({first_line(cause)}), and it "
                "is unknown whether the changes were stored; run again: the next run continues from the stored state"
            ) from cause


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    lock = engine.get_execution_options().get(_TURN)
    if lock is None:
        yield
        return
    if not lock.acquire(timeout=_TURN_SECONDS):
        raise RetryableError(
            f"the store {location_of(engine)}: another thread of this process has been writing "
            f"for more than {_TURN_SECONDS:g} s"
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: every statement sees the same moment, and none can write.

    Raises:
        RetryableError: The store is busy or the connection was lost.
        StoreError: The store is damaged or unreadable.
    """
    with translated(engine, writes=False), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            with _query_only(connection.execution_options(**{_BEGIN: "BEGIN"})):
                yield connection
            return
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


@contextmanager
def _query_only(connection: Connection) -> Iterator[None]:
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        driver.execute("PRAGMA query_only = OFF")


def now(connection: Connection) -> datetime:
    """The database's clock, in UTC, so that several machines agree on it.

    A SQLite store has one machine only, whose clock it is.
    """
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment.astimezone(UTC)
