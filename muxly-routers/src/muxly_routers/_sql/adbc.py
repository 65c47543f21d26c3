"""A session over an ADBC driver, without its DB-API: that alone would take half a second to import."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from muxly_routers._sql.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import adbc_driver_manager as adbc

    from muxly_routers._sql.terms import Place

__all__ = ["AdbcSession", "is_driver_error"]

_TYPES = {str: pa.string(), int: pa.int64(), type(None): pa.string()}


class AdbcSession(Session):
    """Statements, answers and bulk loads of one ADBC connection.

    Args:
        driver: Path of the driver's library.
        options: Gives the options of the database, ``uri`` among them; kept in no variable, for a
            traceback may show those.
    """

    asking: ClassVar[Mapping[str, str]] = {}
    """Options of statements that return rows."""

    starting: ClassVar[str] = "BEGIN"
    """What starts a transaction."""

    def __init__(self, driver: str, options: Callable[[], Mapping[str, str]]) -> None:
        import adbc_driver_manager as adbc

        self._adbc = adbc
        # Held while the connection must be neither interrupted nor closed.
        self._kept = threading.Lock()
        self._connection: adbc.AdbcConnection | None = None
        self._database = adbc.AdbcDatabase(driver=driver, **options())
        try:
            self._connection = adbc.AdbcConnection(self._database)
        except BaseException:
            self._database.close()
            raise

    def begin(self) -> None:
        self.execute(self.starting)

    def commit(self) -> None:
        with self._kept:
            self.execute("COMMIT")

    def close(self) -> None:
        with self._kept:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
                self._database.close()

    def execute(self, sql: str, *parameters: Any) -> None:
        with self._statement(sql, parameters) as statement:
            statement.execute_update()

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._statement(sql, parameters) as statement:
            statement.set_options(**self.asking)
            stream, _count = statement.execute_query()
            try:
                table = pa.RecordBatchReader.from_stream(stream).read_all()
            except pa.ArrowException as error:
                raise OSError(str(error)) from error
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def load(self, place: Place, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        options = {
            self._adbc.INGEST_OPTION_TARGET_TABLE: place.table,
            self._adbc.INGEST_OPTION_MODE: self._adbc.INGEST_OPTION_MODE_APPEND,
        }
        if temporary:
            options["adbc.ingest.temporary"] = "true"
        elif place.schema is not None:
            options["adbc.ingest.target_db_schema"] = place.schema
        with self._adbc.AdbcStatement(self._opened()) as statement:
            statement.set_options(**options)
            statement.bind_stream(batches)
            statement.execute_update()

    def _statement(self, sql: str, parameters: tuple[Any, ...]) -> adbc.AdbcStatement:
        statement = self._adbc.AdbcStatement(self._opened())
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


def is_driver_error(error: Exception) -> bool:
    """Whether an exception is one of those that an ``AdbcSession`` raises."""
    import adbc_driver_manager as adbc

    return isinstance(error, adbc.Error | OSError)
