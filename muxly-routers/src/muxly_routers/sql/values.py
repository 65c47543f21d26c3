"""Arrow arrays into the types that databases take: plain layouts, text, JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

import muxly
from muxly_routers._formats import columns
from muxly_routers._formats import text as jsonl

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "as_json",
    "as_text",
    "cast_to",
    "cast_within",
    "check_range",
    "days",
    "digits",
    "has_json",
    "in_day",
    "is_text",
    "moments",
    "moments_text",
    "plain",
    "plain_type",
    "times",
]

# 0001-01-01 and 9999-12-31 in days from 1970: what has a text form with four digits for the year.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
DAY_MICROSECONDS = 86_400_000_000
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

# What is turned into JSON at a time: the encoder holds the GIL, and its text stands in memory twice.
_PART_ROWS = 8_192


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without dictionary, run-end encoding, view or extension."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    return pa.binary() if types.is_binary_view(kind) else kind


def plain(array: pa.Array) -> pa.Array:
    """The same values in their ``plain_type``."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    wanted = plain_type(kind)
    return array if wanted == kind else array.cast(wanted)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a plain type are text."""
    return bool(types.is_string(kind) or types.is_large_string(kind))


def cast_to(kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """A conversion by an exact cast: a value that would change is an error."""
    return lambda array: array.cast(kind)


def digits(kind: pa.DataType) -> tuple[int, int]:
    """Precision and scale of a decimal type as databases have them: 0 <= scale <= precision.

    A scale below 0 is the same numbers with zeros written out, one above the precision has zeros behind the point.
    """
    scale = max(kind.scale, 0)
    return max(kind.precision - min(kind.scale, 0), scale), scale


def as_text(array: pa.Array) -> pa.Array:
    """Numbers and times as Arrow writes them: exactly."""
    return array.cast(pa.string())


def check_range(numbers: pa.Array, first: int, last: int, beyond: str) -> None:
    """Refuse an array of integers if one of them is beyond either end.

    Raises:
        ValueError: With the words of ``beyond``.
    """
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is not None and (ends["min"] < first or ends["max"] > last):
        raise ValueError(beyond)


def cast_within(kind: pa.DataType, first: int, last: int, beyond: str) -> Callable[[pa.Array], pa.Array]:
    """A conversion by an exact cast to dates or timestamps, all of them between two.

    Args:
        kind: The type of dates, or one of timestamps.
        first: As a number of that type.
        last: As well.
        beyond: The words of the ``ValueError`` about others.
    """

    def converted(array: pa.Array) -> pa.Array:
        found = array.cast(kind)
        check_range(found.view(pa.int32() if types.is_date32(kind) else pa.int64()), first, last, beyond)
        return found

    return converted


def days(array: pa.Array) -> pa.Array:
    """Dates of the years 1 to 9999.

    Raises:
        ValueError: One is outside.
    """
    found = array.cast(pa.date32())
    check_range(found.view(pa.int32()), FIRST_DAY, LAST_DAY, "a date outside the years 1 to 9999")
    return found


def in_day(array: pa.Array) -> pa.Array:
    """Times of day, as they are.

    Raises:
        ValueError: One is before midnight, or not before the next.
    """
    numbers = array.view(pa.int32() if types.is_time32(array.type) else pa.int64())
    check_range(numbers, 0, 86_400 * _TICKS[array.type.unit] - 1, "a time before midnight, or not before the next")
    return array


def times(array: pa.Array) -> pa.Array:
    """Times of day in microseconds.

    Raises:
        ValueError: One is none, or finer.
    """
    return in_day(array).cast(pa.time64("us"))


def moments(array: pa.Array, unit: str = "us") -> pa.Array:
    """Timestamps of the years 1 to 9999, in UTC if they have a zone.

    Raises:
        ValueError: One is outside, or finer than the unit.
    """
    found = array.cast(pa.timestamp(unit, None if array.type.tz is None else "UTC"))
    if unit == "us":  # all that nanoseconds in 64 bits can say lies between the years 1677 and 2262
        first, last = FIRST_DAY * DAY_MICROSECONDS, (LAST_DAY + 1) * DAY_MICROSECONDS - 1
        check_range(found.view(pa.int64()), first, last, "a timestamp outside the years 1 to 9999")
    return found


def moments_text(array: pa.Array) -> pa.Array:
    """``2026-01-31 12:00:00.000000``, with nine digits for nanoseconds, and a Z behind a time with a zone."""
    found = moments(array, "ns" if array.type.unit == "ns" else "us")
    text = as_text(found.cast(pa.timestamp(found.type.unit)))
    # Arrow writes a time with a zone ten times as slowly; in UTC it differs by the Z alone.
    return text if found.type.tz is None else pc.binary_join_element_wise(text, "Z", "")


def has_json(kind: pa.DataType) -> bool:
    """Whether values of a type have a form in JSON."""
    try:
        columns.conversion(pa.schema([("value", kind)]), "jsonl")
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
    # Every line is {"v":...}, and JSON has no line end inside a value: cut there, without a look at each.
    whole = pa.array([lines], pa.binary()).cast(pa.string())
    texts = pc.split_pattern(whole, "\n").flatten()[: len(array)]
    values = pc.binary_replace_slice(pc.binary_replace_slice(texts.cast(pa.binary()), -1, 2**31 - 1, b""), 0, 5, b"")
    return pc.if_else(array.is_null(), pa.scalar(None, pa.string()), values.cast(pa.string()))
