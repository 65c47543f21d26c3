"""SQLite through ADBC: its own copy of the library, fed from Arrow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

import muxly
from muxly_routers._extras import needs
from muxly_routers._sql import values
from muxly_routers._sql.adbc import AdbcSession, is_driver_error
from muxly_routers._sql.dialect import Column, Dialect, Fault, FaultKind, Form, Place, Session, Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL

__all__ = ["Sqlite"]

_ONE_WAIT_SECONDS = 0.05
_MESSAGES: tuple[tuple[FaultKind, re.Pattern[str]], ...] = (
    ("retry", re.compile(r"is locked|is busy|is full|disk I/O|schema has changed|out of memory|connection is closed")),
    ("denied", re.compile(r"readonly|read-only|authorization|not authorized|access permission")),
    ("value", re.compile(r"constraint failed|datatype mismatch|too big|out of range|unsupported type")),
    ("stale", re.compile(r"no such (?:table|column)|has no column|already exists|duplicate column|table .* has \d+")),
)
_COLUMN = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: [^.]*\.(\S+)")
_NUMBERS = {"INTEGER", "REAL", "BOOLEAN", "BIGINT", "INT", "SMALLINT", "DOUBLE", "FLOAT"}


class Sqlite(Dialect):
    """The words of SQLite."""

    name = "sqlite"
    # SQLite itself has no limit; a name of this length still fits wherever the table may be copied to.
    longest_name = 255
    schemas = False
    one_writer = True

    def open(self, url: URL, waits: Waits) -> Session:
        with needs("sql"):
            import adbc_driver_sqlite

        path = _file_of(url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise muxly.RouteError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
        return _Session(adbc_driver_sqlite._driver_path(), lambda: {"uri": str(path)}, waits)

    def not_there(self, url: URL) -> str | None:
        path = _file_of(url)
        return None if path.exists() else f"the file {path} is not there yet; the first delivery makes it"

    def folded(self, name: str, *, table: bool = False) -> str:
        # SQLite folds ASCII letters only.
        return name.translate(_LOWER)

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return table and name.lower().startswith("sqlite_")

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        if types.is_boolean(kind):
            return Form("BOOLEAN", pa.int8(), values.cast_to(pa.int8()))
        if types.is_integer(kind) and not types.is_uint64(kind):
            return Form("INTEGER", kind)
        if types.is_floating(kind):
            return Form("REAL", pa.float64(), values.cast_to(pa.float64()))
        if types.is_uint64(kind) or types.is_decimal(kind):
            return Form("TEXT", pa.string(), values.as_text)
        if values.is_text(kind):
            return Form("TEXT", kind)
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            return Form("BLOB", kind)
        if types.is_nested(kind):
            return Form("JSON", pa.string(), values.as_json) if values.has_json(kind) else None
        return _time_form(kind)

    def fault(self, error: Exception) -> Fault | None:
        if not is_driver_error(error):
            return None
        message = str(error).partition("\n")[0]
        named = _COLUMN.search(message)
        kind = next((kind for kind, pattern in _MESSAGES if pattern.search(message)), "wrong")
        return Fault(kind, message, named[1] if named else None)

    def widened(self, there: str, wanted: str) -> str | None:
        # A column takes values of any type; only numbers would be made of text that looks like one.
        if there in _NUMBERS and wanted not in _NUMBERS:
            return wanted if wanted == "TEXT" else None
        return there if wanted != "BLOB" or there == "BLOB" else None

    def loads_into(self, there: str, wanted: str) -> bool:
        return True

    def cast(self, expression: str, type: str) -> str:
        # A CAST to a type like DATE would make a number of the text; columns take any value as it is.
        return expression

    def change_type(self, place: Place, column: Column) -> list[str]:
        table, name = self.at(place), self.quoted(column.name)
        before = self.quoted(f"_muxly_before_{column.name}")
        return [
            f"ALTER TABLE {table} RENAME COLUMN {name} TO {before}",
            f"ALTER TABLE {table} ADD COLUMN {name} {column.type}",
            f"UPDATE {table} SET {name} = CAST({before} AS {column.type})",
            f"ALTER TABLE {table} DROP COLUMN {before}",
        ]


class _Session(AdbcSession):
    starting = "BEGIN IMMEDIATE"

    def __init__(self, driver: str, options: Callable[[], Mapping[str, str]], waits: Waits) -> None:
        super().__init__(driver, options)
        self._waits = waits
        try:
            # EXTRA also keeps the last commit when the power goes; FULL does so with a write-ahead log only.
            self.query("PRAGMA synchronous = EXTRA")
            self.query("PRAGMA busy_timeout = 0")
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Take the turn to write at once: a transaction that reads first could not wait for it."""
        left = self._waits.lock_seconds / _ONE_WAIT_SECONDS
        while True:
            try:
                super().begin()
                return
            except self._adbc.Error as error:
                if "is locked" not in str(error) or left < 1:
                    raise
            left -= 1
            self._waits.sleep(_ONE_WAIT_SECONDS)

    def columns(self, place: Place) -> dict[str, str]:
        return dict(self.query("SELECT name, type FROM pragma_table_info(?)", place.table))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]

    def version(self) -> str:
        return f"SQLite {self.query('SELECT sqlite_version()')[0][0]}"


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _file_of(url: URL) -> Path:
    """The database's file.

    Raises:
        ConfigurationError: The URL names a database in memory, which would be gone with the run.
    """
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise muxly.ConfigurationError(
            "a SQLite URL needs a file, as in sqlite:////absolute/path/records.db", path=("url",)
        )
    return Path(url.database).absolute()


def _time_form(kind: pa.DataType) -> Form | None:
    """Times as text in the form that SQLite's own date functions read; durations as microseconds."""
    if types.is_date(kind):
        return Form("DATE", pa.string(), _days)
    if types.is_time(kind):
        return Form("TIME", pa.string(), values.as_text)
    if types.is_timestamp(kind):
        return Form("TIMESTAMP", pa.string(), _moments)
    if types.is_duration(kind):
        return Form("INTEGER", pa.int64(), lambda array: array.cast(pa.duration("us")).cast(pa.int64()))
    return None


def _days(array: pa.Array) -> pa.Array:
    days = array.cast(pa.date32())
    values.check_range(days.view(pa.int32()), values.FIRST_DAY, values.LAST_DAY, "a date outside the years 1 to 9999")
    return values.as_text(days)


def _moments(array: pa.Array) -> pa.Array:
    """``2026-01-31 12:00:00.000000``, and a Z behind a time with a zone."""
    unit = "us" if array.type.unit in ("s", "ms") else array.type.unit
    moments = array.cast(pa.timestamp(unit, None if array.type.tz is None else "UTC"))
    if unit == "us":  # all that nanoseconds in 64 bits can say lies between the years 1677 and 2262
        first, last = (day * values.DAY_MICROSECONDS for day in (values.FIRST_DAY, values.LAST_DAY + 1))
        values.check_range(moments.view(pa.int64()), first, last - 1, "a timestamp outside the years 1 to 9999")
    return values.as_text(moments)
