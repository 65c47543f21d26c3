"""What one address shows: the series of all streams there, each metric once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from attrs import evolve, frozen

import muxly
from muxly_routers.prometheus.exposition import MetricFamily
from muxly_routers.prometheus.series import grouped, joined
from muxly_routers.prometheus.settings import MetricDefinition, StreamKey

__all__ = ["PublishedSeries"]


@frozen
class _PublishedStream:
    """The series of one stream, and after how many seconds without a report one is left out."""

    exposed: tuple[MetricFamily, ...]
    expire_seconds: float | None


class PublishedSeries:
    """What was published last of each stream; not thread-safe."""

    def __init__(self) -> None:
        self._shown: dict[StreamKey, _PublishedStream] = {}

    def publish(self, unit: StreamKey, exposed: Sequence[MetricFamily], expire_seconds: float | None) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RouteError: Another route shows a metric of that name that is of another kind.
        """
        new = {one.metric.family: one.metric for one in exposed}
        for other in [one for one in self._shown if one != unit]:
            self._make_way(unit, new, other)
        self._shown[unit] = _PublishedStream(tuple(exposed), expire_seconds)

    def _make_way(self, unit: StreamKey, new: Mapping[str, MetricDefinition], other: StreamKey) -> None:
        """Show no metric as of two kinds."""
        shown = self._shown[other]
        clashing = [one for one in shown.exposed if _clash(new.get(one.metric.family), one.metric)]
        if not clashing:
            return
        if (unit.pipeline, unit.route) != (other.pipeline, other.route):
            raise muxly.RouteError(
                f"metric {new[clashing[0].metric.family].name!r} of stream {unit.stream!r} differs in type or unit "
                f"from the one of route {other.route!r} of pipeline {other.pipeline!r}, which is shown at the same "
                "address; name one of them otherwise"
            )
        # The route was configured anew since that stream was delivered last.
        left = (one for one in shown.exposed if not _clash(new.get(one.metric.family), one.metric))
        self._shown[other] = evolve(shown, exposed=tuple(left))

    @property
    def lasting(self) -> bool:
        """Whether time alone changes nothing."""
        return all(one.expire_seconds is None for one in self._shown.values())

    def together(self, now: float) -> list[MetricFamily]:
        """Each metric once, with the series of all streams; of a label set in several streams only one.

        Args:
            now: In seconds since 1970.
        """
        metrics: dict[str, MetricDefinition] = {}
        tables: dict[str, list[pa.Table]] = {}
        for one in (self._shown[unit] for unit in sorted(self._shown, key=_order)):
            for exposed in one.exposed:
                metrics.setdefault(exposed.metric.family, exposed.metric)
                tables.setdefault(exposed.metric.family, []).extend(_unexpired(exposed, one.expire_seconds, now))
        return [MetricFamily(metric, _distinct(tables[name])) for name, metric in metrics.items()]


def _order(unit: StreamKey) -> tuple[str, str, str]:
    return unit.pipeline, unit.route, unit.stream


def _clash(mine: MetricDefinition | None, known: MetricDefinition) -> bool:
    return mine is not None and (mine.is_counter, mine.unit) != (known.is_counter, known.unit)


def _unexpired(exposed: MetricFamily, expire_seconds: float | None, now: float) -> list[pa.Table]:
    if expire_seconds is None:
        return list(exposed.tables)
    return [table.filter(pc.greater_equal(table.column("seen"), int(now - expire_seconds))) for table in exposed.tables]


def _distinct(tables: list[pa.Table]) -> list[pa.Table]:
    if len(tables) < 2:
        return tables
    whole = tables[0]
    for table in tables[1:]:
        whole = joined(whole, table)
    return [grouped(whole, adding=False)]
