"""Records as text that MySQL and MariaDB read: the lines of LOAD DATA, or the rows of an INSERT.

Arrow's kernels make text of whole columns at a time: no value is ever a Python object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from muxly_routers.sql.text_buffer import content, offsets, slices

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_binary", "lines", "parts", "rows"]

# What stands as text in memory at a time.
_PART_ROWS = 16_384
_PART_BYTES = 4 * 1024 * 1024

# LOAD DATA and a quoted literal both take these back; the backslash comes first.
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"))
_TEXT = pa.large_string()


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices that are small as text."""
    return slices(batch, most_records=_PART_ROWS, most_bytes=_PART_BYTES)


def lines(part: pa.RecordBatch) -> pa.Buffer:
    r"""The records as LOAD DATA reads them by default: tabs, line feeds, ``\N`` for null.

    Args:
        part: At least one record, of plain columns; binary ones are written as hexadecimal.
    """
    inner = _side_by_side([_escaped(column) for column in part.columns], "\t", null="\\N")
    return content(_enclosed("", inner, "\n"))


def rows(part: pa.RecordBatch) -> pa.Buffer:
    """The records as the rows behind VALUES, each value a quoted literal.

    Args:
        part: As for ``lines``.
    """
    inner = _side_by_side([_literal(column) for column in part.columns], ",", null="NULL")
    text = content(_enclosed("(", inner, "),"))
    return text.slice(0, text.size - 1)


def is_binary(kind: pa.DataType) -> bool:
    """Whether the values of a plain type are bytes."""
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _side_by_side(texts: list[pa.Array], between: str, *, null: str) -> pa.Array:
    return pc.binary_join_element_wise(
        *texts, pa.scalar(between, _TEXT), null_handling="replace", null_replacement=null
    )


def _escaped(column: pa.Array) -> pa.Array:
    text = _text(column)
    if _holds_text(column.type):
        # Most columns hold none of them, and to look through the bytes costs next to nothing.
        found = bytes(content(text))
        for special, escaped in _ESCAPES:
            if special.encode() in found:
                text = pc.replace_substring(text, special, escaped)
    return text


def _literal(column: pa.Array) -> pa.Array:
    text = _escaped(column)
    if _holds_text(column.type):
        text = pc.replace_substring(text, "'", "\\'")
    return _enclosed("x'" if is_binary(column.type) else "'", text, "'")


def _enclosed(before: str, text: pa.Array, behind: str) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(before, _TEXT), text, pa.scalar(behind, _TEXT), pa.scalar("", _TEXT))


def _holds_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(column: pa.Array) -> pa.Array:
    """The values as MySQL takes them for the type of their column."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).cast(_TEXT)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp(kind.unit)).cast(_TEXT)
    return _hexadecimal(column.cast(pa.large_binary())) if is_binary(kind) else column.cast(_TEXT)


def _hexadecimal(column: pa.Array) -> pa.Array:
    bounds = offsets(column)
    digits = bytes(content(column)).hex().encode()
    doubled = pc.multiply(pc.subtract(bounds, bounds[0]), pa.scalar(2, pa.int64()))
    plain = pa.Array.from_buffers(_TEXT, len(column), [None, doubled.buffers()[1], pa.py_buffer(digits)])
    return pc.if_else(column.is_valid(), plain, pa.scalar(None, _TEXT))
