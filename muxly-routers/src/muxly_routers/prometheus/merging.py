"""Merging the records of a delivery into the series of its stream."""

from __future__ import annotations

import pyarrow as pa
from attrs import define, evolve, field, frozen

import muxly
from muxly_routers.prometheus.options import MetricDefinition
from muxly_routers.prometheus.samples import SampleReader
from muxly_routers.prometheus.series import CountedLog, MetricSeries, SegmentPart, StreamSeries, empty, grouped, joined

__all__ = ["MergeResult", "merge", "report_omissions"]

_WAITING_RECORDS = 1 << 15


@frozen(kw_only=True)
class MergeResult:
    """The result of merging a delivery.

    Args:
        series: The series with its records.
        rejected: The records that a counter cannot take.
        nulls: How many values were missing.
        dropped: How many updates were left out because there are too many series.
    """

    series: StreamSeries
    rejected: tuple[muxly.Rejected, ...] = ()
    nulls: int = 0
    dropped: int = 0


def merge(
    series: StreamSeries, delivery: muxly.Delivery, reader: SampleReader, *, labels: pa.DataType, known: bool = False
) -> MergeResult:
    """Merge a delivery's records; those that were counted already change nothing.

    Args:
        series: What was there before.
        delivery: The records.
        reader: What is made of them.
        labels: The type of a label set.
        known: Whether the series hold the delivery already; then only what it rejects is found again.

    Raises:
        ConfigurationError: A column is missing, or is of a type that does not fit.
    """
    settings = reader.settings
    before = _of_metrics(series, reader, labels)
    free = [settings.max_series - before.count]
    merges = [
        _MetricMerge(metric, reader, before.families[metric.name], delivery.bounds, free) for metric in settings.metrics
    ]
    rejected: list[muxly.Rejected] = []
    number = delivery.delivered
    for position, batch in delivery.positioned():
        mask, refused = reader.accepted(batch)
        rejected.extend(muxly.Rejected(reason, index=number + at) for at, reason in refused)
        for metric_merge in () if known else merges:
            metric_merge.take(position, batch, mask)
        number += batch.num_rows
    for metric_merge in merges:
        metric_merge.finish()
    dropped = sum(metric_merge.dropped for metric_merge in merges)
    families = {metric_merge.metric.name: metric_merge.family for metric_merge in merges}
    after = StreamSeries(families=families, dropped=series.dropped + dropped, delivery=delivery.id)
    return MergeResult(
        series=after,
        rejected=tuple(rejected),
        nulls=sum(metric_merge.nulls for metric_merge in merges),
        dropped=dropped,
    )


def _of_metrics(series: StreamSeries, reader: SampleReader, labels: pa.DataType) -> StreamSeries:
    """The series of the configured metrics; one that is defined anew begins anew."""
    families: dict[str, MetricSeries] = {}
    for metric in reader.settings.metrics:
        definition = metric.definition(reader.settings.stream_label)
        known = series.families.get(metric.name)
        fits = known is not None and known.definition == definition
        families[metric.name] = known if fits and known else MetricSeries(definition=definition, table=empty(labels))
    return evolve(series, families=families)


@define
class _MetricMerge:
    """A metric's series while a delivery is read.

    Args:
        metric: Which metric.
        reader: What is made of records.
        family: Its series as they are.
        bounds: Where in the log the delivery begins and ends.
        free: How many more series the stream may have; shared by its metrics.
    """

    metric: MetricDefinition
    reader: SampleReader
    family: MetricSeries
    bounds: tuple[tuple[int, int], tuple[int, int]]
    free: list[int]
    nulls: int = 0
    dropped: int = 0
    _position: int | None = None
    _part: SegmentPart | None = None
    _known: int | None = 0
    _passed: int = 0
    _waiting: list[pa.Table] = field(factory=list)
    _waiting_records: int = 0

    def take(self, position: int, batch: pa.RecordBatch, mask: pa.BooleanArray | None) -> None:
        """Take the records of a batch that are new, and that the mask lets through."""
        if position != self._position:
            self._leave_segment()
            self._enter_segment(position)
        left_out = batch.num_rows if self._known is None else max(self._known - self._passed, 0)
        self._passed += batch.num_rows
        new = batch.slice(min(left_out, batch.num_rows))
        if mask is not None:
            new = new.filter(mask.slice(batch.num_rows - new.num_rows))
        if new.num_rows:
            self._add(new)

    def _enter_segment(self, position: int) -> None:
        self._position, self._part, self._passed = position, SegmentPart.of(position, self.bounds), 0
        if self.family.counted.follows(self._part):
            self._begin_anew()
        counted = self.family.counted
        self._known = counted.known(self._part)
        if self._part.position == 0 and self.metric.kind != "increments" and 0 < position <= counted.position:
            self._known = None  # a dead letter: counted late it is right, shown as the newest value it is not

    def _begin_anew(self) -> None:
        """Forget all: a replay that begins before it brings everything up to the head of the log."""
        self._settle()
        self.free[0] += len(self.family.table)
        self.family = evolve(self.family, counted=CountedLog(), table=self.family.table.slice(0, 0))

    def _leave_segment(self) -> None:
        if self._part is not None:
            self.family = evolve(self.family, counted=self.family.counted.after(self._part, self._passed))

    def _add(self, batch: pa.RecordBatch) -> None:
        samples = self.reader.samples(self.metric, batch)
        self.nulls += batch.num_rows - len(samples)
        self._waiting.append(samples)
        self._waiting_records += len(samples)
        if self._waiting_records >= _WAITING_RECORDS:
            self._settle()

    def _settle(self) -> None:
        """Merge what waits into the series, as far as there is room for new ones."""
        if not self._waiting:
            return
        adding, before = self.metric.kind == "increments", self.family.table
        waiting = grouped(_one_table(self._waiting), adding=adding)
        merged = grouped(joined(before, waiting), adding=adding)
        new = len(merged) - len(before)
        kept = min(new, max(self.free[0], 0))
        self.free[0] -= kept
        self.dropped += new - kept
        self.family = evolve(self.family, table=merged.slice(0, len(before) + kept))
        self._waiting, self._waiting_records = [], 0

    def finish(self) -> None:
        """Merge the rest."""
        self._leave_segment()
        self._settle()


def _one_table(tables: list[pa.Table]) -> pa.Table:
    """All of them as one; batches differ only in whether values are integers."""
    whole = tables[0]
    for table in tables[1:]:
        whole = joined(whole, table)
    return whole


def report_omissions(
    run: muxly.Run, stream: str, max_series: int, *, nulls: int = 0, dropped: int = 0, late: int = 0
) -> None:
    """Measure what did not become a sample, and give notice of it.

    Args:
        run: The run.
        stream: The stream's name.
        max_series: Most series of the stream.
        nulls: Missing values.
        dropped: Updates beyond the most series.
        late: Samples that the receiver refused as too late.
    """
    if nulls:
        run.measure("null_values", nulls, stream=stream)
    if dropped:
        run.measure("series_dropped", dropped, stream=stream)
        message = (
            f"stream {stream!r} has more than {max_series} series; {dropped} updates of further ones "
            "were left out. Take away a label with many values, or raise max_series"
        )
        run.notice(muxly.Notice("series_limit", message, stream=stream))
    if late:
        run.measure("late_samples", late, stream=stream)
        message = (
            f"stream {stream!r}: the receiver refused {late} samples because it holds a sample of that time or a "
            "later one: they were sent before, or Prometheus' out_of_order_time_window is too short for them"
        )
        run.notice(muxly.Notice("late_samples", message, stream=stream))
