"""The router ``prometheus``: numbers in columns become metrics that Prometheus scrapes or receives.

A stream's series follow from its log alone: of a gauge the newest value of each label set, of a counter
the sum of its increments up to the place that was counted last. A delivery that comes again changes
nothing, whichever way out is used: ``textfile``, ``listen``, ``pushgateway`` or ``remote_write``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import muxly
from muxly_routers._http.credentials import Basic
from muxly_routers._lazy_output import LazyOutputRouter
from muxly_routers.prometheus import options
from muxly_routers.prometheus.options import Metric, MetricDefinition, PrometheusOptions, PrometheusSettings
from muxly_routers.run_metrics import Operations

if TYPE_CHECKING:
    from muxly_routers.prometheus.delivery import OutletDelivery
    from muxly_routers.prometheus.remote_write import RemoteWriteDelivery

__all__ = ["Basic", "Metric", "Operations", "Prometheus"]


class Prometheus(PrometheusOptions, LazyOutputRouter["OutletDelivery | RemoteWriteDelivery"]):
    """Turns columns into metrics, for Prometheus to scrape or receive."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "replace"})
    promise: ClassVar[muxly.Promise] = "idempotent"

    def __attrs_post_init__(self) -> None:
        """Leave out the mode replace where there is no folder in which a generation can grow."""
        if self.textfile is None and self.keep is None:
            vars(self)["modes"] = frozenset({"append"})

    def open(self, run: muxly.Run) -> None:
        """Open the destination if it is an endpoint: ``listen`` listens from now on."""
        self.close()
        super().open(run)
        if self.listen is not None:
            self._opened()

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the destination can be reached."""
        return self._opened().check()

    def _open_output(self) -> OutletDelivery | RemoteWriteDelivery:
        # Loads pyarrow, which a pipeline with another router does not need.
        from muxly_routers.prometheus.delivery import open_delivery

        return open_delivery(self, self._run, self._settings())

    def _settings(self) -> PrometheusSettings:
        from muxly_routers.prometheus.options import PrometheusSettings

        return PrometheusSettings(
            metrics=tuple(_metric(name, metric) for name, metric in self.metrics.items()),
            stream_label=self.stream_label,
            max_series=self.max_series,
            expire_seconds=self.expire_seconds,
        )


def _help(column: str | None) -> str:
    return "Records that Muxly delivers." if column is None else f"Column {column} of the records that Muxly delivers."


def _metric(name: str, given: Metric) -> MetricDefinition:
    from muxly_routers.prometheus.options import MetricDefinition, MetricKind

    counter: MetricKind = "totals" if given.cumulative else "increments"
    return MetricDefinition(
        name=name,
        column=given.column,
        labels=tuple(sorted(options.columns_by_label(given.labels).items())),
        kind="gauge" if given.type == "gauge" else counter,
        help=given.help or _help(given.column),
        unit=given.unit,
        timestamp=given.timestamp,
    )


@muxly.hookimpl
def muxly_router() -> type[Prometheus]:
    """The router of this module."""
    return Prometheus
