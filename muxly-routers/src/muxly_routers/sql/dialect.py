"""The contract of a kind of database: its SQL, types and errors (``SqlDialect``), its connections (``SqlSession``).

``SqlDialect`` speaks standard SQL as PostgreSQL, SQLite and DuckDB share it; the dialect of a database overrides
what that database does differently. All else of the router is written once, over these two classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar, TypeVar, cast

import pyarrow as pa
from attrs import field, frozen
from sqlalchemy import URL

import muxly
from muxly_routers.sql import urls
from muxly_routers.sql.errors import DatabaseFault
from muxly_routers.sql.names import NameRules, TableName

__all__ = [
    "LEGACY_RENAME",
    "SEQUENCE",
    "Column",
    "ColumnType",
    "FileDialect",
    "Merge",
    "SessionTimeouts",
    "SqlDialect",
    "SqlSession",
    "dialect_of",
]

T = TypeVar("T")

SEQUENCE = "_muxly_sequence"
"""The hidden column with the sequence number of each record: where it stood in its stream's log."""

LEGACY_RENAME = "PRAGMA legacy_alter_table = ON"
"""Lets SQLite rename a table while a view waits for one of that name."""

_DIALECTS = {
    "postgresql": "postgres:PostgresDialect",
    "sqlite": "sqlite:SqliteDialect",
    "mysql": "mysql:MysqlDialect",
    "mariadb": "mysql:MysqlDialect",
    "duckdb": "duckdb:DuckdbDialect",
}
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _unchanged(array: pa.Array) -> pa.Array:
    return array


@frozen
class Column:
    """A column of a table: its name, and its type as ``SqlSession.columns`` would give it back."""

    name: str
    type: str


@frozen
class ColumnType:
    """The storage of values of one Arrow type in a database.

    Args:
        sql: The SQL type of a column for them, spelled as ``SqlSession.columns`` gives it back.
        wire: The Arrow type that ``SqlSession.load`` is given.
        convert: Makes an array of ``wire`` out of one of the Arrow type; a value that the database
            cannot hold is a ``ValueError`` or an ``ArrowException``.
    """

    sql: str
    wire: pa.DataType
    convert: Callable[[pa.Array], pa.Array] = field(default=_unchanged)


@frozen(kw_only=True)
class Merge:
    """An upsert of the records in a staging table.

    Args:
        target: The table.
        stage: The staging table: ``columns`` and ``SEQUENCE``.
        columns: All columns of the delivery, the key's among them, each with its type in the target.
        key: The names of the key's columns.
        cursor: The cursor's column, if the stream has one in its records.
        deleted: The column of tombstones where rows stay and are marked; a record with it set changes
            that mark, the cursor and the sequence number of an existing row, and nothing else.
    """

    target: TableName
    stage: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    cursor: str | None = None
    deleted: str | None = None

    @property
    def names(self) -> list[str]:
        """All columns of the staging table."""
        return [*(column.name for column in self.columns), SEQUENCE]

    def type_of(self, name: str) -> str:
        """The type of a column in the target."""
        return next(column.type for column in self.columns if column.name == name)


