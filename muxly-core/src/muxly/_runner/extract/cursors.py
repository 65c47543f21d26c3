"""The values of a cursor field: how they compare, which is newest, and how far a lookback reaches."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly.errors import StreamError
from muxly.stream import Stream

__all__ = ["at_or_after", "comparable", "floor_of", "in_python", "newest_of"]

_NO_ORDER = (pa.ArrowException, TypeError, ValueError, OverflowError)
_DAY = timedelta(days=1)
_ZONES = timedelta(hours=14)
"""A time without a zone may be so far ahead of UTC: Kiritimati is at +14:00."""
_SKEW = timedelta(minutes=5)


def comparable(column: pa.ChunkedArray, stream: Stream) -> pa.Array:
    """The values in a form whose order is the cursor's; null = counts for nothing.

    ISO 8601 times that are text become times, since ``"00:00:00.5Z"`` sorts before
    ``"00:00:00Z"`` as text. Nanoseconds are cut to what Python's datetime holds.

    Raises:
        StreamError: The type has no order.
    """
    values = column.combine_chunks()
    kind = values.type
    if types.is_null(kind):
        return values
    if types.is_string(kind):
        return _times_in_text(values)
    if types.is_floating(kind):
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, kind))
    if types.is_timestamp(kind):
        return _microseconds(values)
    if types.is_integer(kind) or types.is_decimal(kind) or types.is_date(kind):
        return values
    raise StreamError(
        f"stream {stream.name!r}: its cursor_field {stream.cursor_field!r} is {kind}, which has no order; "
        "name a column of numbers, times, dates or text in `cursor_field`"
    )


def _times_in_text(values: pa.Array) -> pa.Array:
    for zone in ("UTC", None):
        try:
            return values.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return values


def _microseconds(values: pa.Array) -> pa.Array:
    if values.type.unit == "ns":
        values = pc.floor_temporal(values, unit="microsecond")
    return values.cast(pa.timestamp("us", values.type.tz))


def newest_of(values: pa.Array, now: datetime) -> tuple[Any, str | None]:
    """The greatest of comparable values, at most now; and the one beyond, as text.

    A few minutes beyond now are a clock that is not ours, and are not reported.
    """
    greatest = pc.max(values)
    if not greatest.is_valid:
        return None, None
    limit, allowed = _limits(values.type, now)
    if limit is None or not pc.greater(greatest, _scalar(limit, values.type)).as_py():
        return _python(greatest), None
    beyond = pc.greater(greatest, _scalar(allowed, values.type)).as_py()
    return limit, greatest.cast(pa.string()).as_py() if beyond else None


def _limits(kind: pa.DataType, now: datetime) -> tuple[Any, Any]:
    now = now.astimezone(UTC)
    if types.is_date(kind):
        return (now + _ZONES).date(), (now + _ZONES).date()
    if not types.is_timestamp(kind):
        return None, None
    if kind.tz is None:
        latest = now.replace(tzinfo=None) + _ZONES
        return latest, latest + _SKEW
    return now, now + _SKEW


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(value, kind) if types.is_temporal(kind) else pa.scalar(value)


def _python(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NO_ORDER:
        return None


def floor_of(greatest: Any, lookback: timedelta | None) -> Any:
    """The value from which records are remembered; the greatest itself where time is no measure.

    Args:
        greatest: A cursor value; None gives None.
        lookback: How far back the connector reads again; whole days for dates, rounded up.
    """
    if lookback is None or not isinstance(greatest, date):
        return greatest
    try:
        if isinstance(greatest, datetime):
            return greatest - lookback
        return greatest - _DAY * -(-lookback // _DAY)
    except OverflowError:
        return datetime.min.replace(tzinfo=greatest.tzinfo) if isinstance(greatest, datetime) else date.min


def at_or_after(values: pa.Array, floor: Any) -> pa.Array | None:
    """Which comparable values are at or after one; None if they cannot be compared with it."""
    if floor is None or types.is_null(values.type):
        return None
    if types.is_string(values.type) != isinstance(floor, str):
        return None
    if types.is_temporal(values.type) != isinstance(floor, date):
        return None
    try:
        return pc.greater_equal(values, _scalar(floor, values.type)).fill_null(False)
    except _NO_ORDER:
        return None


def in_python(values: pa.Array) -> list[Any]:
    """Comparable values as Python's; a time after the year 9999 as the last one that Python has."""
    last: pa.Scalar | None = None
    if types.is_timestamp(values.type):
        zone = None if values.type.tz is None else UTC
        last = pa.scalar(datetime.max.replace(tzinfo=zone), values.type)
    elif types.is_date(values.type):
        last = pa.scalar(date.max, values.type)
    if last is not None:
        values = pc.if_else(pc.greater(values, last), last, values)
    result: list[Any] = values.to_pylist()
    return result
