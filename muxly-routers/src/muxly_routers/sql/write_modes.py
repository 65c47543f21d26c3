"""Append, upsert and overwrite: the records of a delivery on their way into a table, inside its transaction.

Records go straight into the table where the mode and the column types allow it. Otherwise they are loaded into a
staging table, and statements of the dialect take them from there: ``SqlDialect.merge`` for an upsert,
``SqlDialect.copy_rows`` where values have to be cast, ``SqlDialect.delete_matching`` for an overwrite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
from attrs import evolve, frozen

import muxly
from muxly_routers.sql import names, values
from muxly_routers.sql.dialect import SEQUENCE, Column, Merge, SqlDialect, SqlSession
from muxly_routers.sql.names import TableName
from muxly_routers.sql.tables import ColumnMapping, KnownTables, TableShape

__all__ = [
    "DELETED",
    "RecordFeed",
    "TableWrite",
    "append",
    "clear_stages",
    "open_stages",
    "overwrite",
    "prepare",
    "upsert",
]

DELETED = "_deleted_at"
"""The column of tombstones: when the record was deleted at its source; null = it was not."""

# What of a batch is converted, and so in memory a second time, at once.
_PART_BYTES = 16 * 1024 * 1024


class RecordFeed:
    """Converts the records for a database, a part of a batch at a time.

    Args:
        run: Checked between parts: whether it is to stop.
        delivery: The records.
        columns: Where each column goes.
        required: Names of columns in the records that must not be null.
        sequenced: Whether each record gets its sequence number, as a last column.
    """

    def __init__(
        self,
        run: muxly.Run,
        delivery: muxly.Delivery,
        columns: Sequence[ColumnMapping],
        *,
        required: Sequence[str] = (),
        sequenced: bool = False,
    ) -> None:
        self._run, self._delivery, self._columns = run, delivery, tuple(columns)
        self._required, self._sequenced = required, sequenced
        self.error: Exception | None = None
        """The error of reading or converting: drivers wrap it beyond recognition."""

    def reader(self) -> pa.RecordBatchReader:
        """All records, from the first."""
        fields = [pa.field(mapping.column.name, mapping.column_type.wire) for mapping in self._columns]
        if self._sequenced:
            fields.append(pa.field(SEQUENCE, pa.int64()))
        schema = pa.schema(fields)
        return pa.RecordBatchReader.from_batches(schema, self._observed(schema))

    def _observed(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches(schema)
        except Exception as error:
            self.error = error
            raise

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for sequence, batch in self._with_sequences():
            start = 0
            for part in values.slices(batch, most_records=batch.num_rows, most_bytes=_PART_BYTES):
                if self._run.stopping:
                    raise muxly.StoppedError("the run was asked to stop")
                self._check_required(part)
                arrays = [converted(part.column(mapping.index), mapping) for mapping in self._columns]
                if sequence is not None:
                    arrays.append(sequence.slice(start, part.num_rows))
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
                start += part.num_rows

    def _with_sequences(self) -> Iterable[tuple[pa.Int64Array | None, pa.RecordBatch]]:
        if self._sequenced:
            return self._delivery.sequenced()
        return ((None, batch) for batch in self._delivery.batches())

    def _check_required(self, part: pa.RecordBatch) -> None:
        for name in self._required:
            if values.plain(part.column(name)).null_count:
                raise muxly.RejectedError(f"column {name!r}: a record without it has no primary key")


def converted(array: pa.Array, mapping: ColumnMapping) -> pa.Array:
    """Values of a column as they are loaded.

    Raises:
        RejectedError: The database cannot hold one of them.
    """
    try:
        return mapping.column_type.convert(values.plain(array))
    except (pa.ArrowException, ValueError) as error:
        raise muxly.RejectedError(f"column {mapping.source!r}: {error}") from error


@frozen(kw_only=True)
class TableWrite:
    """One attempt at writing one delivery to one table.

    Args:
        session: With its transaction begun.
        dialect: Of the session.
        tables: What the session knows.
        target: The table that the records go to; made, with all their columns.
        columns: Where each column of the records goes, with the types of the target.
        delivery: The records.
        make_feed: Makes a feed and remembers it: its error can then be told from the database's.
        hard: Whether records with a tombstone are deleted rather than marked.
        stage: Name for a staging table.
    """

    session: SqlSession
    dialect: SqlDialect
    tables: KnownTables
    target: TableName
    columns: tuple[ColumnMapping, ...]
    delivery: muxly.Delivery
    make_feed: Callable[..., RecordFeed]
    hard: bool
    stage: str

    def target_columns(self, sources: Sequence[str]) -> tuple[Column, ...]:
        """The columns of the target for columns of the records.

        Raises:
            StreamError: The records do not have one of them.
        """
        known = {mapping.source: mapping.column for mapping in self.columns}
        missing = [name for name in sources if name not in known]
        if missing:
            raise muxly.StreamError(f"column {missing[0]!r} is a key of this mode, but the records do not have it")
        return tuple(known[name] for name in sources)

    @property
    def is_direct(self) -> bool:
        """Whether the types of the target allow the records to go straight into it."""
        return all(self.dialect.loads_into(mapping.column.type, mapping.column_type.sql) for mapping in self.columns)

    @property
    def stage_table(self) -> TableName:
        """The staging table of an upsert; for an overwrite, that of the values to replace."""
        return TableName(None, self.stage)

    @property
    def rows_table(self) -> TableName:
        """The staging table of records that have to be cast."""
        return TableName(None, f"{self.stage}_rows")

    @property
    def deleted_table(self) -> TableName:
        """The table that keeps the keys, cursors and sequence numbers of deleted records.

        Without it a record that is older than its tombstone, and arrives later, would bring the row back.
        """
        return TableName(self.target.schema, names.own_name("deleted", self.target.name))


def prepare(write: TableWrite, shape: TableShape) -> None:
    """Make the table beside the target that the mode needs."""
    if write.hard and write.delivery.mode == "upsert":
        _make_deleted_table(write, shape)


def _make_deleted_table(write: TableWrite, shape: TableShape) -> None:
    """Make the table of deleted records, once there can be some, with the types that the target has."""
    stream = write.delivery.stream
    sources = (*stream.primary_key, stream.cursor_field, DELETED)
    kept = [mapping for mapping in write.columns if mapping.source in sources]
    if write.tables.columns(write.deleted_table) or any(mapping.source == DELETED for mapping in kept):
        wanted = [evolve(mapping, column_type=evolve(mapping.column_type, sql=mapping.column.type)) for mapping in kept]
        write.tables.ensure(write.deleted_table, wanted, TableShape(key=shape.key, sequenced=True))


def open_stages(write: TableWrite) -> None:
    """Make the staging tables."""
    _sweep_stages(write)
    for table, columns in _stages(write).items():
        write.session.execute(write.dialect.create_table(table, columns, temporary=True))


def clear_stages(write: TableWrite) -> None:
    """Drop the staging tables; the last statements of the transaction."""
    for table in _stages(write):
        write.session.execute(write.dialect.drop_table(table, temporary=True))


def _sweep_stages(write: TableWrite) -> None:
    """Drop staging tables of earlier attempts, where neither the session nor the transaction took them with it."""
    if write.dialect.temporary or write.dialect.transactional:
        return
    left = re.compile(re.escape(write.stage.rstrip("0123456789")) + r"\d+(_rows)?")
    for name in filter(left.fullmatch, write.session.tables(None)):
        write.session.execute(write.dialect.drop_table(TableName(None, name)))


def _stages(write: TableWrite) -> dict[TableName, list[Column]]:
    """The staging tables, with their columns."""
    mode = write.delivery.mode
    staged = [Column(mapping.column.name, mapping.column_type.sql) for mapping in write.columns]
    if mode == "upsert":
        return {write.stage_table: [*staged, write.tables.sequence()]}
    stages = {} if write.is_direct else {write.rows_table: staged}
    if mode == "overwrite":
        keys = {column.name for column in write.target_columns(write.delivery.stream.overwrite_key)}
        stages[write.stage_table] = [column for column in staged if column.name in keys]
    return stages


def append(write: TableWrite) -> None:
    """Add the records; they go straight into the table where its types allow it."""
    reader = write.make_feed(write.columns).reader()
    if write.is_direct:
        write.session.load(write.target, reader)
        return
    write.session.load(write.rows_table, reader, temporary=True)
    columns = [mapping.column for mapping in write.columns]
    write.session.execute(write.dialect.copy_rows(write.target, columns, write.rows_table))


def upsert(write: TableWrite) -> None:
    """Keep the newest record of each key, in whatever order they arrive.

    The newest is the one with the greatest cursor, and of equal cursors the one with the greatest sequence number.
    Where tombstones delete rows, the deleted records take part in the comparison: those with a key of this delivery
    come back as marked rows before the merge, and all marked rows of its keys leave the target after it.
    """
    key, cursor = write.delivery.stream.primary_key, write.delivery.stream.cursor_field
    merge = Merge(
        target=write.target,
        stage=write.stage_table,
        columns=tuple(mapping.column for mapping in write.columns),
        key=tuple(column.name for column in write.target_columns(key)),
        cursor=next((mapping.column.name for mapping in write.columns if mapping.source == cursor), None),
        deleted=next((mapping.column.name for mapping in write.columns if mapping.source == DELETED), None),
    )
    feed = write.make_feed(write.columns, required=key, sequenced=True)
    write.session.load(merge.stage, feed.reader(), temporary=True)
    deleted_columns = list(write.tables.columns(write.deleted_table)) if write.hard else []
    if deleted_columns:
        _restore_deleted(write, merge, deleted_columns)
    for statement in write.dialect.merge(merge):
        write.session.execute(statement)
    if deleted_columns:
        _remove_deleted(write, merge, deleted_columns)


def _restore_deleted(write: TableWrite, merge: Merge, columns: list[str]) -> None:
    """Put deleted records of the staged keys back as marked rows, for the merge to compare with."""
    source = write.deleted_table
    _move_rows(write, columns, source, merge.target, write.dialect.has_staged_key(source, merge.stage, merge.key))


def _remove_deleted(write: TableWrite, merge: Merge, columns: list[str]) -> None:
    """Take marked rows of the staged keys out of the target."""
    staged = write.dialect.has_staged_key(merge.target, merge.stage, merge.key)
    marked = f"{write.dialect.quoted(DELETED)} IS NOT NULL AND {staged}"
    _move_rows(write, columns, merge.target, write.deleted_table, marked)


def _move_rows(write: TableWrite, columns: list[str], source: TableName, target: TableName, condition: str) -> None:
    listed = write.dialect.column_list(columns)
    rows = f"FROM {write.dialect.qualified(source)} WHERE {condition}"
    write.session.execute(f"INSERT INTO {write.dialect.qualified(target)} ({listed}) SELECT {listed} {rows}")
    write.session.execute(f"DELETE {rows}")


def overwrite(write: TableWrite) -> None:
    """Delete the rows of all values that the delivery replaces or has records of, and add its records."""
    keys = write.target_columns(write.delivery.stream.overwrite_key)
    replaced = _replaced(write, tuple(mapping for mapping in write.columns if mapping.column in keys))
    if replaced.num_rows:
        nulls = any(column.null_count for column in replaced.columns)
        write.session.load(write.stage_table, replaced.to_reader(), temporary=True)
        # The comparison that can use an index first; the other is for the few rows with a null only.
        for with_nulls in (False, True)[: 1 + nulls]:
            write.session.execute(
                write.dialect.delete_matching(write.target, write.stage_table, keys, nulls=with_nulls)
            )
    append(write)


def _replaced(write: TableWrite, mappings: Sequence[ColumnMapping]) -> pa.Table:
    """The values to replace, each once, in the database's types."""
    schema = write.delivery.schema
    types = {mapping.source: values.plain_type(schema.field(mapping.index).type) for mapping in mappings}
    order = write.delivery.stream.overwrite_key
    declared = [
        pa.array([value[order.index(name)] for value in write.delivery.replaces], type) for name, type in types.items()
    ]
    replaced = pa.table(declared, names=list(types))
    for batch in write.delivery.batches():
        part = pa.table([values.plain(batch.column(mapping.index)) for mapping in mappings], names=list(types))
        replaced = pa.concat_tables([replaced, part]).group_by(list(types)).aggregate([])
    arrays = [converted(replaced.column(mapping.source).combine_chunks(), mapping) for mapping in mappings]
    return pa.table(arrays, names=[mapping.column.name for mapping in mappings])
