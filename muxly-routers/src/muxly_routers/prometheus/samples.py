"""Records as samples: columns become numbers, times and label sets.

A label set is one text for each record, which is also the identity of its series: the text between the braces
of the exposition formats. Its labels are sorted, so that equal sets are equal texts; an empty or missing value
is an absent label, as in Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

import muxly
from muxly_routers.prometheus.options import MetricDefinition, PrometheusSettings, StreamKey

__all__ = ["LabelEncoder", "SampleReader", "as_numbers", "as_text", "as_times", "column_of", "constant", "label_text"]

LabelEncoder = Callable[[MetricDefinition, "Sequence[tuple[str, pa.Array | str]]", int], pa.Array]
"""How a label set is written: of a metric, its labels and their values, and the number of records."""


@frozen
class SampleReader:
    """Reads the records of one stream as samples.

    Args:
        stream_key: Whose they are.
        settings: Which metrics are made of them.
        encode_labels: How a label set is written.
        seen: When they are read, in seconds since 1970.
    """

    stream_key: StreamKey
    settings: PrometheusSettings
    encode_labels: LabelEncoder
    seen: int

    def samples(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Table:
        """One line for each record that has a value: ``labels``, ``value``, ``time`` and ``seen``.

        Raises:
            ConfigurationError: A column is missing, or is of a type that does not fit.
        """
        found = self._numbers(metric, batch)
        if found.null_count:
            present = found.is_valid()
            batch, found = batch.filter(present), found.filter(present)
        columns = [self._labels(metric, batch), found, self._times(metric, batch)]
        seen = pa.repeat(pa.scalar(self.seen, pa.int64()), len(batch))
        return pa.table([*columns, seen], names=["labels", "value", "time", "seen"])

    def _numbers(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Array:
        if metric.column is None:
            return pa.repeat(pa.scalar(1, pa.int64()), len(batch))
        what = f"metric {metric.name!r}"
        column = column_of(batch, metric.column, self.stream_key.stream, what)
        return as_numbers(column, metric.column, what)

    def _labels(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Array:
        what = f"metric {metric.name!r}"
        pairs: list[tuple[str, pa.Array | str]] = [
            (label, as_text(column_of(batch, name, self.stream_key.stream, what), name, what))
            for label, name in metric.labels
        ]
        if self.settings.stream_label:
            pairs.append((self.settings.stream_label, self.stream_key.stream))
        return self.encode_labels(metric, sorted(pairs, key=lambda pair: pair[0]), len(batch))

    def _times(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Array:
        if metric.timestamp is None:
            return pa.nulls(len(batch), pa.int64())
        what = f"metric {metric.name!r}"
        column = column_of(batch, metric.timestamp, self.stream_key.stream, what)
        return as_times(column, metric.timestamp, what)

    def accepted(self, batch: pa.RecordBatch) -> tuple[pa.BooleanArray | None, list[tuple[int, str]]]:
        """Find the records that every counter can take, None = all; and of the others, number and reason.

        Raises:
            ConfigurationError: A column is missing, or is of a type that does not fit.
        """
        reasons: dict[int, str] = {}
        taken: pa.BooleanArray | None = None
        for metric in self.settings.metrics:
            if metric.kind == "increments" and metric.column is not None:
                found = self._numbers(metric, batch)
                wrong = _no_increment(found)
                if pc.any(wrong).as_py():
                    taken = pc.invert(wrong) if taken is None else pc.and_not(taken, wrong)
                    for number in pc.indices_nonzero(wrong).to_pylist():
                        reasons.setdefault(number, _reason(metric, found[number].as_py()))
        return taken, sorted(reasons.items())


def _no_increment(found: pa.Array) -> pa.BooleanArray:
    """Mark the values that no counter can take."""
    wrong = pc.less(found, 0)
    if pa.types.is_floating(found.type):
        wrong = pc.or_(wrong, pc.invert(pc.is_finite(found)))
    return pc.fill_null(wrong, False)


def _reason(metric: MetricDefinition, value: Any) -> str:
    return (
        f"counter {metric.name!r} only grows, and column {metric.column!r} is {value}; write `cumulative: true` if "
        "the column holds totals, or `type: gauge`"
    )


_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_SECONDS = 86_400


def column_of(batch: pa.RecordBatch, name: str, stream: str, what: str) -> pa.Array:
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


def as_numbers(values: pa.Array, name: str, what: str) -> pa.Array:
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
    stream_key = values.type.unit
    whole = values.cast(pa.int32()) if pa.types.is_time32(values.type) else values
    return whole.cast(pa.int64()), _PER_SECOND[stream_key]


def as_times(values: pa.Array, name: str, what: str) -> pa.Array:
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


_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"))


def as_text(values: pa.Array, name: str, what: str) -> pa.Array:
    """A column as the text of a label; missing values stay missing.

    Args:
        values: The column.
        name: Its name.
        what: What it is for, to say in the error.

    Raises:
        ConfigurationError: Values of its type have no text.
    """
    try:
        return values.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise muxly.ConfigurationError(
            f"column {name!r} for a label of {what} is {values.type} and cannot be text; choose another column, or "
            f"leave that label out ({str(error).splitlines()[0]})"
        ) from error


def escaped(values: pa.Array) -> pa.Array:
    """Backslashes, quotes and line ends written as both formats want them."""
    for raw, written in _ESCAPES:
        if pc.any(pc.match_substring(values, raw)).as_py():
            values = pc.replace_substring(values, raw, written)
    return values


def constant(name: str, value: str) -> str:
    """A label whose value is the same for all records; nothing if it is empty."""
    if not value:
        return ""
    for raw, written in _ESCAPES:
        value = value.replace(raw, written)
    return f'{name}="{value}"'


def label_text(columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    """The text of each record's labels.

    Args:
        columns: Pairs of label and its values as text, or one value for all, sorted by label.
        count: How many records there are.
    """
    parts = [part for name, values in columns for part in _part(name, values)]
    if not parts:
        return pa.repeat(pa.scalar("", pa.string()), count)
    joined = pc.utf8_rtrim(pc.binary_join_element_wise(*parts, ""), ",")
    return joined if isinstance(joined, pa.Array) else pa.repeat(joined, count)  # a scalar if all labels are constant


def _part(name: str, values: pa.Array | str) -> list[pa.Array | str]:
    """``name="value",`` piece by piece; nothing where the value is missing or empty."""
    if isinstance(values, str):
        text = constant(name, values)
        return [pa.scalar(f"{text},")] if text else []
    written = escaped(values)
    absent = pc.equal(pc.fill_null(values, ""), "")
    if not pc.any(absent).as_py():
        return [f'{name}="', written, '",']
    whole = pc.binary_join_element_wise(f'{name}="', pc.fill_null(written, ""), '",', "")
    return [pc.if_else(absent, "", whole)]
