"""Any other database, through SQLAlchemy: plain inserts, and statements that all databases understand.

Types are chosen by SQLAlchemy, and what a table holds is compared by kind of value: a column's type is
never changed here, since databases do that in too many ways.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias

import pyarrow as pa
import sqlalchemy as sa
from pyarrow import types
from sqlalchemy import URL, exc
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeEngine

import muxly
from muxly.suggest import suggest
from muxly_routers.sql import urls, values
from muxly_routers.sql.dialect import (
    LEGACY_RENAME,
    SEQUENCE,
    Column,
    ColumnType,
    Merge,
    SessionTimeouts,
    SqlDialect,
    SqlSession,
)
from muxly_routers.sql.errors import DatabaseFault, column_of_sqlite, kind_of_sqlite, kind_of_state
from muxly_routers.sql.names import TableName

__all__ = ["GenericDialect"]

_TRANSACTIONAL = {"postgresql", "cockroachdb", "sqlite", "mssql", "redshift"}
_KINDS: tuple[type[TypeEngine[Any]], ...] = (
    sa.Boolean,
    sa.Integer,
    sa.Float,
    sa.Numeric,
    sa.LargeBinary,
    sa.DateTime,
    sa.Date,
    sa.Time,
    sa.JSON,
    sa.String,
)
# With less, psql would be taken for mysql.
_CUTOFF = 0.75
_KNOWN = (
    "postgresql",
    "postgresql+psycopg",
    "mysql",
    "mysql+pymysql",
    "mariadb",
    "mariadb+pymysql",
    "sqlite",
    "duckdb",
    "mssql+pyodbc",
    "oracle+oracledb",
)
_PLACEHOLDERS = {"qmark": "?", "format": "%s", "numeric": ":{}", "named": ":p{}", "pyformat": "%(p{})s"}
_KEY_LENGTH = 255

_Storage: TypeAlias = tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]]


class GenericDialect(SqlDialect):
    """SQL, types and errors of any database that SQLAlchemy has a dialect for.

    Args:
        url: Of the database.

    Raises:
        ConfigurationError: SQLAlchemy has no dialect for it here.
    """

    # Staging tables are permanent ones: databases do not agree on what a temporary table is.
    temporary: ClassVar[str] = ""

    def __init__(self, url: URL) -> None:
        self._sqlalchemy = _sqlalchemy_dialect(url)
        self.name = self._sqlalchemy.name  # type: ignore[misc]
        self.longest_name = self._sqlalchemy.max_identifier_length  # type: ignore[misc]
        self.schemas = self.name != "sqlite"  # type: ignore[misc]
        self.transactional = self.name in _TRANSACTIONAL  # type: ignore[misc]
        self._kinds: dict[str, type[TypeEngine[Any]]] = {}

    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        if self.name == "sqlite":
            urls.make_parent_folder(urls.database_file(url))
        return GenericSession(self, url, timeouts)

    def write_lock_name(self, url: URL) -> str | None:
        return urls.resolved_file(url) if self.name == "sqlite" else None

    def missing_database(self, url: URL) -> str | None:
        return urls.missing_file(urls.database_file(url)) if self.name == "sqlite" else None

    def spelled(self, type: TypeEngine[Any]) -> str:
        """A type as it stands in SQL; its kind is remembered."""
        text = type.compile(dialect=self._sqlalchemy)
        self._kinds[text] = next((kind for kind in _KINDS if isinstance(type, kind)), sa.types.NullType)
        return text

    def quoted(self, name: str) -> str:
        return self._sqlalchemy.identifier_preparer.quote_identifier(name)

    def folded(self, name: str, *, table: bool = False) -> str:
        return name.casefold()

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return table and name.lower().startswith("sqlite_")

    def parameter(self, number: int) -> str:
        return _PLACEHOLDERS[self._sqlalchemy.paramstyle].format(number)

    def parameters(self, given: Sequence[Any]) -> Any:
        """Parameters as the driver expects them."""
        if self._sqlalchemy.paramstyle in ("named", "pyformat"):
            return {f"p{number}": value for number, value in enumerate(given, start=1)}
        return tuple(given)

    def binding(self, wire: pa.DataType) -> Callable[[Any], Any]:
        """The conversion of Python values for the driver."""
        type = _bound_type(wire)
        return type.dialect_impl(self._sqlalchemy).bind_processor(self._sqlalchemy) or (lambda value: value)

    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        storage = _storage(arrow_type, self._sqlalchemy, key=key)
        if storage is None:
            return None
        type, wire, convert = storage
        return ColumnType(self.spelled(type), wire, convert)

    def fault(self, error: Exception) -> DatabaseFault | None:
        if not isinstance(error, exc.SQLAlchemyError | OSError):
            return None
        cause = getattr(error, "orig", None) or error
        message = str(cause).partition("\n")[0]
        state = getattr(cause, "sqlstate", None)
        if state is not None:
            return DatabaseFault(kind_of_state(state, message), f"{message} (SQLSTATE {state})")
        if self.name == "sqlite" and (kind := kind_of_sqlite(message)):
            return DatabaseFault(kind, message, column_of_sqlite(message))
        if isinstance(error, exc.IntegrityError | exc.DataError):
            return DatabaseFault("value", message)
        if isinstance(error, exc.ProgrammingError | exc.NoSuchTableError):
            return DatabaseFault("stale", message)
        lost = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError | OSError)
        return DatabaseFault("retry" if lost else "wrong", message)

    def widened(self, existing: str, wanted: str) -> str | None:
        if existing == wanted or self._kind(existing) in (self._kind(wanted), sa.String):
            return existing
        kinds = (self._kind(existing), self._kind(wanted))
        return existing if kinds in ((sa.Numeric, sa.Integer), (sa.Float, sa.Integer)) else None

    def _kind(self, type: str) -> type[TypeEngine[Any]]:
        return self._kinds.get(type, sa.types.NullType)

    def loads_into(self, existing: str, wanted: str) -> bool:
        return True

    def cast(self, expression: str, type: str) -> str:
        return expression

    def null_safe_equals(self, left: str, right: str) -> str:
        return f"({left} = {right} OR ({left} IS NULL AND {right} IS NULL))"

    def create_index(self, name: str, table: TableName, columns: Sequence[str], *, unique: bool = False) -> str:
        word = "UNIQUE INDEX" if unique else "INDEX"
        return f"CREATE {word} {self.quoted(name)} ON {self.qualified(table)} ({self.column_list(columns)})"

    def delete_matching(self, target: TableName, values: TableName, columns: Sequence[Column], *, nulls: bool) -> str:
        rows = self.qualified(target)
        condition = self._matching(columns, rows, "v", nulls=nulls)
        return f"DELETE FROM {rows} WHERE EXISTS (SELECT 1 FROM {self.qualified(values)} v WHERE {condition})"

    def merge(self, merge: Merge) -> list[str]:
        """Delete staged records that are not the newest of their key, update older rows, insert the others."""
        target, stage = self.qualified(merge.target), self.qualified(merge.stage)
        names = merge.names
        matching = self._same_key(merge, "s", target)
        updates = ", ".join(
            f"{self.quoted(name)} = "
            f"(SELECT {self.merged_value(merge, name, 's', target)} FROM {stage} s WHERE {matching})"
            for name in names
            if name not in merge.key
        )
        listed = self.column_list(names)
        loses = f"{self._same_key(merge, 's', stage)} AND {self._beats(merge, 's', stage)}"
        wins = f"{matching} AND {self.is_newer(merge, 's', target)}"
        known = f"SELECT 1 FROM {target} t WHERE {self._same_key(merge, 't', stage)}"
        return [
            f"DELETE FROM {stage} WHERE EXISTS (SELECT 1 FROM {stage} s WHERE {loses})",
            f"UPDATE {target} SET {updates} WHERE EXISTS (SELECT 1 FROM {stage} s WHERE {wins})",
            f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {stage} WHERE NOT EXISTS ({known})",
        ]

    def _same_key(self, merge: Merge, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{self.quoted(name)} = {right}.{self.quoted(name)}" for name in merge.key)

    def _beats(self, merge: Merge, new: str, old: str) -> str:
        """A condition: of two staged records of one key, ``new`` wins."""
        later = f"{new}.{self.quoted(SEQUENCE)} > {old}.{self.quoted(SEQUENCE)}"
        if merge.cursor is None:
            return later
        return self.wins(f"{new}.{self.quoted(merge.cursor)}", f"{old}.{self.quoted(merge.cursor)}", later)


def _sqlalchemy_dialect(url: URL) -> sa.Dialect:
    try:
        return url.get_dialect()()
    except exc.NoSuchModuleError as error:
        nearest = suggest(url.drivername, _KNOWN, cutoff=_CUTOFF)
        hint = f"did you mean {nearest}://? Else " if nearest else ""
        raise muxly.ConfigurationError(
            f"SQLAlchemy has no dialect {url.drivername!r} here; {hint}correct the beginning of the URL, or install "
            "the package that brings the dialect",
            path=("url",),
        ) from error


def _unchanged(array: pa.Array) -> pa.Array:
    return array


def _storage(arrow_type: pa.DataType, dialect: sa.Dialect, *, key: bool) -> _Storage | None:
    """The SQL type, the Arrow type that becomes the driver's Python objects, and the conversion to it."""
    text = sa.Unicode(_KEY_LENGTH) if key else sa.UnicodeText()
    if types.is_boolean(arrow_type):
        return sa.Boolean(), arrow_type, _unchanged
    if types.is_integer(arrow_type) and not types.is_uint64(arrow_type):
        return sa.BigInteger(), arrow_type, _unchanged
    if types.is_floating(arrow_type):
        return sa.Double(), pa.float64(), values.cast_to(pa.float64())
    if types.is_uint64(arrow_type) or types.is_decimal(arrow_type):
        return _exact_type(arrow_type, dialect, text)
    if values.is_text(arrow_type):
        return text, arrow_type, _unchanged
    if values.is_binary(arrow_type):
        return sa.LargeBinary(), arrow_type, _unchanged
    if types.is_nested(arrow_type):
        return (sa.UnicodeText(), pa.string(), values.as_json) if values.has_json(arrow_type) else None
    return _time_type(arrow_type, dialect)


