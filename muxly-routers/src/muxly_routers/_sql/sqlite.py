"""SQLite through ADBC: its own copy of the library, fed from Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from pyarrow import types

from muxly_routers._extras import needs
from muxly_routers._sql import faults, files, values
from muxly_routers._sql.adbc import AdbcSession, is_driver_error
from muxly_routers._sql.dialect import Dialect
from muxly_routers._sql.session import Session, Waits
from muxly_routers._sql.terms import SEQUENCE, Column, Fault, Form, Merge, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL

__all__ = ["BY_NAME", "Sqlite"]

T = TypeVar("T")

BY_NAME = "PRAGMA legacy_alter_table = ON"
"""Lets a table be renamed while a view waits for one of that name."""

_ONE_WAIT_SECONDS = 0.05
_NUMBERS = {"INTEGER", "REAL", "BOOLEAN", "BIGINT", "INT", "SMALLINT", "DOUBLE", "FLOAT"}


class Sqlite(Dialect):
    """The words of SQLite."""

    name = "sqlite"
    # SQLite itself has no limit; a name of this length still fits wherever the table may be copied to.
    longest_name = 255
    schemas = False

    def open(self, url: URL, waits: Waits) -> Session:
        with needs("sql"):
            import adbc_driver_sqlite

        path = files.file_of(url)
        files.make_folder(path)
        return _Session(adbc_driver_sqlite._driver_path(), lambda: {"uri": str(path)}, waits)

    def written_alone(self, url: URL) -> str | None:
        return files.written_alone(url)

    def not_there(self, url: URL) -> str | None:
        return files.not_there(files.file_of(url))

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
        return Fault(faults.kind_of_sqlite(message) or "wrong", message, faults.column_of_sqlite(message))

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

    def winners(self, merge: Merge) -> str:
        # Staged records are merged one after the other, each against what the one before it left.
        names = self.listed([*(one.name for one in merge.columns), SEQUENCE])
        return f"SELECT {names} FROM {self.at(merge.stage)} WHERE TRUE"

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
    # It takes the turn to write at once: a transaction that reads first could not wait for it.
    starting = "BEGIN IMMEDIATE"

    def __init__(self, driver: str, options: Callable[[], Mapping[str, str]], waits: Waits) -> None:
        super().__init__(driver, options)
        self._waits = waits
        try:
            # EXTRA also keeps the last commit when the power goes; FULL does so with a write-ahead log only.
            self.query("PRAGMA synchronous = EXTRA")
            self.query("PRAGMA busy_timeout = 0")
            self.query(BY_NAME)
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, *parameters: Any) -> None:
        self._patiently(lambda: super(_Session, self).execute(sql, *parameters))

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._patiently(lambda: super(_Session, self).query(sql, *parameters))

    def _patiently(self, call: Callable[[], T]) -> T:
        """Wait for the lock of another program here: SQLite itself would not notice that the run stops."""
        left = self._waits.lock_seconds / _ONE_WAIT_SECONDS
        while True:
            try:
                return call()
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


def _time_form(kind: pa.DataType) -> Form | None:
    """Times as text in the form that SQLite's own date functions read; durations as microseconds."""
    if types.is_date(kind):
        return Form("DATE", pa.string(), lambda array: values.as_text(values.days(array)))
    if types.is_time(kind):
        return Form("TIME", pa.string(), lambda array: values.as_text(values.in_day(array)))
    if types.is_timestamp(kind):
        return Form("TIMESTAMP", pa.string(), values.moments_text)
    if types.is_duration(kind):
        return Form("INTEGER", pa.int64(), lambda array: array.cast(pa.duration("us")).cast(pa.int64()))
    return None