class SqlDialect(NameRules, ABC):
    """SQL, types and errors of one kind of database; a value without a connection."""

    name: ClassVar[str]
    transactional: ClassVar[bool] = True
    """Whether CREATE, ALTER, DROP and RENAME are part of a transaction."""

    schemas: ClassVar[bool] = True
    """Whether tables can be in schemas."""

    temporary: ClassVar[str] = "TEMPORARY "
    """The word before TABLE that makes a table of this session only; empty = there is none."""

    temporary_options: ClassVar[str] = ""
    """The clause after the columns of such a table."""

    @abstractmethod
    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        """Connect.

        Args:
            url: With its credentials; never to be shown.
            timeouts: How long to wait for what.
        """

    @abstractmethod
    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        """The storage of values of an Arrow type; None = the database cannot hold them.

        Args:
            arrow_type: Never a dictionary, run-end encoded, a view, an extension or null: the caller has made
                plain arrays of those, and leaves null columns out.
            key: Whether the column is part of a key or an index (MySQL wants a length then).
        """

    @abstractmethod
    def fault(self, error: Exception) -> DatabaseFault | None:
        """The meaning of an error of the driver; None if it is not one of the driver's, but a bug."""

    def require(self) -> None:
        """Load the driver, where ``check`` may have nothing to connect to.

        Raises:
            PluginError: It is not installed.
        """

    def write_lock_name(self, url: URL) -> str | None:
        """The name of what only one transaction of this process may write at a time; None = many may."""
        return None

    def missing_database(self, url: URL) -> str | None:
        """Why ``check`` should not connect: connecting would make the database. None = it may."""
        return None

    def parameter(self, number: int) -> str:
        """The placeholder of a parameter, counted from 1."""
        return "?"

    def widened(self, existing: str, wanted: str) -> str | None:
        """The type a column is changed to, so that it holds its values and values of ``wanted``.

        Args:
            existing: Its type as ``SqlSession.columns`` gave it.
            wanted: ``ColumnType.sql`` of the records.

        Returns:
            ``existing`` if nothing has to be done; None if there is no such type.
        """
        return existing if existing == wanted else None

    def loads_into(self, existing: str, wanted: str) -> bool:
        """Whether ``SqlSession.load`` may fill a column of type ``existing`` with values made for ``wanted``.

        Otherwise they go through a staging table and a CAST.
        """
        return existing == wanted

    def cast(self, expression: str, type: str) -> str:
        """A staged value as the target's column takes it."""
        return f"CAST({expression} AS {type})"

    def null_safe_equals(self, left: str, right: str) -> str:
        """A condition: two expressions are equal, or both null."""
        return f"{left} IS NOT DISTINCT FROM {right}"

    def collated(self, expression: str, type: str) -> str:
        """The expression of a cursor, compared by code points where it is text."""
        return expression

    def qualified(self, table: TableName) -> str:
        """A table as it stands in SQL."""
        name = self.quoted(table.name)
        return name if table.schema is None else f"{self.quoted(table.schema)}.{name}"

    def column_list(self, names: Sequence[str], prefix: str = "") -> str:
        """Names as they stand in SQL, separated by commas."""
        return ", ".join(prefix + self.quoted(name) for name in names)

    def create_schema(self, schema: str) -> str:
        """Make a schema, unless it exists."""
        return f"CREATE SCHEMA IF NOT EXISTS {self.quoted(schema)}"

    def create_table(
        self, table: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, temporary: bool = False
    ) -> str:
        """Make a table; the columns of its primary key are never null."""
        parts = [
            f"{self.quoted(column.name)} {column.type}{' NOT NULL' if column.name in key else ''}" for column in columns
        ]
        if key:
            parts.append(f"PRIMARY KEY ({self.column_list(key)})")
        word, options = (self.temporary, self.temporary_options) if temporary else ("", "")
        return f"CREATE {word}TABLE {self.qualified(table)} ({', '.join(parts)}){options}"

    def drop_table(self, table: TableName, *, temporary: bool = False) -> str:
        """Drop a table, if it exists."""
        return f"DROP TABLE IF EXISTS {self.qualified(table)}"

    def add_column(self, table: TableName, column: Column) -> str:
        """Add a column, null in the existing rows."""
        return f"ALTER TABLE {self.qualified(table)} ADD COLUMN {self.quoted(column.name)} {column.type}"

    def change_type(self, table: TableName, column: Column) -> list[str]:
        """Widen a column to a type that ``widened`` gave."""
        return [f"ALTER TABLE {self.qualified(table)} ALTER COLUMN {self.quoted(column.name)} TYPE {column.type}"]

    def rename_table(self, table: TableName, name: str) -> str:
        """Give a table another name in the same schema."""
        return f"ALTER TABLE {self.qualified(table)} RENAME TO {self.quoted(name)}"

    def swap(self, new: TableName, old: TableName) -> list[str]:
        """Let ``new`` take the name of ``old``, which may be missing and is gone afterwards."""
        return [self.drop_table(old), self.rename_table(new, old.name)]

    def exchange(self, new: TableName, old: TableName, aside: TableName) -> list[str]:
        """The same outside of a transaction: ``old`` is put aside, so a crash in between can be detected."""
        return [self.rename_table(old, aside.name), self.rename_table(new, old.name)]

    def create_index(self, name: str, table: TableName, columns: Sequence[str], *, unique: bool = False) -> str:
        """Make an index, unless one of that name exists."""
        word = "UNIQUE INDEX" if unique else "INDEX"
        target = f"{self.qualified(table)} ({self.column_list(columns)})"
        return f"CREATE {word} IF NOT EXISTS {self.quoted(name)} ON {target}"

    def copy_rows(self, target: TableName, columns: Sequence[Column], source: TableName) -> str:
        """Append the rows of a staging table; each value is cast to the type of the target's column."""
        values = ", ".join(self.cast(self.quoted(column.name), column.type) for column in columns)
        names = self.column_list([column.name for column in columns])
        return f"INSERT INTO {self.qualified(target)} ({names}) SELECT {values} FROM {self.qualified(source)}"

    def delete_matching(self, target: TableName, values: TableName, columns: Sequence[Column], *, nulls: bool) -> str:
        """Delete rows whose columns have one of the combinations in another table.

        Args:
            target: The table.
            values: Holds the combinations, in columns of the same names.
            columns: With their types in the target.
            nulls: Whether null equals null; without it an index can be used.
        """
        condition = self._matching(columns, "t", "v", nulls=nulls)
        return (
            f"DELETE FROM {self.qualified(target)} AS t "
            f"WHERE EXISTS (SELECT 1 FROM {self.qualified(values)} AS v WHERE {condition})"
        )

    def _matching(self, columns: Sequence[Column], target: str, values: str, *, nulls: bool) -> str:
        """A condition: two aliases of tables have the same values in these columns."""
        pairs = [
            (f"{target}.{self.quoted(column.name)}", self.cast(f"{values}.{self.quoted(column.name)}", column.type))
            for column in columns
        ]
        return " AND ".join(self.null_safe_equals(*pair) if nulls else " = ".join(pair) for pair in pairs)

    def has_staged_key(self, table: TableName, stage: TableName, key: Sequence[str]) -> str:
        """A condition on rows of ``table``: the staging table has a record of the same key."""
        pairs = (f"s.{self.quoted(name)} = {self.qualified(table)}.{self.quoted(name)}" for name in key)
        return f"EXISTS (SELECT 1 FROM {self.qualified(stage)} AS s WHERE {' AND '.join(pairs)})"

    def is_newer(self, merge: Merge, new: str, old: str) -> str:
        """A condition: the record ``new`` is to replace ``old``, two aliases of tables."""
        later = f"{new}.{self.quoted(SEQUENCE)} >= COALESCE({old}.{self.quoted(SEQUENCE)}, -1)"
        if merge.cursor is None:
            return later
        cursor, type = self.quoted(merge.cursor), merge.type_of(merge.cursor)
        return self.wins(self.collated(f"{new}.{cursor}", type), self.collated(f"{old}.{cursor}", type), later)

    def wins(self, new: str, old: str, later: str) -> str:
        """A condition: the cursor ``new`` is greater than ``old``, null least; of equal ones ``later`` decides."""
        greater = f"{new} > {old} OR ({new} IS NOT NULL AND {old} IS NULL)"
        return f"({greater} OR ({self.null_safe_equals(new, old)} AND {later}))"

    def winning_rows(self, merge: Merge) -> str:
        """A SELECT of the staged record of each key that wins, with the types of the target."""
        order = [f"{self.quoted(SEQUENCE)} DESC"]
        if merge.cursor is not None:
            type = merge.type_of(merge.cursor)
            cursor = self.cast(self.quoted(merge.cursor), type)
            order = [f"CASE WHEN {cursor} IS NULL THEN 1 ELSE 0 END", f"{self.collated(cursor, type)} DESC", *order]
        rank = f"ROW_NUMBER() OVER (PARTITION BY {self.column_list(merge.key)} ORDER BY {', '.join(order)})"
        inner = f"SELECT *, {rank} AS {self.quoted('_muxly_rank')} FROM {self.qualified(merge.stage)}"
        return f"SELECT {self.staged_columns(merge)} FROM ({inner}) AS ranked WHERE {self.quoted('_muxly_rank')} = 1"

    def staged_columns(self, merge: Merge) -> str:
        """The columns of the staging table as they are selected from it, with the types of the target."""
        cast = [
            f"{self.cast(self.quoted(column.name), column.type)} AS {self.quoted(column.name)}"
            for column in merge.columns
        ]
        return ", ".join([*cast, self.quoted(SEQUENCE)])

    def merge(self, merge: Merge) -> list[str]:
        """The statements of an upsert: of one key the newest record wins, whether staged or in the table."""
        updates = ", ".join(
            f"{self.quoted(name)} = {self.merged_value(merge, name, 'excluded', 't')}"
            for name in merge.names
            if name not in merge.key
        )
        target = f"{self.qualified(merge.target)} AS t ({self.column_list(merge.names)})"
        merging = (
            f"INSERT INTO {target} {self.winning_rows(merge)} "
            f"ON CONFLICT ({self.column_list(merge.key)}) DO UPDATE SET {updates} "
            f"WHERE {self.is_newer(merge, 'excluded', 't')}"
        )
        return [merging]

    def merged_value(self, merge: Merge, name: str, new: str, old: str) -> str:
        """The value of a column after ``new`` has replaced ``old``."""
        value = f"{new}.{self.quoted(name)}"
        if merge.deleted is None or name in (SEQUENCE, merge.deleted, merge.cursor):
            return value
        alive = f"{new}.{self.quoted(merge.deleted)} IS NULL"
        return f"CASE WHEN {alive} THEN {value} ELSE {old}.{self.quoted(name)} END"


