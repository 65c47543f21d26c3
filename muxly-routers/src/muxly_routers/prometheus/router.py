"""The router ``prometheus``: numbers in columns become metrics that Prometheus scrapes or receives.

A stream's series follow from its log alone: of a gauge the newest value of each label set, of a counter
the sum of its increments up to the place that was counted last. A delivery that comes again changes
nothing, whichever way out is used: ``textfile``, ``listen``, ``pushgateway`` or ``remote_write``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

import muxly
from muxly_routers._http.tls import Tls
from muxly_routers.prometheus import checks, names
from muxly_routers.prometheus.operations import Operations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers.prometheus.collect import OutletDelivery
    from muxly_routers.prometheus.push import RemoteWriteDelivery
    from muxly_routers.prometheus.settings import MetricDefinition, PrometheusSettings

__all__ = ["Basic", "Metric", "Operations", "Prometheus"]


class Metric(muxly.Options):
    """A metric and the columns that it is made from."""

    column: str | None = muxly.option(
        "Column with its values: numbers, booleans, times or durations (in seconds); a counter without one counts "
        "the records.",
        default=None,
    )
    labels: list[str] | dict[str, str] = muxly.option(
        "Columns that become labels: a list of columns, or a mapping of label to column.",
        factory=list,
        validator=checks.labels,
    )
    type: Literal["gauge", "counter"] = muxly.option(
        "gauge shows the newest value of each label set; counter adds the values up.", default="gauge"
    )
    cumulative: bool = muxly.option(
        "For a counter: whether the column holds totals already, which are not added up.", default=False
    )
    help: str = muxly.option("One line that says what it is; default: which column it is made from.", default="")
    unit: str = muxly.option(
        "Unit, such as seconds or bytes; the metric's name must end in it.", default="", validator=checks.unit
    )
    timestamp: str | None = muxly.option(
        "Column with the times of the values, for listen and remote_write; default: they are of now.", default=None
    )


class Basic(muxly.Options):
    """A user and a password."""

    user: str = muxly.option("Name of the user.")
    password: muxly.Secret = muxly.option("Password of the user.")


class Prometheus(muxly.Router):
    """Turns columns into metrics, for Prometheus to scrape or receive."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "replace"})
    promise: ClassVar[muxly.Promise] = "idempotent"

    _delivering: OutletDelivery | RemoteWriteDelivery | None = None

    metrics: dict[str, Metric] = muxly.option("Metrics by name, each made from a column.", validator=checks.metrics)
    textfile: Path | None = muxly.option(
        "Folder that the node exporter's textfile collector reads; each stream gets a file there.", default=None
    )
    listen: str | None = muxly.option(
        "HOST:PORT of a scrape endpoint in this process, such as 127.0.0.1:9464; the metrics are at /metrics.",
        default=None,
        validator=checks.listen,
    )
    pushgateway: muxly.Secret | None = muxly.option(
        "URL of a Pushgateway; each stream is a group there, replaced as a whole.", default=None
    )
    remote_write: muxly.Secret | None = muxly.option(
        "URL that takes remote write, such as http://127.0.0.1:9090/api/v1/write.", default=None, validator=checks.ways
    )
    keep: Path | None = muxly.option(
        "Folder where the series are kept between runs, for more of them than the ledger holds and for mode replace; "
        "default: the ledger, for textfile the folder .muxly in it.",
        default=None,
    )
    stream_label: str = muxly.option(
        "Label that tells the streams of a route apart, with the stream's name; empty = none.",
        default="stream",
        validator=checks.stream_label,
    )
    max_series: int = muxly.option(
        "Most series of one stream; further ones are left out and counted.",
        default=10_000,
        validator=attrs.validators.ge(1),
    )
    expire_seconds: float | None = muxly.option(
        "How long a series that no record reports any more is still shown; default: for ever.",
        default=None,
        validator=attrs.validators.optional(attrs.validators.gt(0)),
    )

    operations: bool = muxly.option(
        "For listen: whether Muxly's own metrics are shown too, of all runs of this process.", default=False
    )
    job: str | None = muxly.option("For pushgateway: the job; default: the pipeline's name.", default=None)
    grouping: dict[str, str] = muxly.option(
        "For pushgateway: more labels of the groups, beside job, route and stream.",
        factory=dict,
        validator=checks.grouping,
    )
    bearer: muxly.Secret | None = muxly.option(
        "Token to send to pushgateway or remote_write, or to ask of who reads at listen.", default=None
    )
    basic: Basic | None = muxly.option("User and password, used like bearer.", default=None)
    tls: Tls = muxly.option("Certificates for pushgateway and remote_write.", factory=Tls)
    timeout_seconds: float = muxly.option(
        "Longest time of one request to pushgateway or remote_write.",
        default=30.0,
        validator=attrs.validators.gt(0),
    )

    def __attrs_post_init__(self) -> None:
        """What has no folder to grow a generation in has no mode replace."""
        if self.textfile is None and self.keep is None:
            vars(self)["modes"] = frozenset({"append"})

    def open(self, run: muxly.Run) -> None:
        """Get the way out ready; ``listen`` listens from now on."""
        self.close()
        self._run = run
        if self.listen is not None:
            self._opened()

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the destination can be reached."""
        return self._opened().check()

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Merge the delivery's records into the series of its stream, and show them."""
        return self._opened().deliver(delivery)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation out of sight."""
        self._opened().begin(stream, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show the series of the generation, and no others."""
        self._opened().complete(stream, generation)

    def close(self) -> None:
        """Let go of everything."""
        delivering, self._delivering = self._delivering, None
        if delivering is not None:
            delivering.close()

    def _opened(self) -> OutletDelivery | RemoteWriteDelivery:
        # Loads pyarrow, which a pipeline with another router does not need.
        from muxly_routers.prometheus.targets import opened

        if self._delivering is None:
            self._delivering = opened(self, self._run, self._settings())
        return self._delivering

    def _settings(self) -> PrometheusSettings:
        from muxly_routers.prometheus.settings import PrometheusSettings

        return PrometheusSettings(
            metrics=tuple(_metric(name, one) for name, one in self.metrics.items()),
            stream_label=self.stream_label,
            max_series=self.max_series,
            expire_seconds=self.expire_seconds,
        )


def _help(column: str | None) -> str:
    return "Records that Muxly delivers." if column is None else f"Column {column} of the records that Muxly delivers."


def _metric(name: str, given: Metric) -> MetricDefinition:
    from muxly_routers.prometheus.settings import MetricDefinition, MetricKind

    counter: MetricKind = "totals" if given.cumulative else "increments"
    return MetricDefinition(
        name=name,
        column=given.column,
        labels=tuple(sorted(names.columns_by_label(given.labels).items())),
        kind="gauge" if given.type == "gauge" else counter,
        help=given.help or _help(given.column),
        unit=given.unit,
        timestamp=given.timestamp,
    )


@muxly.hookimpl
def muxly_router() -> type[Prometheus]:
    """The router of this module."""
    return Prometheus
