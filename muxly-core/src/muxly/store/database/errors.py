"""Errors of the database, translated: those that may pass, and those that a person has to act on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, exc

from muxly.errors import MuxlyError, RetryableError, StoreError

__all__ = ["damaged", "first_line", "location_of", "translated"]

_RETRYABLE_CLASSES = {
    "08": "the connection failed",
    "40": "the transaction conflicted with another one",
    "53": "the server is short of resources",
    "57": "the server ended the connection or the statement",
}
_RETRYABLE_STATES = {
    "25006": "the server is read-only (a standby, or a failover)",
    "25P03": "the server ended a transaction that was idle for too long",
    "55P03": "a lock was held for too long",
}
_STEPS = {
    "28": "check the user and the password in the store's URL",
    "3D": "create the database, or correct its name in the store's URL",
    "42": "check that the user owns the store's tables, then run `muxly db upgrade`",
}
_NO_TABLES = {"42P01", "3F000"}
_SQLITE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, then run again: the stored data is intact",
    sqlite3.SQLITE_READONLY: "it is not writable; check its owner and mode, and that it was not moved or replaced",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and is writable for this user",
    sqlite3.SQLITE_PERM: "access is denied; check its owner and mode",
    sqlite3.SQLITE_AUTH: "access is denied; check its owner and mode",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check the disk before running again",
}
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def location_of(engine: Engine) -> str:
    """Where the store is, without its password: a path, or ``postgresql://host:port/name``."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{url.host or url.query.get('host', 'localhost')}{port}/{url.database or ''}"


def damaged(where: object, what: str) -> StoreError:
    """The error for a file that is no whole store; it is never replaced by a new one unasked."""
    return StoreError(
        f"the store {where} is damaged: {what}. Nothing was changed. Restore the file from a backup "
        f"(before each upgrade Muxly keeps one next to it, named {where}.backup-<revision>), without any "
        f"-wal or -shm file; or move it and the spool away to start over: every stream is then read again"
    )


def first_line(error: exc.DBAPIError) -> str:
    """The first line of the database's message."""
    return str(error.orig).strip().partition("\n")[0]


@contextmanager
def translated(engine: Engine, *, writes: bool = True) -> Iterator[None]:
    """Turn database errors inside into `RetryableError` or `StoreError`.

    An error of the statement itself (a broken constraint, a wrong value) passes through,
    for it is a bug or the ledger expects it; so does a refused write where `writes` is False.
    """
    try:
        yield
    except exc.TimeoutError as cause:
        raise RetryableError(f"the store {location_of(engine)}: no free connection; {cause.args[0]}") from cause
    except exc.DBAPIError as cause:
        meaning = _meaning(engine, cause)
        if meaning is None or (not writes and _is_refused_write(cause)):
            raise
        raise meaning from cause


def _is_refused_write(error: exc.DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None) or getattr(error.orig, "sqlstate", None)
    return code in {sqlite3.SQLITE_READONLY, "25006"}


def _meaning(engine: Engine, error: exc.DBAPIError) -> MuxlyError | None:
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(location_of(engine), error.orig)
    return _of_postgres(location_of(engine), error)


def _of_sqlite(where: str, error: sqlite3.Error) -> MuxlyError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _BUSY:
        return RetryableError(f"the store {where} is locked by another process ({error})")
    if code in _DAMAGED:
        return damaged(where, str(error))
    if str(error).startswith("no such table"):
        return StoreError(f"the store {where} does not have the tables it should ({error}); run `muxly db upgrade`")
    step = _SQLITE.get(code)
    return StoreError(f"the store {where}: {error}: {step}") if step else None


def _of_postgres(where: str, error: exc.DBAPIError) -> MuxlyError | None:
    state = getattr(error.orig, "sqlstate", None) or ""
    what = first_line(error)
    reason = _RETRYABLE_STATES.get(state) or _RETRYABLE_CLASSES.get(state[:2])
    if reason or error.connection_invalidated:
        return RetryableError(f"the store {where}: {reason or 'the connection was lost'} ({what})")
    if state in _NO_TABLES:
        return StoreError(f"the store {where} does not have the tables it should ({what}); run `muxly db upgrade`")
    if not state and isinstance(error, exc.OperationalError | exc.InterfaceError):
        return _of_connecting(where, what)
    if state[:2] in {"28", "3D"} or state == "42501":
        return StoreError(f"the store {where}: {what}; {_STEPS[state[:2]]}")
    return None


def _of_connecting(where: str, what: str) -> MuxlyError:
    """A refused connection carries no SQLSTATE, only libpq's sentence (psycopg 3, `Connection.connect`)."""
    for clue, prefix in (("password", "28"), ("does not exist", "3D"), ("pg_hba.conf", "28")):
        if clue in what:
            return StoreError(f"the store {where}: {what}; {_STEPS[prefix]}")
    return RetryableError(f"the store {where} cannot be reached ({what})")