class FileDialect(SqlDialect):
    """A database that is one file and folds ASCII letters only; one transaction writes at a time."""

    # There is no limit; a name of this length still fits wherever the table may be copied to.
    longest_name = 255

    def write_lock_name(self, url: URL) -> str | None:
        return urls.resolved_file(url)

    def missing_database(self, url: URL) -> str | None:
        return urls.missing_file(urls.database_file(url))

    def folded(self, name: str, *, table: bool = False) -> str:
        return name.translate(_ASCII_LOWER)


@frozen(kw_only=True)
class SessionTimeouts:
    """The limits of a session's waits, and the way it waits.

    Args:
        connect_seconds: For a connection, 1 or more.
        lock_seconds: For a lock that another program holds, 1 or more.
        sleep: The run's: ends at once, with an error, when the run stops.
    """

    connect_seconds: int = 10
    lock_seconds: int = 10
    sleep: Callable[[float], None]

    def retried(self, attempt: Callable[[], T], is_locked: Callable[[Exception], bool], pause_seconds: float) -> T:
        """An attempt, repeated while another program holds a lock; for drivers that do not notice a stop of the run.

        Args:
            attempt: What to try.
            is_locked: Whether an error means that a lock is held.
            pause_seconds: How long to wait before the next attempt.

        Raises:
            Exception: The last error, unless it means that, or after ``lock_seconds``.
        """
        retries = self.lock_seconds / pause_seconds
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_locked(error) or retries < 1:
                    raise
            retries -= 1
            self.sleep(pause_seconds)


