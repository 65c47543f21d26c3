"""Values that do not fit their column, as a column of their own."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly._runner.schema.casting import fitted
from muxly._runner.schema.type_table import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["VARIANT", "variant"]

VARIANT = "{column}__v_{type}"
"""The name of a variant column, as dlt has it."""


def variant(column: pa.ChunkedArray, mask: pa.Array) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The values of a mask, each way in which they can be kept, the best first.

    Args:
        column: The column as it came.
        mask: Which values do not fit.

    Yields:
        The word for the variant column's name, and the values, null outside of the mask.
    """
    word, kind = _word(canonical(column.type))
    if word == "json":
        with suppress(ValueError, OverflowError, pa.ArrowException):  # a time that Python does not have
            yield word, _as_json(column, mask)
        return
    values, wrong = fitted(column, kind)
    if wrong is None or not pc.any(pc.and_(wrong.combine_chunks(), mask)).as_py():
        yield word, pa.chunked_array([_only(values, mask)], type=kind)
    elif types.is_temporal(column.type) and column.type.bit_width == 64:
        # Out of the range of microseconds: the number as it is in Arrow, in its own unit.
        raw = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], type=pa.int64())
        yield "bigint", pa.chunked_array([_only(raw, mask)], type=pa.int64())


def _only(values: pa.ChunkedArray, mask: pa.Array) -> pa.Array:
    return pc.if_else(mask, values.combine_chunks(), pa.scalar(None, values.type))


def _word(kind: pa.DataType) -> tuple[str, pa.DataType]:
    """The word for a canonical type, and the type of its variant column."""
    if types.is_integer(kind):
        return ("decimal", pa.decimal128(20, 0)) if types.is_uint64(kind) else ("bigint", pa.int64())
    if types.is_floating(kind):
        return "double", pa.float64()
    if types.is_timestamp(kind):
        return ("timestamp_naive" if kind.tz is None else "timestamp"), kind
    for word, is_kind in (
        ("text", types.is_string),
        ("bool", types.is_boolean),
        ("decimal", types.is_decimal),
        ("date", types.is_date),
        ("time", types.is_time),
        ("duration", types.is_duration),
        ("binary", types.is_binary),
    ):
        if is_kind(kind):
            return word, kind
    return "json", pa.string()


def _as_json(column: pa.ChunkedArray, mask: pa.Array) -> pa.ChunkedArray:
    """Each value of the mask as JSON. Row by row: it is what a stream does that changes its shape."""
    texts = pa.array([_json(value) for value in column.filter(mask).to_pylist()], pa.string())
    # The number of masked values before each one is its place among the texts.
    places = pc.cumulative_sum(mask.cast(pa.int64()))
    places = pc.if_else(mask, pc.subtract(places, 1), pa.scalar(None, pa.int64()))
    return pa.chunked_array([texts.take(places)])


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_jsonable(value), ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    """A value that JSON has, and text for one that it does not have."""
    if isinstance(value, dict):
        return {str(key): _jsonable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(child) for child in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
