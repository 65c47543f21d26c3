"""Errors that several drivers give in the same words: SQLSTATE classes, and SQLite's messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxly_routers.sql.quoting import FaultKind

__all__ = ["absent_database", "column_of_sqlite", "kind_of_sqlite", "kind_of_state"]

# PostgreSQL manual, appendix A. Classes: connection, rollback, resources, operator, system, transaction, state.
_RETRIED = {"08", "40", "53", "57", "58", "25", "55", "XX"}
# What depends on it, no unique index for a key, no identity for a replica, a view, too many columns.
_TABLE = {"2BP01", "42P10", "42P16", "42809", "54011", "55000"}
# Tables and columns that are not there, are there already, or are of another type; a plan that is too old.
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
    """The database that is not there, if PostgreSQL or MySQL says so of one."""
    found = _ABSENT.search(message)
    return found[1] or found[2] if found else None


def kind_of_state(state: str, message: str) -> FaultKind:
    """What is to be done about an error with this SQLSTATE."""
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
    """What is to be done about an error of SQLite with this message; None if it is none that is known."""
    return next((kind for kind, pattern in _SQLITE if pattern.search(message)), None)


def column_of_sqlite(message: str) -> str | None:
    """The column that a message of SQLite names."""
    named = _SQLITE_COLUMN.search(message)
    return named[1] if named else None
