"""Any other database, through SQLAlchemy: plain inserts, and statements that all of them know.

Types are chosen by SQLAlchemy, and what a table holds is compared by kind of value: a column's type is
never changed here, for databases do that in too many ways.
"""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
from pyarrow import types
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

import muxly
from muxly_routers._sql import faults, files, values
from muxly_routers._sql.dialect import Dialect
from muxly_routers._sql.session import Session
from muxly_routers._sql.terms import SEQUENCE, Column, Fault, Form, Merge, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import URL
    from sqlalchemy.types import TypeEngine

    from muxly_routers._sql.session import Waits

__all__ = ["Generic"]

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
_KEY_LENGTH = 255
_MARKS = {"qmark": "?", "format": "%s", "numeric": ":{}", "named": ":p{}", "pyformat": "%(p{})s"}


class Generic(Dialect):
    """The words of whatever database SQLAlchemy has a dialect for.

    Args:
        url: Which one.
    """

    # Staging tables are plain ones: databases do not agree on what a temporary table is.
    temporary: ClassVar[str] = ""

    def __init__(self, url: URL) -> None:
        self._words = _dialect(url)
        self.name = self._words.name  # type: ignore[misc]
        self.longest_name = self._words.max_identifier_length  # type: ignore[misc]
        self.transactional = self.name in _TRANSACTIONAL  # type: ignore[misc]
        self._kinds: dict[str, type[TypeEngine[Any]]] = {}

    def open(self, url: URL, waits: Waits) -> Session:
        if self.name == "sqlite":
            files.make_folder(files.file_of(url))
        return _Session(self, url)

    def written_alone(self, url: URL) -> str | None:
        return files.written_alone(url) if self.name == "sqlite" else None

    def not_there(self, url: URL) -> str | None:
        return files.not_there(files.file_of(url)) if self.name == "sqlite" else None

    def spelled(self, type: TypeEngine[Any]) -> str:
        """A type as it stands in SQL."""
        text = type.compile(dialect=self._words)
        self._kinds[text] = next((kind for kind in _KINDS if isinstance(type, kind)), sa.types.NullType)
        return text

    def quoted(self, name: str) -> str:
        return self._words.identifier_preparer.quote_identifier(name)

    def folded(self, name: str, *, table: bool = False) -> str:
        return name.casefold()

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return table and name.lower().startswith("sqlite_")

    def parameter(self, number: int) -> str:
        return _MARKS[self._words.paramstyle].format(number)

    def parameters(self, given: Sequence[Any]) -> Any:
        """Parameters as the driver wants them."""
        if self._words.paramstyle in ("named", "pyformat"):
            return {f"p{number}": one for number, one in enumerate(given, start=1)}
        return tuple(given)

    def binding(self, wire: pa.DataType) -> Callable[[Any], Any]:
        """How a Python value is made ready for the driver."""
        type = _bound_type(wire)
        return type.dialect_impl(self._words).bind_processor(self._words) or _same_value

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        found = _type_of(kind, self._words, key=key)
        return None if found is None else Form(self.spelled(found[0]), found[1], found[2])

    def fault(self, error: Exception) -> Fault | None:
        if not isinstance(error, exc.SQLAlchemyError | OSError):
            return None
        cause = getattr(error, "orig", None) or error
        message = str(cause).partition("\n")[0]
        state = getattr(cause, "sqlstate", None)
        if state is not None:
            return Fault(faults.kind_of_state(state, message), f"{message} (SQLSTATE {state})")
        if self.name == "sqlite" and (kind := faults.kind_of_sqlite(message)):
            return Fault(kind, message, faults.column_of_sqlite(message))
        if isinstance(error, exc.IntegrityError | exc.DataError):
            return Fault("value", message)
        if isinstance(error, exc.ProgrammingError | exc.NoSuchTableError):
            return Fault("stale", message)
        lost = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError | OSError)
        return Fault("retry" if lost else "wrong", message)

    def widened(self, there: str, wanted: str) -> str | None:
        if there == wanted or self._kind(there) in (self._kind(wanted), sa.String):
            return there
        holds = (self._kind(there), self._kind(wanted)) in ((sa.Numeric, sa.Integer), (sa.Float, sa.Integer))
        return there if holds else None

    def _kind(self, type: str) -> type[TypeEngine[Any]]:
        return self._kinds.get(type, sa.types.NullType)

    def loads_into(self, there: str, wanted: str) -> bool:
        return True

    def cast(self, expression: str, type: str) -> str:
        return expression

    def same(self, left: str, right: str) -> str:
        return f"({left} = {right} OR ({left} IS NULL AND {right} IS NULL))"

    def create_index(self, name: str, place: Place, columns: Sequence[str], *, unique: bool = False) -> str:
        word = "UNIQUE INDEX" if unique else "INDEX"
        return f"CREATE {word} {self.quoted(name)} ON {self.at(place)} ({self.listed(columns)})"

    def delete_matching(self, target: Place, values: Place, columns: Sequence[Column], *, nulls: bool) -> str:
        there = self.at(target)
        pairs = [(f"{there}.{self.quoted(one.name)}", f"v.{self.quoted(one.name)}") for one in columns]
        condition = " AND ".join(self.same(*pair) if nulls else " = ".join(pair) for pair in pairs)
        return f"DELETE FROM {there} WHERE EXISTS (SELECT 1 FROM {self.at(values)} v WHERE {condition})"

    def merge(self, merge: Merge) -> list[str]:
        """Drop what loses among the staged, change the rows that lose against the staged, add the others."""
        target, stage = self.at(merge.target), self.at(merge.stage)
        names = [*(one.name for one in merge.columns), SEQUENCE]
        matching = self._matching(merge, "s", target)
        updates = ", ".join(
            f"{self.quoted(name)} = (SELECT {self.merged(merge, name, 's', target)} FROM {stage} s WHERE {matching})"
            for name in names
            if name not in merge.key
        )
        listed = self.listed(names)
        loses = f"{self._matching(merge, 's', stage)} AND {self._after(merge, 's', stage)}"
        wins = f"{matching} AND {self.newer(merge, 's', target)}"
        known = f"SELECT 1 FROM {target} t WHERE {self._matching(merge, 't', stage)}"
        return [
            f"DELETE FROM {stage} WHERE EXISTS (SELECT 1 FROM {stage} s WHERE {loses})",
            f"UPDATE {target} SET {updates} WHERE EXISTS (SELECT 1 FROM {stage} s WHERE {wins})",
            f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {stage} WHERE NOT EXISTS ({known})",
        ]

    def _matching(self, merge: Merge, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{self.quoted(name)} = {right}.{self.quoted(name)}" for name in merge.key)

    def _after(self, merge: Merge, new: str, old: str) -> str:
        """A condition: of two staged records of one key the first wins."""
        later = f"{new}.{self.quoted(SEQUENCE)} > {old}.{self.quoted(SEQUENCE)}"
        if merge.cursor is None:
            return later
        fresh, stale = (f"{table}.{self.quoted(merge.cursor)}" for table in (new, old))
        greater = f"{fresh} > {stale} OR ({fresh} IS NOT NULL AND {stale} IS NULL)"
        return f"({greater} OR ({self.same(fresh, stale)} AND {later}))"


class _Session(Session):
    def __init__(self, words: Generic, url: URL) -> None:
        self._words = words
        self._engine = _engine(url)
        self._connection: sa.Connection | None = self._engine.connect()
        self._begun = False

    def begin(self) -> None:
        self._opened().begin()
        self._begun = True
        if self._words.name == "sqlite":
            # Its driver would begin only before a change of records, and leave new tables out.
            self._opened().exec_driver_sql("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._begun = False
        self._opened().commit()

    def rollback(self) -> None:
        self._begun = False
        self._opened().rollback()

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


def _dialect(url: URL) -> sa.Dialect:
    try:
        return url.get_dialect()()
    except exc.NoSuchModuleError as error:
        raise muxly.ConfigurationError(
            f"SQLAlchemy has no dialect {url.drivername!r} here; correct the beginning of the URL, or install the "
            "package that brings the dialect",
            path=("url",),
        ) from error


def _engine(url: URL) -> sa.Engine:
    try:
        return sa.create_engine(url, poolclass=NullPool)
    except ModuleNotFoundError as error:
        raise muxly.PluginError(
            f"{url.drivername} needs the package {error.name}, which is not installed; run: pip install {error.name}"
        ) from error


def _type_of(
    kind: pa.DataType, words: sa.Dialect, *, key: bool
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    """The SQL type, the Arrow type that becomes the driver's Python objects, and the way there."""
    text = sa.Unicode(_KEY_LENGTH) if key else sa.UnicodeText()
    if types.is_boolean(kind):
        return sa.Boolean(), kind, _unchanged
    if types.is_integer(kind) and not types.is_uint64(kind):
        return sa.BigInteger(), kind, _unchanged
    if types.is_floating(kind):
        return sa.Double(), pa.float64(), values.cast_to(pa.float64())
    if types.is_uint64(kind) or types.is_decimal(kind):
        return _exact_type(kind, words, text)
    if values.is_text(kind):
        return text, kind, _unchanged
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return sa.LargeBinary(), kind, _unchanged
    if types.is_nested(kind):
        return (sa.UnicodeText(), pa.string(), values.as_json) if values.has_json(kind) else None
    return _time_type(kind, words)


def _bound_type(wire: pa.DataType) -> TypeEngine[Any]:
    """What the driver is told of values that it has several forms for."""
    if types.is_timestamp(wire):
        return sa.DateTime(timezone=wire.tz is not None)
    if types.is_decimal(wire):
        return sa.Numeric(wire.precision, wire.scale)
    known = ((types.is_date, sa.Date), (types.is_time, sa.Time), (types.is_boolean, sa.Boolean))
    return next((made() for is_kind, made in known if is_kind(wire)), sa.types.NullType())


def _same_value(value: Any) -> Any:
    return value


def _unchanged(array: pa.Array) -> pa.Array:
    return array


def _exact_type(
    kind: pa.DataType, words: sa.Dialect, text: TypeEngine[Any]
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]]:
    """Numbers that must not become floats: as text, where the driver would make them so."""
    wire = pa.decimal128(20, 0) if types.is_uint64(kind) else kind
    number = sa.Numeric(wire.precision, wire.scale)
    bound = number.dialect_impl(words).bind_processor(words)
    if bound is not None and not isinstance(bound(Decimal(1)), Decimal):
        return text, pa.string(), values.as_text
    return number, wire, values.cast_to(wire)


def _time_type(
    kind: pa.DataType, words: sa.Dialect
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    if types.is_date(kind):
        return sa.Date(), pa.date32(), values.days
    if types.is_time(kind):
        if words.name == "oracle":  # which has no type for a time of day
            return sa.Unicode(18), pa.string(), lambda array: values.as_text(values.in_day(array))
        return sa.Time(), pa.time64("us"), values.times
    if types.is_duration(kind):
        return sa.BigInteger(), pa.int64(), lambda array: array.cast(pa.duration("us")).cast(pa.int64())
    if not types.is_timestamp(kind):
        return None
    moment = _moment(words, zoned=kind.tz is not None)
    if kind.tz is not None and moment.compile(dialect=words) == _moment(words, zoned=False).compile(dialect=words):
        # This database has no times with a zone; their text has one.
        return sa.UnicodeText(), pa.string(), values.moments_text
    return moment, pa.timestamp("us", None if kind.tz is None else "UTC"), values.moments


def _moment(words: sa.Dialect, *, zoned: bool) -> TypeEngine[Any]:
    """The type of a timestamp with microseconds; the usual one has less in two databases."""
    if words.name == "oracle":
        return sa.TIMESTAMP(timezone=zoned)
    if words.name == "mssql":
        from sqlalchemy.dialects import mssql

        return mssql.DATETIMEOFFSET() if zoned else mssql.DATETIME2()  # type: ignore[no-untyped-call]
    return sa.DateTime(timezone=zoned)
