"""Tables that follow the records: made, given new columns, widened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
from attrs import evolve, frozen

import muxly
from muxly_routers.sql import names, values
from muxly_routers.sql.dialect import SEQUENCE, Column, ColumnType, SqlDialect, SqlSession
from muxly_routers.sql.names import TableName

__all__ = ["ColumnMapping", "KnownTables", "TableShape"]

# Every whole number up to this is also a floating point number of 64 bits.
_EXACT = 2**53


@frozen
class ColumnMapping:
    """A column of the records, and the column of the table that takes it.

    Args:
        index: In the delivery's schema.
        source: Its name there.
        column: In the table.
        column_type: The type of the values as they are loaded; the table's column may be a wider one.
    """

    index: int
    source: str
    column: Column
    column_type: ColumnType


class TableShape:
    """Key, indexes and hidden column that a stream's table is made with.

    Args:
        key: Its primary key, in names of the records.
        sequenced: Whether rows have the sequence numbers of their records.
        indexes: Columns of each index, in names of the records.
    """

    def __init__(
        self,
        *,
        key: Sequence[str] = (),
        sequenced: bool = False,
        indexes: Iterable[Sequence[str]] = (),
    ) -> None:
        self.key, self.sequenced = tuple(key), sequenced
        self.indexes = tuple(tuple(columns) for columns in indexes)

    @property
    def keyed(self) -> tuple[str, ...]:
        """All columns of the key and the indexes."""
        return tuple(dict.fromkeys([*self.key, *(name for index in self.indexes for name in index)]))


class KnownTables:
    """What one session knows of the tables it writes to.

    Args:
        session: Queried once for each table, until ``invalidate``.
        dialect: Of that session.
    """

    def __init__(self, session: SqlSession, dialect: SqlDialect) -> None:
        self._session, self._dialect = session, dialect
        self._columns: dict[TableName, dict[str, str]] = {}
        self._assigned: dict[tuple[str | None, str], str] = {}
        self._changed = False

    def change(self, *statements: str) -> None:
        """Run statements that make or change permanent tables."""
        for statement in statements:
            self._session.execute(statement)
            self._changed = True

    def take_changed(self) -> bool:
        """Whether a table was made or changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed

    def invalidate(self) -> None:
        """Forget all: somebody changed a table, or a change was rolled back."""
        self._columns.clear()
        self._assigned.clear()

    def columns(self, table: TableName) -> dict[str, str]:
        """The columns of a table with their types; empty if there is no such table."""
        if not self._columns.get(table):
            self._columns[table] = self._session.columns(table)
        return self._columns[table]

    def reread_columns(self, table: TableName) -> None:
        """Read the columns of a table again, and keep them as they are for the rest of the transaction."""
        if self.columns(table):
            self._session.lock_columns(table)
            del self._columns[table]

    def table_name(self, schema: str | None, name: str) -> TableName:
        """The name in the database of the table that is, or will be, called ``name``."""
        assigned = self._assigned.get((schema, name))
        if assigned is None:
            assigned = self._assigned[schema, name] = self._assign(schema, name)
        return TableName(schema, assigned)

    def _assign(self, schema: str | None, name: str) -> str:
        if self._session.lowercase_tables and name != name.lower():
            # It would not be found again under this name, and be taken for that of a stream in lower case.
            return names.hashed(name, self._dialect, table=True).lower()
        folds = self._dialect.folded("A", table=True) == self._dialect.folded("a", table=True)
        existing = self._session.tables(schema) if folds else ()
        return names.assigned([name], existing, self._dialect, table=True)[name]

    def ensure_schema(self, schema: str | None) -> None:
        """Make the schema, if it is missing."""
        if schema is not None and not self._session.has_schema(schema):
            self.change(self._dialect.create_schema(schema))

    def map_columns(
        self, table: TableName, schema: pa.Schema, keyed: Collection[str] = ()
    ) -> tuple[ColumnMapping, ...]:
        """Where each column of the records goes; one that has only nulls and no column yet goes nowhere.

        Args:
            table: The table that takes them.
            schema: Of the records.
            keyed: Columns of the records that are part of a key or an index.

        Raises:
            StreamError: Two columns have one name, or the database has no type for one.
        """
        existing = self.columns(table)
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            raise muxly.StreamError(f"column {repeated[0]!r} is there more than once; leave one out with columns:")
        chosen = names.assigned(schema.names, existing, self._dialect)
        mappings = []
        for index, source in enumerate(schema.names):
            type, present = schema.field(index).type, existing.get(chosen[source])
            column_type = self._column_type(source, type, present, key=source in keyed)
            if column_type is not None:
                mappings.append(ColumnMapping(index, source, Column(chosen[source], column_type.sql), column_type))
        return tuple(mappings)

    def _column_type(
        self, source: str, arrow_type: pa.DataType, existing: str | None, *, key: bool
    ) -> ColumnType | None:
        plain = values.plain_type(arrow_type)
        if pa.types.is_null(plain):
            return None if existing is None else ColumnType(existing, pa.string(), values.as_text)
        if pa.types.is_integer(plain) and existing is not None and existing == self._double():
            # The cast is exact: a number that would be rounded is refused.
            return ColumnType(existing, pa.float64(), values.cast_to(pa.float64()))
        column_type = self._dialect.column_type(plain, key=key)
        if column_type is None:
            raise muxly.StreamError(
                f"column {source!r}: {self._dialect.name} has no type for {arrow_type}; "
                f"leave the column out with columns: {{exclude: [{source}]}}"
            )
        return column_type

    def ensure(self, table: TableName, wanted: Sequence[ColumnMapping], shape: TableShape) -> tuple[ColumnMapping, ...]:
        """Make the table, or give it the columns and types it lacks.

        Returns:
            ``wanted`` with the types that the columns have in the table.

        Raises:
            StreamError: A column holds another kind of values.
        """
        existing = self.columns(table)
        if not existing:
            self._create(table, wanted, shape)
            return tuple(wanted)
        for mapping in wanted:
            self._fit_column(table, mapping, existing)
        if shape.sequenced and SEQUENCE not in existing:
            self._prepare_for_upserts(table, wanted, shape)
        return tuple(
            evolve(mapping, column=Column(mapping.column.name, existing[mapping.column.name])) for mapping in wanted
        )

    def _create(self, table: TableName, wanted: Sequence[ColumnMapping], shape: TableShape) -> None:
        columns = [mapping.column for mapping in wanted]
        if not columns:
            raise muxly.StreamError(f"table {table.name!r} cannot be made: no column of the records has a value yet")
        keyed = self._column_names(wanted, shape.keyed)
        if shape.sequenced:
            columns.append(self.sequence())
        self.ensure_schema(table.schema)
        self.change(self._dialect.create_table(table, columns, [keyed[name] for name in shape.key]))
        self._columns[table] = {column.name: column.type for column in columns}
        self._index(table, keyed, shape)

    def sequence(self) -> Column:
        """The hidden column of sequence numbers."""
        column_type = self._dialect.column_type(pa.int64())
        assert column_type is not None
        return Column(SEQUENCE, column_type.sql)

    def _index(self, table: TableName, keyed: dict[str, str], shape: TableShape) -> None:
        for index in shape.indexes:
            columns = [keyed[name] for name in index]
            name = names.own_name("ix", table.schema or "", table.name, *columns)
            self.change(self._dialect.create_index(name, table, columns))

    def _column_names(self, wanted: Sequence[ColumnMapping], sources: Iterable[str]) -> dict[str, str]:
        """The columns of the table for columns of the records."""
        known = {mapping.source: mapping.column.name for mapping in wanted}
        for source in sources:
            if source not in known:
                raise muxly.StreamError(
                    f"column {source!r} is to be a key or an index, but no record has a value in it"
                )
        return {source: known[source] for source in sources}

    def _fit_column(self, table: TableName, mapping: ColumnMapping, existing: dict[str, str]) -> None:
        name, wanted = mapping.column.name, mapping.column.type
        if name not in existing:
            self.change(self._dialect.add_column(table, mapping.column))
            existing[name] = wanted
            return
        wider = self._dialect.widened(existing[name], wanted)
        if wider is None:
            raise muxly.StreamError(
                f"column {mapping.source!r}: {table.name}.{name} is {existing[name]} and cannot hold {wanted}; "
                "change its type, rename it in the table, or leave it out with columns: "
                f"{{exclude: [{mapping.source}]}}"
            )
        if wider != existing[name]:
            self._refuse_rounding(table, mapping, existing[name], wider)
            self.change(*self._dialect.change_type(table, Column(name, wider)))
            existing[name] = wider

    def _double(self) -> str | None:
        column_type = self._dialect.column_type(pa.float64())
        return None if column_type is None else column_type.sql

    def _refuse_rounding(self, table: TableName, mapping: ColumnMapping, existing: str, wider: str) -> None:
        """Refuse to widen whole numbers that a floating point number does not hold.

        Raises:
            StreamError: The column holds such numbers.
        """
        if wider != self._double() or "int" not in existing.lower():
            return
        name = self._dialect.quoted(mapping.column.name)
        large = f"{name} > {_EXACT} OR {name} < -{_EXACT}"
        if self._session.query(f"SELECT 1 FROM {self._dialect.qualified(table)} WHERE {large} LIMIT 1"):
            raise muxly.StreamError(
                f"column {mapping.source!r}: {table.name}.{mapping.column.name} is {existing} and holds numbers that "
                f"{wider} would round; rename it in the table, and a new one is made, or leave it out with columns: "
                f"{{exclude: [{mapping.source}]}}"
            )

    def _prepare_for_upserts(self, table: TableName, wanted: Sequence[ColumnMapping], shape: TableShape) -> None:
        """Give a table that was not made for upserts a unique index on the key and the hidden column."""
        keyed = self._column_names(wanted, shape.key)
        name = names.own_name("key", table.schema or "", table.name)
        # The column comes last: the attempt after one that failed at rows with equal keys must come here again.
        self.change(
            self._dialect.create_index(name, table, list(keyed.values()), unique=True),
            self._dialect.add_column(table, self.sequence()),
        )
        self._columns[table][SEQUENCE] = self.sequence().type
