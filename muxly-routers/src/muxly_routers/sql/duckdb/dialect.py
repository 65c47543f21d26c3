"""DuckDB: its dialect, and connections that scan Arrow batches where they are, inside the transaction.

=====================================  ================================================
Arrow type                             column type
=====================================  ================================================
bool                                   BOOLEAN
int8, int16, int32, int64              TINYINT, SMALLINT, INTEGER, BIGINT
uint8, uint16, uint32, uint64          UTINYINT, USMALLINT, UINTEGER, UBIGINT
float16, float32                       FLOAT
float64                                DOUBLE
decimal of up to 38 digits             DECIMAL
string                                 VARCHAR
binary                                 BLOB
date                                   DATE
timestamp                              TIMESTAMP, or TIMESTAMP WITH TIME ZONE
time                                   TIME
duration                               INTERVAL
list, struct, map                      JSON
=====================================  ================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types
from sqlalchemy import URL

import muxly
from muxly_routers._failures import needs
from muxly_routers.sql import urls, values
from muxly_routers.sql.dialect import ColumnType, FileDialect, SessionTimeouts, SqlSession
from muxly_routers.sql.errors import DatabaseFault, FaultKind
from muxly_routers.sql.names import TableName

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["DuckdbDialect"]

# How many records or bytes one statement scans: a row group of DuckDB, or what memory should hold.
_SCAN_ROWS = 122_880
_SCAN_BYTES = 16 * 1024 * 1024
_VIEW = "_muxly_incoming"
_RETRY_SECONDS = 0.1

# DuckDB alone would take four fifths of the machine's memory.
_SETTINGS = {"memory_limit": "128MiB"}
_SETTING_PATTERNS = {"memory_limit": re.compile(r"\d+(\.\d+)?\s?[KMGT]i?B"), "threads": re.compile(r"[1-9]\d{0,3}")}

_COLUMNS = """
SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database()
AND schema_name = COALESCE(?, current_schema()) AND lower(table_name) = lower(?) ORDER BY column_index
"""
_SCHEMA = "SELECT 1 FROM duckdb_schemas() WHERE database_name = current_database() AND lower(schema_name) = lower(?)"
_TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_catalog = current_database() AND table_schema = COALESCE(?, current_schema())
"""

_LOCKED = "Could not set lock"
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")
_PATTERNS: tuple[tuple[FaultKind, re.Pattern[str]], ...] = (
    ("table", re.compile(r"conflict target|Cannot change the type|depends? on it")),
    ("denied", re.compile(r"Permission denied|read-only")),
    ("retry", re.compile(r"No space left|[Cc]onflict|Could not write|interrupted|Connection already closed")),
    ("stale", re.compile(r"does not exist|already exists|does not have a column|not found in FROM")),
)
_KINDS: dict[str, FaultKind] = {
    "ConstraintException": "value",
    "ConversionException": "value",
    "OutOfRangeException": "value",
    "TransactionException": "retry",
    "OutOfMemoryException": "retry",
    "FatalException": "retry",
    "PermissionException": "denied",
}
_COLUMN = re.compile(r"constraint failed: [^.\s]+\.(\S+)")

