"""A delivery's way: series from where they are kept, its records merged into them, shown, kept again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

import muxly
from muxly_routers.prometheus.exposition import MetricFamily
from muxly_routers.prometheus.labels import constant, label_text
from muxly_routers.prometheus.merging import MergeResult, merge
from muxly_routers.prometheus.names import OWN
from muxly_routers.prometheus.notices import tell
from muxly_routers.prometheus.rows import SampleReader
from muxly_routers.prometheus.series import StreamSeries
from muxly_routers.prometheus.settings import MetricDefinition, PrometheusSettings, StreamKey
from muxly_routers.prometheus.state_file import SavedSeries, SeriesFiles

__all__ = ["OutletDelivery", "Outlet", "bounded"]

_STATE_BYTES = 1 << 20
_ALWAYS = (1 << 63) - 1
"""When a series that never expires was last reported."""

_DROPPED = MetricDefinition(
    name=f"{OWN}_total",
    column=None,
    kind="totals",
    help="Updates that Muxly left out because a stream has more than max_series series.",
)


class Outlet(Protocol):
    """A way out: shows series to whoever reads them."""

    def publish(self, unit: StreamKey, exposed: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others; shown for good on return."""

    def check(self) -> Iterable[muxly.Notice]:
        """Whether it can be reached."""

    def close(self) -> None:
        """Let go of it."""


class OutletDelivery:
    """Delivers to an outlet that shows the series as they are now.

    Args:
        run: The run.
        settings: What is made of records.
        outlet: Where the series are shown.
        folder: Where they are kept; None = in the ledger, with each acknowledgement.
    """

    def __init__(self, run: muxly.Run, settings: PrometheusSettings, outlet: Outlet, folder: Path | None) -> None:
        self._run, self._settings, self._outlet, self._folder = run, settings, outlet, folder

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Merge the records into the series and show them; a generation grows out of sight."""
        unit = self._unit(delivery.stream)
        if self._folder is None:
            merged = self._merged(StreamSeries.from_state(delivery.state), delivery, unit)
            state = bounded(merged.series, unit)
            self._publish(unit, merged.series)
            return muxly.Receipt(merged.rejected, state=state)
        keep = SeriesFiles(self._folder, unit, self._run.token)
        merged = self._kept(keep, delivery, unit)
        if delivery.mode != "replace":
            self._publish(unit, merged.series)
        return muxly.Receipt(merged.rejected)

    def _kept(self, keep: SeriesFiles, delivery: muxly.Delivery, unit: StreamKey) -> MergeResult:
        """Merge into what the folder keeps, unless it holds this very delivery already."""
        visible = keep.visible()
        before, generation = visible, visible.generation
        if delivery.mode == "replace":
            generation = delivery.generation or 0
            before = keep.growing(generation) or (visible if visible.generation == generation else SavedSeries())
        known = before.series.delivery == delivery.id
        merged = self._merged(before.series, delivery, unit, known=known)
        kept = SavedSeries(merged.series, generation)
        if delivery.mode == "replace":
            keep.grow(kept)
        elif not known:
            keep.show(kept)
        return merged

    def _merged(
        self, series: StreamSeries, delivery: muxly.Delivery, unit: StreamKey, *, known: bool = False
    ) -> MergeResult:
        now = time.time()
        if self._settings.expire_seconds is not None:
            series = series.unexpired(int(now - self._settings.expire_seconds))
        reading = SampleReader(unit, self._settings, _text, int(now))
        merged = merge(series, delivery, reading, labels=pa.string(), known=known)
        tell(self._run, unit, self._settings, nulls=merged.nulls, dropped=merged.dropped)
        return merged

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Drop what an older, never completed generation left."""
        self._keep(stream).drop_growing(before=generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show the generation's series.

        Raises:
            ConflictError: A newer generation is visible.
        """
        keep = self._keep(stream)
        visible = keep.visible()
        if visible.generation > generation:
            raise muxly.ConflictError(
                f"stream {stream.name!r} shows generation {visible.generation}; {generation} is older"
            )
        whole = keep.growing(generation) or (visible if visible.generation == generation else SavedSeries())
        keep.show(SavedSeries(whole.series, generation))
        self._publish(self._unit(stream), whole.series)
        keep.drop_growing(before=generation + 1)

    def _keep(self, stream: muxly.Stream) -> SeriesFiles:
        if self._folder is None:
            raise muxly.ConfigurationError(
                "a route in mode replace keeps the series of a read that is not complete in a folder; write "
                "`keep: FOLDER`",
                path=("keep",),
            )
        return SeriesFiles(self._folder, self._unit(stream), self._run.token)

    def _unit(self, stream: muxly.Stream) -> StreamKey:
        return StreamKey(self._run.pipeline, self._run.route or "", stream.name)

    def _publish(self, unit: StreamKey, series: StreamSeries) -> None:
        exposed = [
            MetricFamily(one, [series.families[one.name].table])
            for one in self._settings.metrics
            if one.name in series.families
        ]
        if series.dropped:
            exposed.append(MetricFamily(_DROPPED, [_dropped(unit, series.dropped)]))
        self._outlet.publish(unit, exposed)

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the way out is open."""
        return self._outlet.check()

    def close(self) -> None:
        """Let go of the way out."""
        self._outlet.close()


def _text(metric: MetricDefinition, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    return label_text(columns, count)


def _dropped(unit: StreamKey, count: int) -> pa.Table:
    names = (("pipeline", unit.pipeline), ("route", unit.route), ("stream", unit.stream))
    labels = ",".join(filter(None, (constant(*pair) for pair in names)))
    return pa.table(
        {"labels": [labels], "value": [count], "time": pa.nulls(1, pa.int64()), "seen": pa.array([_ALWAYS])}
    )


def bounded(series: StreamSeries, unit: StreamKey) -> object:
    """The series as the ledger's state.

    Raises:
        RouteError: They are more than the ledger keeps.
    """
    state = series.to_state()
    if (size := len(json.dumps(state))) > _STATE_BYTES - 1024:
        raise muxly.RouteError(
            f"the {series.count} series of stream {unit.stream!r} take {size} bytes, and the ledger keeps at most "
            "1 MiB; write `keep: FOLDER` to keep them in files, or take away labels"
        )
    return state
