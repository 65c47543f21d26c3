"""The dialect of SQLite, whose columns take values of any type.

=====================================  ================================================
Arrow type                             column type
=====================================  ================================================
bool                                   BOOLEAN
integers but uint64                    INTEGER
uint64, decimal                        TEXT
float16, float32, float64              REAL
string                                 TEXT
binary                                 BLOB
date, time, timestamp                  DATE, TIME, TIMESTAMP: text that its date functions read
duration                               INTEGER, microseconds
list, struct, map                      JSON
=====================================  ================================================
"""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types
from sqlalchemy import URL

from muxly_routers._failures import needs
from muxly_routers.sql import urls, values
from muxly_routers.sql.dialect import Column, ColumnType, FileDialect, Merge, SessionTimeouts, SqlSession
from muxly_routers.sql.errors import DatabaseFault, column_of_sqlite, kind_of_sqlite
from muxly_routers.sql.names import TableName

__all__ = ["SqliteDialect"]

_NUMBERS = {"INTEGER", "REAL", "BOOLEAN", "BIGINT", "INT", "SMALLINT", "DOUBLE", "FLOAT"}


class SqliteDialect(FileDialect):
    """SQL, types and errors of SQLite."""

    name = "sqlite"
    schemas = False

    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        self.require()
        from muxly_routers.sql.sqlite.session import SqliteSession

        path = urls.database_file(url)
        urls.make_parent_folder(path)
        return SqliteSession(path, timeouts)

    def require(self) -> None:
        with needs("sql"):
            import muxly_routers.sql.sqlite.session  # noqa: F401

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return table and name.lower().startswith("sqlite_")

    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        if types.is_boolean(arrow_type):
            return ColumnType("BOOLEAN", pa.int8(), values.cast_to(pa.int8()))
        if types.is_integer(arrow_type) and not types.is_uint64(arrow_type):
            return ColumnType("INTEGER", arrow_type)
        if types.is_floating(arrow_type):
            return ColumnType("REAL", pa.float64(), values.cast_to(pa.float64()))
        if types.is_uint64(arrow_type) or types.is_decimal(arrow_type):
            return ColumnType("TEXT", pa.string(), values.as_text)
        if values.is_text(arrow_type):
            return ColumnType("TEXT", arrow_type)
        if values.is_binary(arrow_type):
            return ColumnType("BLOB", arrow_type)
        if types.is_nested(arrow_type):
            return ColumnType("JSON", pa.string(), values.as_json) if values.has_json(arrow_type) else None
        return _time_type(arrow_type)

    def fault(self, error: Exception) -> DatabaseFault | None:
        from adbc_driver_manager import Error

        if not isinstance(error, Error | OSError):
            return None
        message = str(error).partition("\n")[0]
        return DatabaseFault(kind_of_sqlite(message) or "wrong", message, column_of_sqlite(message))

    def widened(self, existing: str, wanted: str) -> str | None:
        # A column takes values of any type; but one for numbers turns text that looks like a number into one.
        if existing in _NUMBERS and wanted not in _NUMBERS:
            return wanted if wanted == "TEXT" else None
        return existing if wanted != "BLOB" or existing == "BLOB" else None

    def loads_into(self, existing: str, wanted: str) -> bool:
        return True

    def cast(self, expression: str, type: str) -> str:
        # A CAST to a type like DATE would turn the text into a number; columns take any value as it is.
        return expression

    def winning_rows(self, merge: Merge) -> str:
        # No need to select: the staged records are merged one by one, each compared with what the one before left.
        return f"SELECT {self.column_list(merge.names)} FROM {self.qualified(merge.stage)} WHERE TRUE"

    def change_type(self, table: TableName, column: Column) -> list[str]:
        qualified, name = self.qualified(table), self.quoted(column.name)
        before = self.quoted(f"_muxly_before_{column.name}")
        return [
            f"ALTER TABLE {qualified} RENAME COLUMN {name} TO {before}",
            f"ALTER TABLE {qualified} ADD COLUMN {name} {column.type}",
            f"UPDATE {qualified} SET {name} = CAST({before} AS {column.type})",
            f"ALTER TABLE {qualified} DROP COLUMN {before}",
        ]


def _time_type(arrow_type: pa.DataType) -> ColumnType | None:
    """Times as text that SQLite's own date functions read; durations as microseconds."""
    if types.is_date(arrow_type):
        return ColumnType("DATE", pa.string(), lambda array: values.as_text(values.dates(array)))
    if types.is_time(arrow_type):
        return ColumnType("TIME", pa.string(), values.times_as_text)
    if types.is_timestamp(arrow_type):
        return ColumnType("TIMESTAMP", pa.string(), values.timestamps_as_text)
    if types.is_duration(arrow_type):
        return ColumnType("INTEGER", pa.int64(), values.durations_as_integers)
    return None
