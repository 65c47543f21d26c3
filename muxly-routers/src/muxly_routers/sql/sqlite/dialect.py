"""SQLite: what it says differently, and how values are kept where columns have no types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

from muxly_routers._failures import needs
from muxly_routers.sql import error_kinds, files, values
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.quoting import SEQUENCE, Column, Fault, Form, Merge, Place
from muxly_routers.sql.session import Session, Waits

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["BY_NAME", "Sqlite"]

BY_NAME = "PRAGMA legacy_alter_table = ON"
"""Lets a table be renamed while a view waits for one of that name."""

_NUMBERS = {"INTEGER", "REAL", "BOOLEAN", "BIGINT", "INT", "SMALLINT", "DOUBLE", "FLOAT"}


class Sqlite(Dialect):
    """The words of SQLite."""

    name = "sqlite"
    # SQLite itself has no limit; a name of this length still fits wherever the table may be copied to.
    longest_name = 255
    schemas = False

    def open(self, url: URL, waits: Waits) -> Session:
        self.require()
        from muxly_routers.sql.sqlite.session import SqliteSession

        path = files.file_of(url)
        files.make_folder(path)
        return SqliteSession(path, waits)

    def require(self) -> None:
        with needs("sql"):
            import muxly_routers.sql.sqlite.session  # noqa: F401

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
        from adbc_driver_manager import Error

        if not isinstance(error, Error | OSError):
            return None
        message = str(error).partition("\n")[0]
        return Fault(error_kinds.kind_of_sqlite(message) or "wrong", message, error_kinds.column_of_sqlite(message))

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
