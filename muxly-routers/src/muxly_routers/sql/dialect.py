"""What one kind of database has to say for itself; all else is written once, over this.

A ``Dialect`` is a value that knows words: names, types, statements, errors. It speaks standard SQL as
PostgreSQL, SQLite and DuckDB share it; a kind of database overrides what it says differently.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from muxly_routers.sql.quoting import SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from sqlalchemy import URL

    from muxly_routers.sql.quoting import Column, Fault, Form, Merge, Place
    from muxly_routers.sql.session import Session, Waits

__all__ = ["Dialect"]


class Dialect(ABC):
    """The words of one kind of database."""

    name: ClassVar[str]
    longest_name: ClassVar[int] = 63
    """Bytes of UTF-8 (``in_bytes``) or characters that a name may have."""

    in_bytes: ClassVar[bool] = True
    transactional: ClassVar[bool] = True
    """Whether CREATE, ALTER, DROP and RENAME are part of a transaction."""

    schemas: ClassVar[bool] = True
    """Whether tables can be in schemas."""

    temporary: ClassVar[str] = "TEMPORARY "
    """The word before TABLE that makes a table of this session only; empty = there is none."""

    temporary_end: ClassVar[str] = ""
    """What stands behind the columns of such a table."""

    @abstractmethod
    def open(self, url: URL, waits: Waits) -> Session:
        """Connect.

        Args:
            url: With its credentials; never to be shown.
            waits: How long to wait for what.
        """

    @abstractmethod
    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        """How values of an Arrow type are kept; None = they cannot be.

        Args:
            kind: Never a dictionary, run-end encoded, a view, an extension or null: the caller has made
                plain arrays of those, and leaves null columns out.
            key: Whether the column is part of a key or an index (MySQL wants a length then).
        """

    @abstractmethod
    def fault(self, error: Exception) -> Fault | None:
        """What an error of the driver means; None if it is none of the driver's, but a mistake of ours."""

    def require(self) -> None:  # noqa: B027 (where check always connects, that tells)
        """Load the driver, where ``check`` may have nothing to connect to.

        Raises:
            PluginError: It is not installed.
        """

    def written_alone(self, url: URL) -> str | None:
        """The name of what one transaction of a process writes at a time; None = many may."""
        return None

    def not_there(self, url: URL) -> str | None:
        """Why ``check`` should not connect: what connecting would make. None = it may."""
        return None

    def holds(self, character: str) -> bool:
        """Whether a name may have this character; never a control character."""
        return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")

    def length(self, name: str, *, table: bool = False) -> int:
        """How long a name is, in what ``longest_name`` counts."""
        return len(name.encode()) if self.in_bytes else len(name)

    def quoted(self, name: str) -> str:
        """A name as it stands in SQL, always quoted."""
        return '"' + name.replace('"', '""') + '"'

    def folded(self, name: str, *, table: bool = False) -> str:
        """Two names that are one for this database have one folded form (PostgreSQL: none do)."""
        return name

    def reserved(self, name: str, *, table: bool = False) -> bool:
        """Whether the database keeps a name for itself even if it is quoted (``ctid``)."""
        return False

    def parameter(self, number: int) -> str:
        """The placeholder of a parameter, counted from 1."""
        return "?"

    def widened(self, there: str, wanted: str) -> str | None:
        """The type a column is changed to, so that it holds what it holds and values of ``wanted``.

        Args:
            there: Its type as ``Session.columns`` gave it.
            wanted: ``Form.type`` of the records.

        Returns:
            ``there`` if nothing has to be done; None if there is no such type.
        """
        return there if there == wanted else None

    def loads_into(self, there: str, wanted: str) -> bool:
        """Whether ``Session.load`` may fill a column of type ``there`` with values made for ``wanted``.

        Otherwise they go through a staging table and a CAST.
        """
        return there == wanted

    def cast(self, expression: str, type: str) -> str:
        """A staged value as the target's column takes it."""
        return f"CAST({expression} AS {type})"

    def same(self, left: str, right: str) -> str:
        """A condition: two expressions are equal, or both null."""
        return f"{left} IS NOT DISTINCT FROM {right}"

    def ordered(self, expression: str, type: str) -> str:
        """The expression of a cursor, compared by code points where it is text."""
        return expression

    def at(self, place: Place) -> str:
        """A table as it stands in SQL."""
        table = self.quoted(place.table)
        return table if place.schema is None else f"{self.quoted(place.schema)}.{table}"

    def listed(self, names: Sequence[str], prefix: str = "") -> str:
        """Names as they stand in SQL, with commas."""
        return ", ".join(prefix + self.quoted(name) for name in names)

    def create_schema(self, schema: str) -> str:
        """A schema, unless it is there."""
        return f"CREATE SCHEMA IF NOT EXISTS {self.quoted(schema)}"

    def create_table(
        self, place: Place, columns: Sequence[Column], key: Sequence[str] = (), *, temporary: bool = False
    ) -> str:
        """A table; the columns of its primary key are never null."""
        parts = [f"{self.quoted(one.name)} {one.type}{' NOT NULL' if one.name in key else ''}" for one in columns]
        if key:
            parts.append(f"PRIMARY KEY ({self.listed(key)})")
        word, end = (self.temporary, self.temporary_end) if temporary else ("", "")
        return f"CREATE {word}TABLE {self.at(place)} ({', '.join(parts)}){end}"

    def drop_table(self, place: Place, *, temporary: bool = False) -> str:
        """Take a table away, if it is there."""
        return f"DROP TABLE IF EXISTS {self.at(place)}"

    def add_column(self, place: Place, column: Column) -> str:
        """A column more, null in the rows that are there."""
        return f"ALTER TABLE {self.at(place)} ADD COLUMN {self.quoted(column.name)} {column.type}"

    def change_type(self, place: Place, column: Column) -> list[str]:
        """Widen a column to a type that ``widened`` gave."""
        return [f"ALTER TABLE {self.at(place)} ALTER COLUMN {self.quoted(column.name)} TYPE {column.type}"]

    def rename_table(self, place: Place, name: str) -> str:
        """Another name in the same schema."""
        return f"ALTER TABLE {self.at(place)} RENAME TO {self.quoted(name)}"

    def swap(self, new: Place, old: Place) -> list[str]:
        """Let ``new`` take the name of ``old``, which may not be there and is gone afterwards."""
        return [self.drop_table(old), self.rename_table(new, old.table)]

    def exchange(self, new: Place, old: Place, aside: Place) -> list[str]:
        """The same outside of a transaction: ``old`` is put aside, and a crash in between can be seen."""
        return [self.rename_table(old, aside.table), self.rename_table(new, old.table)]

    def create_index(self, name: str, place: Place, columns: Sequence[str], *, unique: bool = False) -> str:
        """An index, unless one of that name is there."""
        word = "UNIQUE INDEX" if unique else "INDEX"
        return f"CREATE {word} IF NOT EXISTS {self.quoted(name)} ON {self.at(place)} ({self.listed(columns)})"

    def copy_rows(self, target: Place, columns: Sequence[Column], source: Place) -> str:
        """Append what stands in a staging table; each value is cast to the type of the target's column."""
        values = ", ".join(self.cast(self.quoted(one.name), one.type) for one in columns)
        names = self.listed([one.name for one in columns])
        return f"INSERT INTO {self.at(target)} ({names}) SELECT {values} FROM {self.at(source)}"

    def delete_matching(self, target: Place, values: Place, columns: Sequence[Column], *, nulls: bool) -> str:
        """Delete rows whose columns have one of the combinations in another table.

        Args:
            target: The table.
            values: Holds the combinations, in columns of the same names.
            columns: With their types in the target.
            nulls: Whether null equals null; without it an index can be used.
        """
        pairs = [(f"t.{self.quoted(one.name)}", self.cast(f"v.{self.quoted(one.name)}", one.type)) for one in columns]
        condition = " AND ".join(self.same(*pair) if nulls else " = ".join(pair) for pair in pairs)
        return (
            f"DELETE FROM {self.at(target)} AS t WHERE EXISTS (SELECT 1 FROM {self.at(values)} AS v WHERE {condition})"
        )

    def staged(self, place: Place, stage: Place, key: Sequence[str]) -> str:
        """A condition on rows of ``place``: the staging table has a record of the same key."""
        pairs = (f"s.{self.quoted(name)} = {self.at(place)}.{self.quoted(name)}" for name in key)
        return f"EXISTS (SELECT 1 FROM {self.at(stage)} AS s WHERE {' AND '.join(pairs)})"

    def newer(self, merge: Merge, new: str, old: str) -> str:
        """A condition: the record ``new`` is to replace ``old``, two aliases of tables."""
        later = f"{new}.{self.quoted(SEQUENCE)} >= COALESCE({old}.{self.quoted(SEQUENCE)}, -1)"
        if merge.cursor is None:
            return later
        type = next(one.type for one in merge.columns if one.name == merge.cursor)
        fresh, stale = (self.ordered(f"{table}.{self.quoted(merge.cursor)}", type) for table in (new, old))
        return (
            f"({fresh} > {stale} OR ({fresh} IS NOT NULL AND {stale} IS NULL)"
            f" OR ({self.same(fresh, stale)} AND {later}))"
        )

    def winners(self, merge: Merge) -> str:
        """A SELECT of the staged record of each key that wins, with the types of the target."""
        columns = ", ".join(
            [f"{self.cast(self.quoted(one.name), one.type)} AS {self.quoted(one.name)}" for one in merge.columns]
            + [self.quoted(SEQUENCE)]
        )
        order = [f"{self.quoted(SEQUENCE)} DESC"]
        if merge.cursor is not None:
            type = next(one.type for one in merge.columns if one.name == merge.cursor)
            cursor = self.cast(self.quoted(merge.cursor), type)
            order = [f"CASE WHEN {cursor} IS NULL THEN 1 ELSE 0 END", f"{self.ordered(cursor, type)} DESC", *order]
        rank = f"ROW_NUMBER() OVER (PARTITION BY {self.listed(merge.key)} ORDER BY {', '.join(order)})"
        inner = f"SELECT *, {rank} AS {self.quoted('_muxly_rank')} FROM {self.at(merge.stage)}"
        return f"SELECT {columns} FROM ({inner}) AS ranked WHERE {self.quoted('_muxly_rank')} = 1"

    def merge(self, merge: Merge) -> list[str]:
        """The statements of an upsert: of one key the newest record wins, whether staged or there."""
        names = [*(one.name for one in merge.columns), SEQUENCE]
        updates = ", ".join(
            f"{self.quoted(name)} = {self.merged(merge, name, 'excluded', 't')}"
            for name in names
            if name not in merge.key
        )
        merging = (
            f"INSERT INTO {self.at(merge.target)} AS t ({self.listed(names)}) {self.winners(merge)} "
            f"ON CONFLICT ({self.listed(merge.key)}) DO UPDATE SET {updates} "
            f"WHERE {self.newer(merge, 'excluded', 't')}"
        )
        return [merging]

    def merged(self, merge: Merge, name: str, new: str, old: str) -> str:
        """What a column becomes where ``new`` replaces ``old``."""
        value = f"{new}.{self.quoted(name)}"
        if merge.deleted is None or name in (SEQUENCE, merge.deleted, merge.cursor):
            return value
        alive = f"{new}.{self.quoted(merge.deleted)} IS NULL"
        return f"CASE WHEN {alive} THEN {value} ELSE {old}.{self.quoted(name)} END"
