"""Arrow's columns as bytes: how many records at a time, and where those of 64-bit offsets lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["content", "offsets", "slices"]


def slices(batch: pa.RecordBatch, *, most_records: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """The batch in slices of at most so many records, and of about so many bytes."""
    records = max(1, batch.num_rows)
    count = max(1, min(most_records, records * most_bytes // max(1, batch.nbytes)))
    return (batch.slice(start, count) for start in range(0, batch.num_rows, count))


def content(column: pa.Array) -> pa.Buffer:
    """The bytes of all values, one behind the other, without a copy."""
    bounds = offsets(column)
    first, last = bounds[0].as_py(), bounds[-1].as_py()
    return column.buffers()[2].slice(first, last - first) if last > first else pa.py_buffer(b"")


def offsets(column: pa.Array) -> pa.Array:
    """Where the values begin in those bytes, and where the last one ends."""
    return pa.Array.from_buffers(pa.int64(), len(column) + 1, [None, column.buffers()[1]], offset=column.offset)
