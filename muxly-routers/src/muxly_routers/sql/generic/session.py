"""One connection that SQLAlchemy makes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

import muxly
from muxly_routers.sql.session import Session
from muxly_routers.sql.sqlite import dialect as sqlite

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import URL

    from muxly_routers.sql.generic.dialect import Generic
    from muxly_routers.sql.quoting import Place
    from muxly_routers.sql.session import Waits

__all__ = ["GenericSession"]


class GenericSession(Session):
    """Statements, answers and rows, one after the other.

    Args:
        words: Of the database.
        url: Of the database.
        waits: How long to wait; SQLAlchemy has no common way to say that, so only SQLite is told.
    """

    def __init__(self, words: Generic, url: URL, waits: Waits) -> None:
        self._words = words
        self._engine = _engine(url, {"timeout": waits.lock_seconds} if words.name == "sqlite" else {})
        self._connection: sa.Connection | None = self._engine.connect()
        self._begun = False
        if words.name == "sqlite":
            self.execute(sqlite.BY_NAME)

    def begin(self) -> None:
        self._opened().begin()
        self._begun = True
        if self._words.name == "sqlite":
            # Its driver would begin only before a change of records, and leave new tables out.
            self._opened().exec_driver_sql("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._begun = False
        self._opened().commit()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                connection.close()
            self._engine.dispose()

    def execute(self, sql: str, *parameters: Any) -> None:
        with self._in_transaction() as connection:
            connection.exec_driver_sql(sql, self._words.parameters(parameters))

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._in_transaction() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, self._words.parameters(parameters))]

    def load(self, place: Place, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        # Not an insert of SQLAlchemy's: it loses its way where a column's name looks like a placeholder.
        names, words = batches.schema.names, self._words
        marks = ", ".join(words.parameter(number) for number in range(1, len(names) + 1))
        insert = f"INSERT INTO {words.at(place)} ({words.listed(names)}) VALUES ({marks})"
        binding = [words.binding(field.type) for field in batches.schema]
        with self._in_transaction() as connection:
            for batch in batches:
                columns = [map(bind, column.to_pylist()) for bind, column in zip(binding, batch.columns, strict=True)]
                rows = [words.parameters(row) for row in zip(*columns, strict=True)]
                if rows:
                    connection.exec_driver_sql(insert, rows)

    def columns(self, place: Place) -> dict[str, str]:
        with self._in_transaction() as connection, contextlib.suppress(exc.NoSuchTableError):
            found = sa.inspect(connection).get_columns(place.table, place.schema)
            return {one["name"]: self._words.spelled(one["type"]) for one in found}
        return {}

    def tables(self, schema: str | None) -> list[str]:
        with self._in_transaction() as connection:
            looking = sa.inspect(connection)
            return [*looking.get_table_names(schema), *looking.get_view_names(schema)]

    def has_schema(self, schema: str) -> bool:
        with self._in_transaction() as connection:
            return bool(sa.inspect(connection).has_schema(schema))

    def version(self) -> str:
        numbers = self._opened().dialect.server_version_info or ()
        return f"{self._words.name} {'.'.join(map(str, numbers))}".strip()

    def _opened(self) -> sa.Connection:
        if self._connection is None:
            raise OSError("the connection is closed")
        return self._connection

    @contextlib.contextmanager
    def _in_transaction(self) -> Any:
        """The connection; outside of a transaction each call is one."""
        connection = self._opened()
        yield connection
        if not self._begun:
            connection.commit()


def _engine(url: URL, options: dict[str, Any]) -> sa.Engine:
    try:
        return sa.create_engine(url, poolclass=NullPool, connect_args=options)
    except ModuleNotFoundError as error:
        raise muxly.PluginError(
            f"{url.drivername} needs the package {error.name}, which is not installed; run: pip install {error.name}"
        ) from error
