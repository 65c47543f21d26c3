"""Arrow arrays converted to the types that databases take: plain layouts, exact casts, text, JSON, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

import muxly
from muxly_routers._formats import columns
from muxly_routers._formats import text as jsonl

__all__ = [
    "as_json",
    "as_text",
    "cast_to",
    "cast_within",
    "check_range",
    "content",
    "dates",
    "durations_as_integers",
    "has_json",
    "is_binary",
    "is_text",
    "offsets",
    "plain",
    "plain_type",
    "precision_and_scale",
    "slices",
    "times_as_text",
    "times_in_microseconds",
    "times_of_day",
    "timestamps",
    "timestamps_as_text",
]

# 0001-01-01 and 9999-12-31 in days from 1970: what has a text form with a year of four digits.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
DAY_MICROSECONDS = 86_400_000_000
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

# How many values are encoded as JSON at once: the encoder holds the GIL, and its text is in memory twice.
_PART_ROWS = 8_192


def plain_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type of the same values without dictionary, run-end encoding, view or extension."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return plain_type(arrow_type.storage_type)
    if types.is_dictionary(arrow_type) or types.is_run_end_encoded(arrow_type):
        return plain_type(arrow_type.value_type)
    if types.is_string_view(arrow_type):
        return pa.string()
    return pa.binary() if types.is_binary_view(arrow_type) else arrow_type


def plain(array: pa.Array) -> pa.Array:
    """The same values in their ``plain_type``."""
    if isinstance(array.type, pa.BaseExtensionType):
        return plain(array.storage)
    if types.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    if types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    wanted = plain_type(array.type)
    return array if wanted == array.type else array.cast(wanted)


def is_text(arrow_type: pa.DataType) -> bool:
    """Whether values of a plain type are text."""
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type))


def is_binary(arrow_type: pa.DataType) -> bool:
    """Whether values of a plain type are bytes."""
    return bool(
        types.is_binary(arrow_type) or types.is_large_binary(arrow_type) or types.is_fixed_size_binary(arrow_type)
    )


def cast_to(arrow_type: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """A conversion by an exact cast: a value that would change is an error."""
    return lambda array: array.cast(arrow_type)


def precision_and_scale(arrow_type: pa.DataType) -> tuple[int, int]:
    """Precision and scale of a decimal type as databases have them: 0 <= scale <= precision.

    A scale below 0 is the same numbers with zeros written out; one above the precision has zeros after the point.
    """
    scale = max(arrow_type.scale, 0)
    return max(arrow_type.precision - min(arrow_type.scale, 0), scale), scale


def as_text(array: pa.Array) -> pa.Array:
    """Numbers and times as Arrow writes them: exactly."""
    return array.cast(pa.string())


def check_range(numbers: pa.Array, first: int, last: int, message: str) -> None:
    """Check that all integers of an array are between two.

    Args:
        numbers: The integers.
        first: The least that is allowed.
        last: The greatest.
        message: Of the error.

    Raises:
        ValueError: One is outside.
    """
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is not None and (ends["min"] < first or ends["max"] > last):
        raise ValueError(message)


def cast_within(arrow_type: pa.DataType, first: int, last: int, message: str) -> Callable[[pa.Array], pa.Array]:
    """A conversion by an exact cast to dates or timestamps, all of them between two.

    Args:
        arrow_type: The type of dates, or one of timestamps.
        first: The least that is allowed, as a number of that type.
        last: The greatest, likewise.
        message: Of the ``ValueError`` about others.
    """

    def converted(array: pa.Array) -> pa.Array:
        cast = array.cast(arrow_type)
        check_range(cast.view(pa.int32() if types.is_date32(arrow_type) else pa.int64()), first, last, message)
        return cast

    return converted


def dates(array: pa.Array) -> pa.Array:
    """Dates of the years 1 to 9999.

    Raises:
        ValueError: One is outside.
    """
    days = array.cast(pa.date32())
    check_range(days.view(pa.int32()), FIRST_DAY, LAST_DAY, "a date outside the years 1 to 9999")
    return days


def times_of_day(array: pa.Array) -> pa.Array:
    """Times of day, unchanged.

    Raises:
        ValueError: One is before midnight, or not before the next.
    """
    numbers = array.view(pa.int32() if types.is_time32(array.type) else pa.int64())
    check_range(numbers, 0, 86_400 * _TICKS[array.type.unit] - 1, "a time before midnight, or not before the next")
    return array


def times_in_microseconds(array: pa.Array) -> pa.Array:
    """Times of day in microseconds.

    Raises:
        ValueError: One is no time of day, or finer.
    """
    return times_of_day(array).cast(pa.time64("us"))


def times_as_text(array: pa.Array) -> pa.Array:
    """Times of day as text: ``12:00:00``, with a fraction of as many digits as their unit has.

    Raises:
        ValueError: One is no time of day.
    """
    return as_text(times_of_day(array))


def durations_as_integers(array: pa.Array) -> pa.Array:
    """Durations as whole microseconds.

    Raises:
        ArrowInvalid: One is finer.
    """
    return array.cast(pa.duration("us")).cast(pa.int64())


def timestamps(array: pa.Array, unit: str = "us") -> pa.Array:
    """Timestamps of the years 1 to 9999, in UTC if they have a zone.

    Raises:
        ValueError: One is outside, or finer than the unit.
    """
    cast = array.cast(pa.timestamp(unit, None if array.type.tz is None else "UTC"))
    if unit == "us":  # nanoseconds in 64 bits are always between the years 1677 and 2262
        first, last = FIRST_DAY * DAY_MICROSECONDS, (LAST_DAY + 1) * DAY_MICROSECONDS - 1
        check_range(cast.view(pa.int64()), first, last, "a timestamp outside the years 1 to 9999")
    return cast


def timestamps_as_text(array: pa.Array) -> pa.Array:
    """``2026-01-31 12:00:00.000000``, with nine digits for nanoseconds, and a Z after a time with a zone."""
    exact = timestamps(array, "ns" if array.type.unit == "ns" else "us")
    text = as_text(exact.cast(pa.timestamp(exact.type.unit)))
    # Arrow writes a time with a zone ten times as slowly; in UTC it differs by the Z alone.
    return text if exact.type.tz is None else pc.binary_join_element_wise(text, "Z", "")


def has_json(arrow_type: pa.DataType) -> bool:
    """Whether values of a type can be written as JSON."""
    try:
        columns.conversion(pa.schema([("value", arrow_type)]), "jsonl")
    except muxly.RouteError:
        return False
    return True


def as_json(array: pa.Array) -> pa.Array:
    """Each value as JSON text, with exact numbers; null stays null, NaN inside becomes null."""
    parts = [_json(array.slice(start, _PART_ROWS)) for start in range(0, len(array), _PART_ROWS)]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def _json(array: pa.Array) -> pa.Array:
    schema = pa.schema([("v", array.type)])
    batch = columns.conversion(schema, "jsonl").apply(pa.RecordBatch.from_arrays([array], schema=schema))
    try:
        lines = jsonl.jsonl_lines(batch)
    except muxly.RejectedError as error:
        raise ValueError(str(error)) from error
    # Every line is {"v":...}, and JSON has no line end inside a value: cut there, without parsing any.
    whole = pa.array([lines], pa.binary()).cast(pa.string())
    texts = pc.split_pattern(whole, "\n").flatten()[: len(array)]
    values = pc.binary_replace_slice(pc.binary_replace_slice(texts.cast(pa.binary()), -1, 2**31 - 1, b""), 0, 5, b"")
    return pc.if_else(array.is_null(), pa.scalar(None, pa.string()), values.cast(pa.string()))


def slices(batch: pa.RecordBatch, *, most_records: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """The batch in slices of at most so many records, and of about so many bytes."""
    records = max(1, batch.num_rows)
    count = max(1, min(most_records, records * most_bytes // max(1, batch.nbytes)))
    return (batch.slice(start, count) for start in range(0, batch.num_rows, count))


def content(column: pa.Array) -> pa.Buffer:
    """The bytes of all values of a column with offsets of 64 bits, in order, without a copy."""
    bounds = offsets(column)
    first, last = bounds[0].as_py(), bounds[-1].as_py()
    return column.buffers()[2].slice(first, last - first) if last > first else pa.py_buffer(b"")


def offsets(column: pa.Array) -> pa.Array:
    """The positions at which the values of such a column begin in its buffer, and the end of the last one."""
    return pa.Array.from_buffers(pa.int64(), len(column) + 1, [None, column.buffers()[1]], offset=column.offset)
