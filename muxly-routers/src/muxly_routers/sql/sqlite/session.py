"""One connection to SQLite, through ADBC without its DB-API: that alone would take half a second to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import adbc_driver_manager as adbc
import adbc_driver_sqlite
import pyarrow as pa

from muxly_routers.sql.session import Session
from muxly_routers.sql.sqlite.dialect import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muxly_routers.sql.quoting import Place
    from muxly_routers.sql.session import Waits

__all__ = ["SqliteSession"]

T = TypeVar("T")

_ONE_WAIT_SECONDS = 0.05
_TYPES = {str: pa.string(), int: pa.int64(), type(None): pa.string()}


class SqliteSession(Session):
    """Statements, answers and bulk loads.

    Args:
        path: Of the file.
        waits: How long it waits, and how.
    """

    def __init__(self, path: Path, waits: Waits) -> None:
        self._waits = waits
        self._connection: adbc.AdbcConnection | None = None
        self._database = adbc.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=str(path))
        try:
            self._connection = adbc.AdbcConnection(self._database)
            # EXTRA also keeps the last commit when the power goes; FULL does so with a write-ahead log only.
            self.query("PRAGMA synchronous = EXTRA")
            self.query("PRAGMA busy_timeout = 0")
            self.query(BY_NAME)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        # It takes the turn to write at once: a transaction that reads first could not wait for it.
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.execute("COMMIT")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._database.close()

    def execute(self, sql: str, *parameters: Any) -> None:
        def attempt() -> None:
            with self._statement(sql, parameters) as statement:
                statement.execute_update()

        self._patiently(attempt)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        def attempt() -> pa.Table:
            with self._statement(sql, parameters) as statement:
                stream, _count = statement.execute_query()
                try:
                    return pa.RecordBatchReader.from_stream(stream).read_all()
                except pa.ArrowException as error:
                    raise OSError(str(error)) from error

        columns = self._patiently(attempt).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def load(self, place: Place, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        options = {
            adbc.INGEST_OPTION_TARGET_TABLE: place.table,
            adbc.INGEST_OPTION_MODE: adbc.INGEST_OPTION_MODE_APPEND,
        }
        if temporary:
            options["adbc.ingest.temporary"] = "true"
        with adbc.AdbcStatement(self._opened()) as statement:
            statement.set_options(**options)
            statement.bind_stream(batches)
            statement.execute_update()

    def columns(self, place: Place) -> dict[str, str]:
        return dict(self.query("SELECT name, type FROM pragma_table_info(?)", place.table))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]

    def version(self) -> str:
        return f"SQLite {self.query('SELECT sqlite_version()')[0][0]}"

    def _patiently(self, call: Callable[[], T]) -> T:
        """Wait for the lock of another program here: SQLite itself would not notice that the run stops."""
        left = self._waits.lock_seconds / _ONE_WAIT_SECONDS
        while True:
            try:
                return call()
            except adbc.Error as error:
                if "is locked" not in str(error) or left < 1:
                    raise
            left -= 1
            self._waits.sleep(_ONE_WAIT_SECONDS)

    def _statement(self, sql: str, parameters: tuple[Any, ...]) -> adbc.AdbcStatement:
        statement = adbc.AdbcStatement(self._opened())
        statement.set_sql_query(sql)
        if parameters:
            statement.bind_stream(_one_row(parameters).to_reader())
        return statement

    def _opened(self) -> adbc.AdbcConnection:
        if self._connection is None:
            raise OSError("the connection is closed")
        return self._connection


def _one_row(parameters: tuple[Any, ...]) -> pa.Table:
    arrays = [pa.array([one], _TYPES[type(one)]) for one in parameters]
    return pa.Table.from_arrays(arrays, names=[f"p{number}" for number in range(len(arrays))])