class SqlSession(ABC):
    """One connection, used by one thread at a time. Its errors are the driver's own.

    ``close`` may be called after any error, and more than once.
    """

    lowercase_tables: bool = False
    """Whether the database keeps the names of tables in lower case only."""

    @abstractmethod
    def begin(self) -> None:
        """Start a transaction; between transactions nothing is kept open at the server."""

    @abstractmethod
    def commit(self) -> None:
        """Return only when all of the transaction is durable."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; an open transaction is rolled back."""

    @abstractmethod
    def execute(self, sql: str, *parameters: Any) -> None:
        """Run one statement; parameters are ``str``, ``int`` or None."""

    @abstractmethod
    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""

    @abstractmethod
    def load(self, table: TableName, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        """Append records to columns of the same names, batch by batch, inside the transaction.

        The batches are in the types of ``ColumnType.wire``. An error that reading them raises has been recorded by
        whoever made the reader, so it may be wrapped in any other here.
        """

    @abstractmethod
    def columns(self, table: TableName) -> dict[str, str]:
        """The columns of a table with their types, in order; empty if there is no such table."""

    @abstractmethod
    def tables(self, schema: str | None) -> list[str]:
        """Names of all tables of a schema."""

    @abstractmethod
    def version(self) -> str:
        """Name and version of the server, for people: ``"PostgreSQL 18.6"``."""

    def interrupt(self) -> None:  # noqa: B027 (some check themselves whether the run stops)
        """Cancel the statement that another thread waits for, but never a commit; the error is a ``retry``."""

    def notices(self) -> list[muxly.Notice]:
        """Remarks about this server for a person, issued once when a run has connected."""
        return []

    def lock_columns(self, table: TableName) -> None:  # noqa: B027 (most need not)
        """Keep others from changing the columns of a table for the rest of the transaction, if it matters.

        It does where records are loaded as bytes that mean something else in a column of another type.
        """

    def has_schema(self, schema: str) -> bool:
        """Whether there is such a schema, visible to this user or not."""
        return True

    def may_create(self, schema: str | None) -> bool:
        """Whether this user may create tables there; reads only. True if it cannot be known."""
        return True


def dialect_of(url: URL, *, fast: bool) -> SqlDialect:
    """The dialect of the database that a URL is for.

    Args:
        url: Of the database.
        fast: Whether a bulk path of its own is used, where it has one; otherwise plain inserts of SQLAlchemy.
    """
    own = _DIALECTS.get(url.get_backend_name()) if fast else None
    # By name: each of these modules imports this one, and all but one are not needed.
    module, _, name = (own or "generic:GenericDialect").partition(":")
    dialect = getattr(import_module(f"muxly_routers.sql.{module}.dialect"), name)
    return cast("SqlDialect", dialect() if own else dialect(url))