_SIMPLE = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
}
_CAST_FIRST = {pa.float16(): pa.float32()}
# Beyond them are values that DuckDB takes for infinity, or cannot even display.
_FIRST_DAY, _LAST_DAY = -(2**31) + 2, 2**31 - 2
_FIRST_TIMESTAMP, _LAST_TIMESTAMP = -9_223_372_022_400_000_000, 2**63 - 2
_RANGES = {
    name: (0 if unsigned else -(2 ** (bits - 1)), 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1)
    for bits, word in ((8, "TINYINT"), (16, "SMALLINT"), (32, "INTEGER"), (64, "BIGINT"), (128, "HUGEINT"))
    for unsigned, name in ((False, word), (True, f"U{word}"))
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_MOST_DIGITS = 38


class DuckdbDialect(FileDialect):
    """SQL, types and errors of DuckDB.

    It writes with one transaction at a time: two that make a table at once get in each other's way, and to wait is
    cheaper than to repeat.
    """

    name = "duckdb"

    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        self.require()
        import duckdb

        path, settings = urls.database_file(url), _settings_of(url)
        urls.make_parent_folder(path)

        def is_locked(error: Exception) -> bool:
            return isinstance(error, duckdb.IOException) and _LOCKED in str(error)

        connection = timeouts.retried(lambda: duckdb.connect(str(path)), is_locked, _RETRY_SECONDS)
        return DuckdbSession(connection, settings)

    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        wire = _CAST_FIRST.get(arrow_type, arrow_type)
        if simple := _SIMPLE.get(wire):
            return ColumnType(simple, wire) if wire == arrow_type else ColumnType(simple, wire, values.cast_to(wire))
        if types.is_fixed_size_binary(arrow_type):
            return ColumnType("BLOB", arrow_type)
        if types.is_decimal(arrow_type):
            return _decimal_type(arrow_type)
        if types.is_nested(arrow_type):
            return ColumnType("JSON", pa.string(), values.as_json) if values.has_json(arrow_type) and not key else None
        return _time_type(arrow_type)

    def require(self) -> None:
        with needs("duckdb"):
            import duckdb  # noqa: F401

    def fault(self, error: Exception) -> DatabaseFault | None:
        if not any(cls.__module__.endswith("duckdb") for cls in type(error).__mro__):
            return None
        message = str(error).partition("\n")[0]
        if _LOCKED in message:
            return DatabaseFault("retry", _in_use(message))
        if "Cannot alter entry" in message:
            advice = "leave indexes: out for this stream in mode replace"
            return DatabaseFault("table", "DuckDB cannot rename a table that has an index", advice=advice)
        kind: FaultKind | None = _KINDS.get(type(error).__name__)
        if kind == "value":
            # The rest of the message shows values of the record.
            column = _COLUMN.search(message)
            return DatabaseFault("value", _first_words(message), column[1].strip('"') if column else None)
        return DatabaseFault(kind or _kind_of(message), message)

    def widened(self, existing: str, wanted: str) -> str | None:
        if existing == wanted or (existing == "VARCHAR" and wanted == "JSON"):
            return existing
        if existing == "JSON" and wanted == "VARCHAR":
            return wanted
        if existing == "DATE" and wanted == "TIMESTAMP":
            return wanted
        return existing if (existing, wanted) == ("TIMESTAMP", "DATE") else _wider_number(existing, wanted)

    def loads_into(self, existing: str, wanted: str) -> bool:
        # INSERT ... SELECT casts by itself, and refuses what does not fit.
        return self.widened(existing, wanted) == existing


def _decimal_type(arrow_type: pa.DataType) -> ColumnType | None:
    digits, scale = values.precision_and_scale(arrow_type)
    if digits > _MOST_DIGITS:
        return None
    wire = pa.decimal128(digits, scale)
    return ColumnType(f"DECIMAL({digits},{scale})", wire, values.cast_to(wire))


def _time_type(arrow_type: pa.DataType) -> ColumnType | None:
    """Times in microseconds; what is finer is refused rather than cut."""
    if types.is_date(arrow_type):
        message = "a date that DuckDB does not have"
        return ColumnType("DATE", pa.date32(), values.cast_within(pa.date32(), _FIRST_DAY, _LAST_DAY, message))
    if types.is_timestamp(arrow_type):
        wire = pa.timestamp("us", arrow_type.tz)
        name = "TIMESTAMP" if arrow_type.tz is None else "TIMESTAMP WITH TIME ZONE"
        message = "a timestamp that DuckDB does not have"
        return ColumnType(name, wire, values.cast_within(wire, _FIRST_TIMESTAMP, _LAST_TIMESTAMP, message))
    if types.is_time(arrow_type):
        return ColumnType("TIME", pa.time64("us"), values.times_in_microseconds)
    if types.is_duration(arrow_type):
        return ColumnType("INTERVAL", pa.duration("us"), values.cast_to(pa.duration("us")))
    return None


def _wider_number(existing: str, wanted: str) -> str | None:
    """The number type that holds the values of both; None = there is none."""
    floats = ("FLOAT", "DOUBLE")
    if existing in floats or wanted in floats:
        other = wanted if existing in floats else existing
        return "DOUBLE" if other in floats or other in _RANGES else None
    if existing in _RANGES and wanted in _RANGES:
        ranges = (_RANGES[existing], _RANGES[wanted])
        least, greatest = min(first for first, _ in ranges), max(last for _, last in ranges)
        if _RANGES[existing] == (least, greatest):
            return existing
        return next(name for name, (low, high) in _RANGES.items() if low <= least and greatest <= high)
    return _wider_decimal(existing, wanted)


def _wider_decimal(existing: str, wanted: str) -> str | None:
    old, new = _digits(existing), _digits(wanted)
    if old is None or new is None:
        return None
    whole, scale = max(old[0], new[0]), max(old[1], new[1])
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


def _digits(type: str) -> tuple[int, int] | None:
    """Digits before and after the point that a type holds; None = it is no type of exact numbers."""
    if type in _RANGES:
        return len(str(_RANGES[type][1])), 0
    decimal = _DECIMAL.fullmatch(type)
    return (int(decimal[1]) - int(decimal[2]), int(decimal[2])) if decimal else None


class _IncomingTable:
    """The part that a load's next statement scans; one object, for a transaction keeps every object registered."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()


class DuckdbSession(SqlSession):
    """One connection to DuckDB."""

    def __init__(self, connection: DuckDBPyConnection, settings: Mapping[str, str]) -> None:
        self._connection = connection
        self._incoming = _IncomingTable()
        try:
            for name, value in settings.items():
                self.execute(f"SET {name} = '{value}'")
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        self._connection.begin()

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()

    def execute(self, sql: str, *parameters: Any) -> None:
        self.query(sql, *parameters)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        # All rows: a connection with rows left to fetch takes no other statement.
        return self._connection.execute(sql, parameters).fetchall()

    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        dialect = DuckdbDialect()
        names = dialect.column_list(batches.schema.names)
        statement = f"INSERT INTO {dialect.qualified(table)} ({names}) SELECT {names} FROM {_VIEW}"
        self._incoming.table = batches.schema.empty_table()
        self._connection.register(_VIEW, self._incoming)
        for self._incoming.table in _in_scans(batches):
            self.execute(statement)
        self._incoming.table = batches.schema.empty_table()
        self._connection.unregister(_VIEW)

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(self.query(_COLUMNS, table.schema, table.name))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query(_TABLES, schema)]

    def has_schema(self, schema: str) -> bool:
        return bool(self.query(_SCHEMA, schema))

    def version(self) -> str:
        return f"DuckDB {self.query('SELECT version()')[0][0].removeprefix('v')}"


def _settings_of(url: URL) -> dict[str, str]:
    """The settings of DuckDB that a URL may have, with defaults.

    Raises:
        ConfigurationError: The URL has another one, or a value is not valid.
    """
    settings = dict(_SETTINGS)
    for name, value in url.query.items():
        pattern = _SETTING_PATTERNS.get(name)
        if pattern is None or not isinstance(value, str) or not pattern.fullmatch(value):
            raise muxly.ConfigurationError(
                f"{name}={value} is no option of a DuckDB URL; there are memory_limit=1GiB and threads=4", path=("url",)
            )
        settings[name] = value
    return settings


def _in_scans(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The batches, as many at a time as one statement should scan."""
    gathered: list[pa.RecordBatch] = []
    for batch in batches:
        gathered.append(batch)
        rows, size = sum(batch.num_rows for batch in gathered), sum(batch.nbytes for batch in gathered)
        if rows >= _SCAN_ROWS or size >= _SCAN_BYTES:
            yield pa.Table.from_batches(gathered)
            gathered = []
    if gathered:
        yield pa.Table.from_batches(gathered)


def _kind_of(message: str) -> FaultKind:
    return next((kind for kind, pattern in _PATTERNS if pattern.search(message)), "wrong")


def _in_use(message: str) -> str:
    """The message about a locked file, with the program that holds it."""
    holder = _HOLDER.search(message)
    by = f" (process {holder[2]}, {holder[1]})" if holder else ""
    return f"the file is in use by another program{by}; DuckDB lets one program at a time open a file for writing"


def _first_words(message: str) -> str:
    """The beginning of a message, up to the first value of the record: ``NOT NULL constraint failed``."""
    return re.split(r"[\"':]", message.partition(": ")[2], maxsplit=1)[0].strip() or "a value does not fit"
