"""The bytes behind Arrow's columns of texts and bytes that have 64-bit offsets."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["content", "offsets"]


def content(column: pa.Array) -> pa.Buffer:
    """The bytes of all values, one behind the other, without a copy."""
    bounds = offsets(column)
    first, last = bounds[0].as_py(), bounds[-1].as_py()
    return column.buffers()[2].slice(first, last - first) if last > first else pa.py_buffer(b"")


def offsets(column: pa.Array) -> pa.Array:
    """Where the values begin in those bytes, and where the last one ends."""
    return pa.Array.from_buffers(pa.int64(), len(column) + 1, [None, column.buffers()[1]], offset=column.offset)
