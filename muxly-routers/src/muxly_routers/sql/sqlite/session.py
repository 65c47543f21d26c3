"""A connection to SQLite through ADBC, without its DB-API, which alone takes half a second to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adbc_driver_manager as adbc
import adbc_driver_sqlite
import pyarrow as pa

from muxly_routers.sql.dialect import LEGACY_RENAME, SessionTimeouts, SqlSession
from muxly_routers.sql.names import TableName

__all__ = ["SqliteSession"]

_RETRY_SECONDS = 0.05
_TYPES = {str: pa.string(), int: pa.int64(), type(None): pa.string()}


class SqliteSession(SqlSession):
    """One connection to SQLite.

    Args:
        path: Of the file.
        timeouts: How long it waits, and how.
    """

    def __init__(self, path: Path, timeouts: SessionTimeouts) -> None:
        self._timeouts = timeouts
        self._connection: adbc.AdbcConnection | None = None
        self._database = adbc.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=str(path))
        try:
            self._connection = adbc.AdbcConnection(self._database)
            # EXTRA also keeps the last commit when the power fails; FULL does so with a write-ahead log only.
            self.query("PRAGMA synchronous = EXTRA")
            self.query("PRAGMA busy_timeout = 0")
            self.query(LEGACY_RENAME)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that reads first could not wait for it.
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

        self._timeouts.retried(attempt, _is_locked, _RETRY_SECONDS)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        def attempt() -> pa.Table:
            with self._statement(sql, parameters) as statement:
                stream, _count = statement.execute_query()
                try:
                    return pa.RecordBatchReader.from_stream(stream).read_all()
                except pa.ArrowException as error:
                    raise OSError(str(error)) from error

        columns = self._timeouts.retried(attempt, _is_locked, _RETRY_SECONDS).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        options = {
            adbc.INGEST_OPTION_TARGET_TABLE: table.name,
            adbc.INGEST_OPTION_MODE: adbc.INGEST_OPTION_MODE_APPEND,
        }
        if temporary:
            options["adbc.ingest.temporary"] = "true"
        with adbc.AdbcStatement(self._open_connection()) as statement:
            statement.set_options(**options)
            statement.bind_stream(batches)
            statement.execute_update()

    def columns(self, table: TableName) -> dict[str, str]:
        return dict(self.query("SELECT name, type FROM pragma_table_info(?)", table.name))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]

    def version(self) -> str:
        return f"SQLite {self.query('SELECT sqlite_version()')[0][0]}"

    def _statement(self, sql: str, parameters: tuple[Any, ...]) -> adbc.AdbcStatement:
        statement = adbc.AdbcStatement(self._open_connection())
        statement.set_sql_query(sql)
        if parameters:
            statement.bind_stream(_one_row(parameters).to_reader())
        return statement

    def _open_connection(self) -> adbc.AdbcConnection:
        if self._connection is None:
            raise OSError("the connection is closed")
        return self._connection


def _is_locked(error: Exception) -> bool:
    return isinstance(error, adbc.Error) and "is locked" in str(error)


def _one_row(parameters: tuple[Any, ...]) -> pa.Table:
    arrays = [pa.array([value], _TYPES[type(value)]) for value in parameters]
    return pa.Table.from_arrays(arrays, names=[f"p{number}" for number in range(len(arrays))])
