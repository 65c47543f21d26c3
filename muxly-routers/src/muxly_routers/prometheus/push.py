"""A delivery's way to remote write: every record with a time is a sample, all others give the newest value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from attrs import evolve

import muxly
from muxly_routers.prometheus import protobuf, remote
from muxly_routers.prometheus.answers import reachable
from muxly_routers.prometheus.collect import bounded
from muxly_routers.prometheus.merging import MergeResult, merge
from muxly_routers.prometheus.notices import tell
from muxly_routers.prometheus.remote import RemoteWriteClient, SendProgress
from muxly_routers.prometheus.rows import SampleReader
from muxly_routers.prometheus.series import StreamSeries
from muxly_routers.prometheus.settings import MetricDefinition, PrometheusSettings, StreamKey

__all__ = ["RemoteWriteDelivery"]


class RemoteWriteDelivery:
    """Delivers to a receiver of remote write, which keeps the history of the series.

    Args:
        run: The run.
        settings: What is made of records.
        remote_write: The receiver.
    """

    def __init__(self, run: muxly.Run, settings: PrometheusSettings, remote_write: RemoteWriteClient) -> None:
        self._run, self._remote = run, remote_write
        self._settings = settings
        timed = tuple(one for one in settings.metrics if one.timestamp is not None)
        self._timed = evolve(settings, metrics=timed)
        self._untimed = evolve(settings, metrics=tuple(one for one in settings.metrics if one not in timed))

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Send the delivery's samples; the ledger keeps the totals of counters and how far the log was counted."""
        unit = StreamKey(self._run.pipeline, self._run.route or "", delivery.stream.name)
        before = StreamSeries.from_state(delivery.state)
        at = remote.sample_time(delivery.id, before.sent_at)
        merged = self._merged(before, delivery, unit, at // 1_000)
        history, nulls, dropped = self._history(delivery, unit)
        tables = [one.table for one in merged.series.families.values()]
        samples = [*remote.of_one_time(tables, at), *history]
        state = bounded(self._kept(merged.series, at), unit)
        progress = self._run.shared(f"muxly_routers.prometheus {unit}", SendProgress)
        late = self._remote.send(pa.concat_tables(samples), delivery.id, progress, self._run) if samples else 0
        tell(self._run, unit, self._settings, nulls=merged.nulls + nulls, dropped=merged.dropped + dropped, late=late)
        return muxly.Receipt(merged.rejected, state=state)

    def _merged(self, series: StreamSeries, delivery: muxly.Delivery, unit: StreamKey, seen: int) -> MergeResult:
        """The totals of counters, and of gauges what this delivery says; at each attempt the same."""
        if self._settings.expire_seconds is not None:
            series = series.unexpired(int(seen - self._settings.expire_seconds))
        return merge(series, delivery, SampleReader(unit, self._untimed, _bytes, seen), labels=pa.binary())

    def _kept(self, series: StreamSeries, at: int) -> StreamSeries:
        """What the next delivery needs: no values of gauges."""
        counters = {one.name for one in self._untimed.metrics if one.kind == "increments"}
        families = {
            name: one if name in counters else evolve(one, table=one.table.slice(0, 0))
            for name, one in series.families.items()
        }
        return evolve(series, families=families, sent_at=at)

    def _history(self, delivery: muxly.Delivery, unit: StreamKey) -> tuple[list[pa.Table], int, int]:
        """The samples of metrics with times; how many values or times are missing, and how many were left out."""
        reading = SampleReader(unit, self._timed, _bytes, seen=0)
        gathered: dict[str, list[pa.Table]] = {}
        nulls = dropped = 0
        for batch in self._taken(delivery, unit) if self._timed.metrics else ():
            for metric in self._timed.metrics:
                found = reading.samples(metric, batch)
                found = found.filter(found.column("time").is_valid()).select(["labels", "value", "time"])
                nulls += batch.num_rows - len(found)
                gathered.setdefault(metric.name, []).append(_floats(found))
        samples = []
        for tables in gathered.values():
            whole, more = remote.distinct(pa.concat_tables(tables), self._settings.max_series)
            samples.append(whole)
            dropped += more
        return samples, nulls, dropped

    def _taken(self, delivery: muxly.Delivery, unit: StreamKey) -> Iterator[pa.RecordBatch]:
        """The records that no counter refuses."""
        reading = SampleReader(unit, self._untimed, _bytes, seen=0)
        for batch in delivery.batches():
            mask, _ = reading.accepted(batch)
            yield batch if mask is None else batch.filter(mask)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """There is no mode replace."""
        raise _no_replace()

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """There is no mode replace."""
        raise _no_replace()

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the receiver answers at all."""
        return reachable(self._remote.client, "remote_write")

    def close(self) -> None:
        """Close the connections."""
        self._remote.close()


def _no_replace() -> muxly.ConfigurationError:
    return muxly.ConfigurationError(
        "remote_write keeps what it was sent, so that nothing can be replaced; write `mode: append`", path=("mode",)
    )


def _floats(samples: pa.Table) -> pa.Table:
    values = samples.column("value").cast(pa.float64(), safe=False)
    return samples.set_column(1, "value", values)


def _bytes(metric: MetricDefinition, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    return protobuf.label_bytes(metric.sample, columns, count)
