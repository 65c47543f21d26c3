"""Errors of databases, classified by what is to be done about them, and the errors of Muxly that they become.

A dialect makes a ``DatabaseFault`` of an error of its driver; ``translated_errors`` makes of that what the
runner answers. Errors that several drivers give alike are classified here: SQLSTATE classes, and SQLite's
messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from attrs import frozen

import muxly
from muxly_routers import _failures

__all__ = [
    "CHANGE_IT",
    "DatabaseFault",
    "FaultKind",
    "StaleTableError",
    "absent_database",
    "column_of_sqlite",
    "kind_of_sqlite",
    "kind_of_state",
    "translated_errors",
]

CHANGE_IT = "change the table, or rename it, and a new one is made"

FaultKind = Literal["retry", "value", "stale", "table", "denied", "wrong"]


@frozen
class DatabaseFault:
    """An error of the database, by what is to be done about it.

    Args:
        kind: ``retry``: trying again may help (connection, locks, a full disk, a server that starts).
            ``value``: some record is bad. ``stale``: a table or column is not as expected: look once
            more. ``table``: a person has to change the table. ``denied``: a password or a
            right is missing. ``wrong``: anything else.
        message: The database's own message, without values and without credentials.
        column: The column that it names, if it does.
        advice: For ``table``: what the person can do.
    """

    kind: FaultKind
    message: str
    column: str | None = None
    advice: str = CHANGE_IT


# PostgreSQL manual, appendix A. Classes: connection, rollback, resources, operator, system, transaction, state.
_RETRIED = {"08", "40", "53", "57", "58", "25", "55", "XX"}
# Dependent objects, no unique index for a key, no identity for a replica, a view, too many columns.
_TABLE = {"2BP01", "42P10", "42P16", "42809", "54011", "55000"}
# Tables and columns that are missing, exist already, or are of another type; a plan that is too old.
_STALE = {"42P01", "42703", "42P07", "42701", "42804", "22P03", "0A000", "42704", "42P06", "42710", "42883"}
# Two made the same schema or table at the same moment.
_CATALOG = re.compile(r"\bpg_(?:namespace|class|type|attribute|constraint)_\w+_index\b")
_SQLITE: tuple[tuple[FaultKind, re.Pattern[str]], ...] = (
    (
        "table",
        re.compile(r"ON CONFLICT clause does not match|cannot drop|error in (?:index|view|trigger)"),
    ),
    ("retry", re.compile(r"is locked|is busy|is full|disk I/O|schema has changed|out of memory|connection is closed")),
    ("denied", re.compile(r"readonly|read-only|authorization|not authorized|access permission")),
    ("value", re.compile(r"constraint failed|datatype mismatch|too big|out of range|unsupported type")),
    ("stale", re.compile(r"no such (?:table|column)|has no column|already exists|duplicate column|table .* has \d+")),
)
_SQLITE_COLUMN = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: [^.]*\.(\S+)")

_ABSENT = re.compile(r"database \"(.+)\" does not exist|Unknown database '(.+)'")


def absent_database(message: str) -> str | None:
    """The name of the database that does not exist, if a message of PostgreSQL or MySQL is about one."""
    absent = _ABSENT.search(message)
    return absent[1] or absent[2] if absent else None


def kind_of_state(state: str, message: str) -> FaultKind:
    """The kind of an error with this SQLSTATE."""
    if state in _STALE or (state == "23505" and _CATALOG.search(message)):
        return "stale"
    if state in _TABLE:
        return "table"
    if state == "42501" or state.startswith("28"):
        return "denied"
    if state[:2] in ("22", "23") or state == "54000":
        return "value"
    return "retry" if state[:2] in _RETRIED else "wrong"


def kind_of_sqlite(message: str) -> FaultKind | None:
    """The kind of an error of SQLite with this message; None if the message is not known."""
    return next((kind for kind, pattern in _SQLITE if pattern.search(message)), None)


def column_of_sqlite(message: str) -> str | None:
    """The column that a message of SQLite names."""
    named = _SQLITE_COLUMN.search(message)
    return named[1] if named else None


class StaleTableError(Exception):
    """A table is not as expected; the attempt may be made once more after a new look at it."""


class FaultRules(Protocol):
    """The part of a dialect that errors are translated with."""

    def fault(self, error: Exception) -> DatabaseFault | None:
        """The meaning of an error of the driver; None if it is not one of the driver's."""

    def quoted(self, name: str) -> str:
        """A name as it stands in SQL."""


@contextmanager
def translated_errors(dialect: FaultRules, where: str) -> Iterator[None]:
    """Let only errors out that the runner knows how to answer.

    Args:
        dialect: Classifies errors of its driver; any other error passes unchanged.
        where: The database, without credentials.

    Raises:
        StaleTableError: A table is not as expected.
        RetryableError: A connection, a lock, a full disk.
        RejectedError: A record.
        StreamError: A table that a person has to change.
        RouteError: A right, a password, or anything else that only a person can fix.
    """
    try:
        yield
    except (muxly.MuxlyError, StaleTableError):
        raise
    except Exception as error:
        fault = dialect.fault(error)
        if fault is None:
            raise
        raise _error(fault, where, dialect) from None


def _error(fault: DatabaseFault, where: str, dialect: FaultRules) -> Exception:
    # A message about a value may quote that value, and so hold any words.
    absent = absent_database(fault.message) if fault.kind in ("retry", "denied", "wrong") else None
    if absent is not None:
        create = f"CREATE DATABASE {dialect.quoted(absent)}"
        return muxly.RouteError(f"{where}: {fault.message}; create it ({create}), or correct the name in url")
    column = f"column {fault.column!r}: " if fault.column else ""
    if fault.kind == "retry":
        return muxly.RetryableError(f"{where}: {_failures.with_next_step(fault.message)}")
    if fault.kind == "value":
        return muxly.RejectedError(f"{column}{fault.message}")
    if fault.kind == "stale":
        return StaleTableError(f"{where}: {column}{fault.message}")
    if fault.kind == "table":
        return muxly.StreamError(f"{where}: {column}{fault.message}; {fault.advice}")
    if fault.kind == "denied":
        return muxly.RouteError(
            f"{where}: {fault.message}; give this user the right to it, or correct user and password, database and "
            "options in url"
        )
    return muxly.RouteError(f"{where}: {column}{fault.message}")