def _bound_type(wire: pa.DataType) -> TypeEngine[Any]:
    """The type that tells the driver which of its several representations of such values to use."""
    if types.is_timestamp(wire):
        return sa.DateTime(timezone=wire.tz is not None)
    if types.is_decimal(wire):
        return sa.Numeric(wire.precision, wire.scale)
    known = ((types.is_date, sa.Date), (types.is_time, sa.Time), (types.is_boolean, sa.Boolean))
    return next((type() for matches, type in known if matches(wire)), sa.types.NullType())


def _exact_type(arrow_type: pa.DataType, dialect: sa.Dialect, text: TypeEngine[Any]) -> _Storage:
    """Numbers that must not become floats: as text, where the driver would make them so."""
    wire = pa.decimal128(20, 0) if types.is_uint64(arrow_type) else arrow_type
    number = sa.Numeric(wire.precision, wire.scale)
    bound = number.dialect_impl(dialect).bind_processor(dialect)
    if bound is not None and not isinstance(bound(Decimal(1)), Decimal):
        return text, pa.string(), values.as_text
    return number, wire, values.cast_to(wire)


def _time_type(arrow_type: pa.DataType, dialect: sa.Dialect) -> _Storage | None:
    if types.is_date(arrow_type):
        return sa.Date(), pa.date32(), values.dates
    if types.is_time(arrow_type):
        if dialect.name == "oracle":  # which has no type for a time of day
            return sa.Unicode(18), pa.string(), values.times_as_text
        return sa.Time(), pa.time64("us"), values.times_in_microseconds
    if types.is_duration(arrow_type):
        return sa.BigInteger(), pa.int64(), values.durations_as_integers
    if not types.is_timestamp(arrow_type):
        return None
    type = _timestamp_type(dialect, zoned=arrow_type.tz is not None)
    unzoned = _timestamp_type(dialect, zoned=False)
    if arrow_type.tz is not None and type.compile(dialect=dialect) == unzoned.compile(dialect=dialect):
        # This database has no timestamps with a zone; a text can have one.
        return sa.UnicodeText(), pa.string(), values.timestamps_as_text
    return type, pa.timestamp("us", None if arrow_type.tz is None else "UTC"), values.timestamps


