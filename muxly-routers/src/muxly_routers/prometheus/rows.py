"""Records as samples: the lines that a batch adds to the series of a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from muxly_routers.prometheus import labels, values
from muxly_routers.prometheus.settings import MetricDefinition, PrometheusSettings, StreamKey

__all__ = ["LabelEncoder", "SampleReader"]

LabelEncoder = Callable[[MetricDefinition, "Sequence[tuple[str, pa.Array | str]]", int], pa.Array]
"""How a label set is written: of a metric, its labels and their values, and the number of records."""


@frozen
class SampleReader:
    """How the records of one stream are read.

    Args:
        unit: Whose they are.
        settings: Which metrics are made of them.
        form: How a label set is written.
        seen: When they are read, in seconds since 1970.
    """

    unit: StreamKey
    settings: PrometheusSettings
    form: LabelEncoder
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
        column = values.column(batch, metric.column, self.unit.stream, what)
        return values.numbers(column, metric.column, what)

    def _labels(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Array:
        what = f"metric {metric.name!r}"
        pairs: list[tuple[str, pa.Array | str]] = [
            (label, labels.as_text(values.column(batch, name, self.unit.stream, what), name, what))
            for label, name in metric.labels
        ]
        if self.settings.stream_label:
            pairs.append((self.settings.stream_label, self.unit.stream))
        return self.form(metric, sorted(pairs, key=lambda pair: pair[0]), len(batch))

    def _times(self, metric: MetricDefinition, batch: pa.RecordBatch) -> pa.Array:
        if metric.timestamp is None:
            return pa.nulls(len(batch), pa.int64())
        what = f"metric {metric.name!r}"
        column = values.column(batch, metric.timestamp, self.unit.stream, what)
        return values.times(column, metric.timestamp, what)

    def accepted(self, batch: pa.RecordBatch) -> tuple[pa.BooleanArray | None, list[tuple[int, str]]]:
        """Which records every counter can take, None = all; and of the others, number and reason.

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
    """Which values no counter can take."""
    wrong = pc.less(found, 0)
    if pa.types.is_floating(found.type):
        wrong = pc.or_(wrong, pc.invert(pc.is_finite(found)))
    return pc.fill_null(wrong, False)


def _reason(metric: MetricDefinition, value: Any) -> str:
    return (
        f"counter {metric.name!r} only grows, and column {metric.column!r} is {value}; write `cumulative: true` if "
        "the column holds totals, or `type: gauge`"
    )
