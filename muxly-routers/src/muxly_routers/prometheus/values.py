"""Columns of records as numbers and times."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import muxly

__all__ = ["column", "numbers", "times"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_SECONDS = 86_400


def column(batch: pa.RecordBatch, name: str, stream: str, what: str) -> pa.Array:
    """A column by its name, dictionaries decoded.

    Raises:
        ConfigurationError: The stream has none of that name.
    """
    at = batch.schema.get_field_index(name)
    if at < 0:
        known = ", ".join(batch.schema.names) or "none"
        raise muxly.ConfigurationError(
            f"stream {stream!r} has no column {name!r} for {what}; it has {known}. `streams:` of the route chooses "
            "streams that have it"
        )
    found = batch.column(at)
    return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found


def numbers(values: pa.Array, name: str, what: str) -> pa.Array:
    """Values as int64 where that is exact, else as float64; times and durations in seconds.

    Args:
        values: The column.
        name: Its name.
        what: What it is for, to say in the error.

    Raises:
        ConfigurationError: The column holds no numbers.
    """
    kind = values.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.int64())
    if pa.types.is_integer(kind):
        return _integers(values)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _seconds(values)
    raise muxly.ConfigurationError(
        f"column {name!r} for {what} is {kind}, not numbers; choose a column of numbers, times or durations"
    )


def _integers(values: pa.Array) -> pa.Array:
    if values.type == pa.uint64() and values.null_count < len(values) and pc.max(values).as_py() >= 1 << 63:
        return values.cast(pa.float64(), safe=False)
    return values.cast(pa.int64())


def _seconds(values: pa.Array) -> pa.Array:
    """Seconds since 1970 or midnight, or the length; whole ones as integers, others as floats."""
    if values.type == pa.date32():
        return pc.multiply(values.cast(pa.int32()).cast(pa.int64()), _DAY_SECONDS)
    ticks, per_second = _ticks(values)
    if per_second == 1:
        return ticks
    return pc.divide(ticks.cast(pa.float64(), safe=False), float(per_second))


def _ticks(values: pa.Array) -> tuple[pa.Array, int]:
    """A temporal column as integers, and how many of them are a second."""
    if values.type == pa.date64():
        return values.cast(pa.int64()), 1_000
    unit = values.type.unit
    whole = values.cast(pa.int32()) if pa.types.is_time32(values.type) else values
    return whole.cast(pa.int64()), _PER_SECOND[unit]


def times(values: pa.Array, name: str, what: str) -> pa.Array:
    """A column of dates or times as milliseconds since 1970.

    Raises:
        ConfigurationError: The column holds no dates or times.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return values.cast(pa.int64())
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise muxly.ConfigurationError(
            f"column {name!r} for the timestamp of {what} is {kind}; choose a column of dates or times"
        )
    if kind == pa.date32():
        return pc.multiply(values.cast(pa.int32()).cast(pa.int64()), 1_000 * _DAY_SECONDS)
    ticks, per_second = _ticks(values)
    if per_second <= 1_000:
        return pc.multiply(ticks, 1_000 // per_second)
    return _floored(ticks, per_second // 1_000)


def _floored(ticks: pa.Array, by: int) -> pa.Array:
    """Divided and rounded down, also before 1970."""
    quotient: Any = pc.divide(ticks, by)
    below = pc.less(ticks, pc.multiply(quotient, by))
    return pc.if_else(below, pc.subtract(quotient, 1), quotient)
