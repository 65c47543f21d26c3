"""A delivery's records on their way into a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from attrs import frozen

import muxly
from muxly_routers.sql import values
from muxly_routers.sql.quoting import SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from muxly_routers.sql.quoting import Column, Form

__all__ = ["Feed", "Mapped", "converted"]

_PART_BYTES = 16 * 1024 * 1024


@frozen
class Mapped:
    """A column of the records, and the column of the table that takes it.

    Args:
        index: In the delivery's schema.
        source: Its name there.
        column: In the table.
        form: How its values go there.
    """

    index: int
    source: str
    column: Column
    form: Form


class Feed:
    """Makes the records ready for a database, a batch at a time.

    Args:
        run: Looked at between batches: whether it is to stop.
        delivery: The records.
        columns: Where each goes.
        required: Names of columns in the records that must not be null.
        sequenced: Whether each record is given its sequence number.
    """

    def __init__(
        self,
        run: muxly.Run,
        delivery: muxly.Delivery,
        columns: Sequence[Mapped],
        *,
        required: Sequence[str] = (),
        sequenced: bool = False,
    ) -> None:
        self._run, self._delivery, self._columns = run, delivery, tuple(columns)
        self._required, self._sequenced = required, sequenced
        self.error: Exception | None = None
        """What went wrong while reading: drivers wrap it beyond recognition."""

    def reader(self) -> pa.RecordBatchReader:
        """All records, from the first."""
        fields = [pa.field(one.column.name, one.form.wire) for one in self._columns]
        if self._sequenced:
            fields.append(pa.field(SEQUENCE, pa.int64()))
        schema = pa.schema(fields)
        return pa.RecordBatchReader.from_batches(schema, self._kept(schema))

    def _kept(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches(schema)
        except Exception as error:
            self.error = error
            raise

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for sequence, whole in self._with_sequences():
            for start, part in _parts(whole):
                if self._run.stopping:
                    raise muxly.StoppedError("the run was asked to stop")
                self._check_required(part)
                arrays = [converted(part.column(one.index), one) for one in self._columns]
                if sequence is not None:
                    arrays.append(sequence.slice(start, len(part)))
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _with_sequences(self) -> Iterable[tuple[pa.Int64Array | None, pa.RecordBatch]]:
        if self._sequenced:
            return self._delivery.sequenced()
        return ((None, batch) for batch in self._delivery.batches())

    def _check_required(self, part: pa.RecordBatch) -> None:
        for name in self._required:
            if values.plain(part.column(name)).null_count:
                raise muxly.RejectedError(f"column {name!r}: a record without it has no primary key")


def converted(array: pa.Array, one: Mapped) -> pa.Array:
    """Values of a column as they are loaded.

    Raises:
        RejectedError: The database has no form for one of them.
    """
    try:
        return one.form.convert(values.plain(array))
    except (pa.ArrowException, ValueError) as error:
        raise muxly.RejectedError(f"column {one.source!r}: {error}") from error


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batch in parts that may stand in memory a second time, each with the number of its first record."""
    rows = max(1, batch.num_rows * _PART_BYTES // max(batch.nbytes, _PART_BYTES))
    for start in range(0, batch.num_rows, rows):
        yield start, batch.slice(start, rows)
