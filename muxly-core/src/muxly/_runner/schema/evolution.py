"""The schema of a stream: how it grows, and how each batch is brought into it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import pyarrow as pa
from attrs import frozen

from muxly._runner.schema.contract import TableConformer
from muxly._runner.schema.types import canonical, canonical_schema, fitted, fitted_array, join, same
from muxly.batch import Rejected
from muxly.errors import MuxlyError
from muxly.pipeline import StreamRules
from muxly.store import log
from muxly.store.ledger import Ledger

__all__ = [
    "ConflictingTypesError",
    "Conformed",
    "conform",
    "fit",
    "merge",
    "same",
    "schema_from_bytes",
    "schema_to_bytes",
]


Columns = TypeVar("Columns", "pa.Table", "pa.RecordBatch")


class ConflictingTypesError(MuxlyError):
    """Columns of two schemas that no type holds.

    Args:
        columns: Name and both types, as text, of each.
    """

    def __init__(self, columns: tuple[tuple[str, str, str], ...]) -> None:
        shown = ", ".join(f"{name!r} ({before} and {after})" for name, before, after in columns)
        super().__init__(f"no type holds both of column {shown}; conform the records to the newer schema")
        self.columns = columns


@frozen
class Conformed:
    """A batch in its stream's schema.

    Args:
        table: The records that are kept, with exactly ``schema``.
        schema: The stream's schema from here on.
        changed: Whether it differs from the schema before, which then is to be stored anew.
        rejected: A record for each that was left out, or lost a value, with the reason.
    """

    table: pa.Table
    schema: pa.Schema
    changed: bool = False
    rejected: tuple[Rejected, ...] = ()


def merge(before: pa.Schema | None, after: pa.Schema) -> pa.Schema:
    """The smallest schema that holds the records of both; columns of ``before`` come first.

    Raises:
        ConflictingTypesError: Names every column that cannot be joined. Partitions that
            widened one schema in different ways conform to the newer one instead.
    """
    if before is None:
        return canonical_schema(after)
    if before.equals(after):
        return before
    kinds = {field.name: field.type for field in before}
    conflicts = []
    for field in after:
        kind = canonical(field.type)
        joined = join(kinds[field.name], kind) if field.name in kinds else kind
        if joined is None:
            conflicts.append((field.name, str(kinds[field.name]), str(kind)))
        else:
            kinds[field.name] = joined
    if conflicts:
        raise ConflictingTypesError(tuple(conflicts))
    return pa.schema(list(kinds.items()))


def conform(table: pa.Table, before: pa.Schema | None, rules: StreamRules, *, stream: str) -> Conformed:
    """Bring a batch into its stream's schema, which grows as the rules allow.

    No value is lost silently: it is kept, or in the variant column ``<column>__v_<type>``, or
    its record is in ``rejected``. A value that fits the column's type after a lossless cast is
    cast and changes nothing. A schema that only widens is accepted under every rule; fields
    that appear inside a struct count as new columns. The rules judge values: a new column
    without any value is left out under all rules but ``evolve``.

    Args:
        table: The records, of any Arrow types.
        before: The stream's schema, made by this module; None = any is accepted.
        rules: ``new_columns`` and ``new_types`` are read.
        stream: The stream's name, for messages.

    Raises:
        StreamError: A rule is ``freeze``, a column has no name or that of another, or
            ``_deleted_at`` is not a timestamp.
    """
    if before is not None and table.schema.equals(before):
        return Conformed(_bare(table, before), before)
    conforming = TableConformer(table, before, rules, stream)
    kept, rejected = conforming.conform()
    return Conformed(kept, kept.schema, not same(before, kept.schema), rejected)


def _bare(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema, check_metadata=True) or not schema.names:
        return table
    return pa.Table.from_arrays(table.columns, schema=schema)


def fit(data: Columns, schema: pa.Schema) -> Columns:
    """Records of an older schema of the stream in a newer one, and the same object if equal.

    Args:
        data: A table or a record batch whose schema the newer one grew from.
        schema: The newer schema.

    Raises:
        ConflictingTypesError: A value does not survive, or a column is not in the schema.
    """
    if data.schema.equals(schema, check_metadata=True):
        return data
    where = {name: index for index, name in enumerate(data.schema.names)}
    if strangers := where.keys() - set(schema.names):
        name = min(strangers)
        raise ConflictingTypesError(((name, str(data.schema.field(name).type), "no column"),))
    columns = [
        _fit_column(data.column(where[field.name]), field)
        if field.name in where
        else pa.nulls(data.num_rows, field.type)
        for field in schema
    ]
    return type(data).from_arrays(columns, schema=schema)


def _fit_column(column: pa.Array | pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    cast = fitted if isinstance(column, pa.ChunkedArray) else fitted_array
    values, wrong = cast(column, field.type)
    if wrong is not None:
        raise ConflictingTypesError(((field.name, str(column.type), str(field.type)),))
    return values


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """A schema as an Arrow IPC message, for the store."""
    return bytes(schema.serialize())


def schema_from_bytes(message: bytes) -> pa.Schema:
    """The schema that ``schema_to_bytes`` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(message))


class GrowingSchema:
    """The merged schema of one stream, shared by all partitions that are being read.

    Args:
        ledger: Where its versions are stored.
        stream: The stream's name.
        declared: Schemas that the connector gave for it.
        rules: The contract for new columns and types.
        on_growth: Told the schema before (None at first) and after.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        rules: StreamRules,
        on_growth: Callable[[pa.Schema | None, pa.Schema], None],
        declared: Iterable[pa.Schema] = (),
    ) -> None:
        self._stream, self._rules, self._on_growth = stream, rules, on_growth
        self._lock = threading.Lock()
        stored = log.newest_schema(ledger, stream)
        self.version = 0 if stored is None else stored[0]
        self.schema: pa.Schema | None = None if stored is None else schema_from_bytes(stored[1])
        self._grown: dict[int, pa.Schema] = {}
        for schema in declared:
            self._begin_with(schema)

    def _begin_with(self, declared: pa.Schema) -> None:
        """Let the connector's own schema count before the first record; values decide where it conflicts."""
        try:
            merged = merge(self.schema, declared)
        except ConflictingTypesError:
            return
        if self.schema is None or not merged.equals(self.schema):
            self.schema = merged
            self.version += 1
            self._grown[self.version] = merged

    def conform(self, table: pa.Table) -> tuple[pa.Table, int, tuple[Rejected, ...]]:
        """A batch in the schema as it is now, with that schema's version.

        Raises:
            StreamError: The contract does not allow the change.
        """
        with self._lock:
            before = self.schema
            if not table.num_columns and not table.num_rows and before is not None:
                return before.empty_table(), self.version, ()
            conformed = conform(table, before, self._rules, stream=self._stream)
            if conformed.changed or before is None:
                self.schema = conformed.schema
                self.version += 1
                self._grown[self.version] = conformed.schema
            version = self.version
        if conformed.changed or before is None:
            self._on_growth(before, conformed.schema)
        return conformed.table, version, conformed.rejected

    def unstored(self, version: int) -> pa.Schema | None:
        """The schema of a version that this run made and no sealed group has stored yet."""
        return self._grown.get(version)

    def stored(self, versions: Iterable[int]) -> None:
        """Groups with these versions have been sealed."""
        with self._lock:
            for version in versions:
                self._grown.pop(version, None)