def _timestamp_type(dialect: sa.Dialect, *, zoned: bool) -> TypeEngine[Any]:
    """The type of a timestamp with microseconds; the usual one is coarser in two databases."""
    if dialect.name == "oracle":
        return sa.TIMESTAMP(timezone=zoned)
    if dialect.name == "mssql":
        from sqlalchemy.dialects import mssql

        return mssql.DATETIMEOFFSET() if zoned else mssql.DATETIME2()  # type: ignore[no-untyped-call]
    return sa.DateTime(timezone=zoned)


class GenericSession(SqlSession):
    """One connection that SQLAlchemy makes.

    Args:
        dialect: Of the database.
        url: Of the database.
        timeouts: How long to wait; SQLAlchemy has no common option for that, so only SQLite gets it.
    """

    def __init__(self, dialect: GenericDialect, url: URL, timeouts: SessionTimeouts) -> None:
        self._dialect = dialect
        self._engine = _engine(url, {"timeout": timeouts.lock_seconds} if dialect.name == "sqlite" else {})
        self._connection: sa.Connection | None = self._engine.connect()
        self._begun = False
        if dialect.name == "sqlite":
            self.execute(LEGACY_RENAME)

    def begin(self) -> None:
        self._open_connection().begin()
        self._begun = True
        if self._dialect.name == "sqlite":
            # Its driver would begin only before a change of rows, and leave new tables out of the transaction.
            self._open_connection().exec_driver_sql("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._begun = False
        self._open_connection().commit()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                connection.close()
            self._engine.dispose()

    def execute(self, sql: str, *parameters: Any) -> None:
        with self._in_transaction() as connection:
            connection.exec_driver_sql(sql, self._dialect.parameters(parameters))

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._in_transaction() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, self._dialect.parameters(parameters))]

    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        # Not an insert of SQLAlchemy's: it fails where a column's name looks like a placeholder.
        names, dialect = batches.schema.names, self._dialect
        placeholders = ", ".join(dialect.parameter(number) for number in range(1, len(names) + 1))
        insert = f"INSERT INTO {dialect.qualified(table)} ({dialect.column_list(names)}) VALUES ({placeholders})"
        binding = [dialect.binding(field.type) for field in batches.schema]
        with self._in_transaction() as connection:
            for batch in batches:
                columns = [map(bind, column.to_pylist()) for bind, column in zip(binding, batch.columns, strict=True)]
                rows = [dialect.parameters(row) for row in zip(*columns, strict=True)]
                if rows:
                    connection.exec_driver_sql(insert, rows)

    def columns(self, table: TableName) -> dict[str, str]:
        with self._in_transaction() as connection, contextlib.suppress(exc.NoSuchTableError):
            columns = sa.inspect(connection).get_columns(table.name, table.schema)
            return {column["name"]: self._dialect.spelled(column["type"]) for column in columns}
        return {}

    def tables(self, schema: str | None) -> list[str]:
        with self._in_transaction() as connection:
            inspector = sa.inspect(connection)
            return [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]

    def has_schema(self, schema: str) -> bool:
        with self._in_transaction() as connection:
            return bool(sa.inspect(connection).has_schema(schema))

    def version(self) -> str:
        numbers = self._open_connection().dialect.server_version_info or ()
        return f"{self._dialect.name} {'.'.join(map(str, numbers))}".strip()

    def _open_connection(self) -> sa.Connection:
        if self._connection is None:
            raise OSError("the connection is closed")
        return self._connection

    @contextlib.contextmanager
    def _in_transaction(self) -> Iterator[sa.Connection]:
        """The connection; outside of a transaction each call is a transaction of its own."""
        connection = self._open_connection()
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
