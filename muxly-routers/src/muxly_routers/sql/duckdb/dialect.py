"""DuckDB: Arrow batches are scanned where they are, in the transaction that keeps them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import muxly
from muxly_routers._failures import needs
from muxly_routers.sql import files
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.duckdb import types
from muxly_routers.sql.quoting import Fault, FaultKind, Form, Place
from muxly_routers.sql.session import Session, Waits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from duckdb import DuckDBPyConnection
    from sqlalchemy import URL

__all__ = ["Duckdb"]

# So many records or bytes are scanned by one statement: a row group of DuckDB, or what memory should hold.
_SCAN_ROWS = 122_880
_SCAN_BYTES = 16 * 1024 * 1024
_VIEW = "_muxly_incoming"
_ONE_WAIT_SECONDS = 0.1

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


class Duckdb(Dialect):
    """The words of DuckDB."""

    name = "duckdb"
    # DuckDB itself has no limit; a name of this length still fits wherever the table may be copied to.
    longest_name = 255

    def open(self, url: URL, waits: Waits) -> Session:
        self.require()
        import duckdb

        path, settings = files.file_of(url), _settings_of(url)
        files.make_folder(path)
        left = waits.lock_seconds / _ONE_WAIT_SECONDS
        while True:
            try:
                return _Session(duckdb.connect(str(path)), settings)
            except duckdb.IOException as error:
                if _LOCKED not in str(error) or left < 1:
                    raise
            left -= 1
            waits.sleep(_ONE_WAIT_SECONDS)

    def folded(self, name: str, *, table: bool = False) -> str:
        # DuckDB folds ASCII letters only.
        return name.translate(_LOWER)

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        return types.form(kind, key=key)

    def require(self) -> None:
        with needs("duckdb"):
            import duckdb  # noqa: F401

    def written_alone(self, url: URL) -> str | None:
        # Two that make a table at once get in each other's way, and to wait is cheaper than to repeat.
        return files.written_alone(url)

    def not_there(self, url: URL) -> str | None:
        return files.not_there(files.file_of(url))

    def fault(self, error: Exception) -> Fault | None:
        if not any(kind.__module__.endswith("duckdb") for kind in type(error).__mro__):
            return None
        message = str(error).partition("\n")[0]
        if _LOCKED in message:
            return Fault("retry", _in_use(message))
        if "Cannot alter entry" in message:
            advice = "leave indexes: out for this stream in mode replace"
            return Fault("table", "DuckDB cannot rename a table that has an index", advice=advice)
        kind: FaultKind | None = _KINDS.get(type(error).__name__)
        if kind == "value":
            # What follows the first words shows values of the record.
            column = _COLUMN.search(message)
            return Fault("value", _first_words(message), column[1].strip('"') if column else None)
        return Fault(kind or _by_words(message), message)

    def widened(self, there: str, wanted: str) -> str | None:
        return types.widened(there, wanted)

    def loads_into(self, there: str, wanted: str) -> bool:
        # INSERT ... SELECT casts by itself, and refuses what does not fit.
        return self.widened(there, wanted) == there


class _Incoming:
    """What a load's statements scan, each time the next part: a transaction holds on to all that was registered."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()


class _Session(Session):
    def __init__(self, connection: DuckDBPyConnection, settings: Mapping[str, str]) -> None:
        self._connection = connection
        self._incoming = _Incoming()
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
        # To the last row, for a connection with rows left takes no other statement.
        return self._connection.execute(sql, parameters).fetchall()

    def load(self, place: Place, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        dialect = Duckdb()
        names = dialect.listed(batches.schema.names)
        statement = f"INSERT INTO {dialect.at(place)} ({names}) SELECT {names} FROM {_VIEW}"
        self._incoming.table = batches.schema.empty_table()
        self._connection.register(_VIEW, self._incoming)
        for self._incoming.table in _in_scans(batches):
            self.execute(statement)
        self._incoming.table = batches.schema.empty_table()
        self._connection.unregister(_VIEW)

    def columns(self, place: Place) -> dict[str, str]:
        return dict(self.query(_COLUMNS, place.schema, place.table))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query(_TABLES, schema)]

    def has_schema(self, schema: str) -> bool:
        return bool(self.query(_SCHEMA, schema))

    def version(self) -> str:
        return f"DuckDB {self.query('SELECT version()')[0][0].removeprefix('v')}"


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _settings_of(url: URL) -> dict[str, str]:
    """DuckDB's own settings, as far as a URL may have them.

    Raises:
        ConfigurationError: There are others, or a value is none.
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
    """The batches, as many at a time as one statement should take."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= _SCAN_ROWS or sum(one.nbytes for one in waiting) >= _SCAN_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _by_words(message: str) -> FaultKind:
    return next((kind for kind, pattern in _PATTERNS if pattern.search(message)), "wrong")


def _in_use(message: str) -> str:
    holder = _HOLDER.search(message)
    by = f" (process {holder[2]}, {holder[1]})" if holder else ""
    return f"the file is in use by another program{by}; DuckDB lets one program at a time open a file for writing"


def _first_words(message: str) -> str:
    """``Constraint Error: NOT NULL constraint failed``, without what stands in the record."""
    return re.split(r"[\"':]", message.partition(": ")[2], maxsplit=1)[0].strip() or "a value does not fit"
