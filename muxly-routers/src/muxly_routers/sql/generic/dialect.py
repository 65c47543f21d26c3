"""Any other database, through SQLAlchemy: plain inserts, and statements that all of them know.

Types are chosen by SQLAlchemy, and what a table holds is compared by kind of value: a column's type is
never changed here, for databases do that in too many ways.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import exc

import muxly
from muxly_routers.sql import error_kinds, files
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.generic import types as generic_types
from muxly_routers.sql.generic.session import GenericSession
from muxly_routers.sql.quoting import SEQUENCE, Column, Fault, Form, Merge, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import URL
    from sqlalchemy.types import TypeEngine

    from muxly_routers.sql.session import Session, Waits

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
# Less, and psql would be taken for mysql.
_NEAR = 0.75
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
        self.schemas = self.name != "sqlite"  # type: ignore[misc]
        self.transactional = self.name in _TRANSACTIONAL  # type: ignore[misc]
        self._kinds: dict[str, type[TypeEngine[Any]]] = {}

    def open(self, url: URL, waits: Waits) -> Session:
        if self.name == "sqlite":
            files.make_folder(files.file_of(url))
        return GenericSession(self, url, waits)

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
        type = generic_types.bound_type(wire)
        return type.dialect_impl(self._words).bind_processor(self._words) or (lambda value: value)

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        found = generic_types.type_of(kind, self._words, key=key)
        return None if found is None else Form(self.spelled(found[0]), found[1], found[2])

    def fault(self, error: Exception) -> Fault | None:
        if not isinstance(error, exc.SQLAlchemyError | OSError):
            return None
        cause = getattr(error, "orig", None) or error
        message = str(cause).partition("\n")[0]
        state = getattr(cause, "sqlstate", None)
        if state is not None:
            return Fault(error_kinds.kind_of_state(state, message), f"{message} (SQLSTATE {state})")
        if self.name == "sqlite" and (kind := error_kinds.kind_of_sqlite(message)):
            return Fault(kind, message, error_kinds.column_of_sqlite(message))
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


def _dialect(url: URL) -> sa.Dialect:
    try:
        return url.get_dialect()()
    except exc.NoSuchModuleError as error:
        near = difflib.get_close_matches(url.drivername, _KNOWN, 1, _NEAR)
        hint = f"did you mean {near[0]}://? Else " if near else ""
        raise muxly.ConfigurationError(
            f"SQLAlchemy has no dialect {url.drivername!r} here; {hint}correct the beginning of the URL, or install "
            "the package that brings the dialect",
            path=("url",),
        ) from error
