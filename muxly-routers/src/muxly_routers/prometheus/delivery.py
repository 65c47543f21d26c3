"""Deliveries to outlets that show the newest series: a text file, the scrape endpoint, a Pushgateway.

The order of steps makes a repeat harmless: the series are read from where they are kept, the records merged
into them, the result kept with the delivery's id, and then published. A crash between the last two steps brings
the same delivery again; it is known by its id, so nothing is counted twice, and is only published once more.
Where the ledger keeps the series, they are published first and kept with the acknowledgement.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

import muxly
from muxly_routers import run_metrics
from muxly_routers._failures import needs
from muxly_routers._http import credentials
from muxly_routers.prometheus import options
from muxly_routers.prometheus.endpoint import EndpointOutlet, ListenAddress, ScrapeEndpoint
from muxly_routers.prometheus.exposition import MetricFamily
from muxly_routers.prometheus.files import SavedSeries, SeriesFiles, TextfileOutlet
from muxly_routers.prometheus.merging import MergeResult, merge, report_omissions
from muxly_routers.prometheus.options import OWN, MetricDefinition, PrometheusOptions, PrometheusSettings, StreamKey
from muxly_routers.prometheus.pushgateway import PushgatewayOutlet
from muxly_routers.prometheus.remote_write import RemoteWriteClient, RemoteWriteDelivery
from muxly_routers.prometheus.samples import SampleReader, constant, label_text
from muxly_routers.prometheus.series import StreamSeries

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient

__all__ = ["Outlet", "OutletDelivery", "open_delivery"]

_ALWAYS = (1 << 63) - 1
"""When a series that never expires was last reported."""

_DROPPED = MetricDefinition(
    name=f"{OWN}_total",
    column=None,
    kind="totals",
    help="Updates that Muxly left out because a stream has more than max_series series.",
)


class Outlet(Protocol):
    """An outlet: shows series to whoever reads them."""

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others; shown for good on return."""

    def check(self) -> Iterable[muxly.Notice]:
        """Check that it can be reached."""

    def close(self) -> None:
        """Release everything it holds."""


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
        stream_key = self._stream_key(delivery.stream)
        if self._folder is None:
            merged = self._merged(StreamSeries.from_state(delivery.state), delivery, stream_key)
            state = merged.series.to_ledger_state(stream_key.stream)
            self._publish(stream_key, merged.series)
            return muxly.Receipt(merged.rejected, state=state)
        files = SeriesFiles(self._folder, stream_key, self._run.token)
        merged = self._merge_into_files(files, delivery, stream_key)
        if delivery.mode != "replace":
            self._publish(stream_key, merged.series)
        return muxly.Receipt(merged.rejected)

    def _merge_into_files(self, files: SeriesFiles, delivery: muxly.Delivery, stream_key: StreamKey) -> MergeResult:
        """Merge into what the folder keeps, unless it holds this very delivery already."""
        visible = files.visible()
        before, generation = visible, visible.generation
        if delivery.mode == "replace":
            generation = delivery.generation or 0
            before = files.growing(generation) or (visible if visible.generation == generation else SavedSeries())
        known = before.series.delivery == delivery.id
        merged = self._merged(before.series, delivery, stream_key, known=known)
        kept = SavedSeries(merged.series, generation)
        if delivery.mode == "replace":
            files.grow(kept)
        elif not known:
            files.show(kept)
        return merged

    def _merged(
        self, series: StreamSeries, delivery: muxly.Delivery, stream_key: StreamKey, *, known: bool = False
    ) -> MergeResult:
        now = time.time()
        if self._settings.expire_seconds is not None:
            series = series.unexpired(int(now - self._settings.expire_seconds))
        reader = SampleReader(stream_key, self._settings, _text, int(now))
        merged = merge(series, delivery, reader, labels=pa.string(), known=known)
        report_omissions(
            self._run, stream_key.stream, self._settings.max_series, nulls=merged.nulls, dropped=merged.dropped
        )
        return merged

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Drop what an older, never completed generation left."""
        self._files_of(stream).drop_growing(before=generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show the generation's series.

        Raises:
            ConflictError: A newer generation is visible.
        """
        files = self._files_of(stream)
        visible = files.visible()
        if visible.generation > generation:
            raise muxly.ConflictError(
                f"stream {stream.name!r} shows generation {visible.generation}; {generation} is older"
            )
        whole = files.growing(generation) or (visible if visible.generation == generation else SavedSeries())
        files.show(SavedSeries(whole.series, generation))
        self._publish(self._stream_key(stream), whole.series)
        files.drop_growing(before=generation + 1)

    def _files_of(self, stream: muxly.Stream) -> SeriesFiles:
        if self._folder is None:
            raise muxly.ConfigurationError(
                "a route in mode replace keeps the series of a read that is not complete in a folder; write "
                "`keep: FOLDER`",
                path=("keep",),
            )
        return SeriesFiles(self._folder, self._stream_key(stream), self._run.token)

    def _stream_key(self, stream: muxly.Stream) -> StreamKey:
        return StreamKey(self._run.pipeline, self._run.route or "", stream.name)

    def _publish(self, stream_key: StreamKey, series: StreamSeries) -> None:
        families = [
            MetricFamily(metric, [series.families[metric.name].table])
            for metric in self._settings.metrics
            if metric.name in series.families
        ]
        if series.dropped:
            families.append(MetricFamily(_DROPPED, [_dropped(stream_key, series.dropped)]))
        self._outlet.publish(stream_key, families)

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the outlet can be reached."""
        return self._outlet.check()

    def close(self) -> None:
        """Close the outlet."""
        self._outlet.close()


def _text(metric: MetricDefinition, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    return label_text(columns, count)


def _dropped(stream_key: StreamKey, count: int) -> pa.Table:
    names = (("pipeline", stream_key.pipeline), ("route", stream_key.route), ("stream", stream_key.stream))
    labels = ",".join(filter(None, (constant(*pair) for pair in names)))
    return pa.table(
        {"labels": [labels], "value": [count], "time": pa.nulls(1, pa.int64()), "seen": pa.array([_ALWAYS])}
    )


def open_delivery(
    router: PrometheusOptions, run: muxly.Run, settings: PrometheusSettings
) -> OutletDelivery | RemoteWriteDelivery:
    """Open the outlet that the options choose.

    Raises:
        ConfigurationError: An option turned out to be wrong.
        RouteError: Another program listens at the address.
    """
    if router.remote_write is not None:
        client = _client(router, router.remote_write, run, "remote_write")
        return RemoteWriteDelivery(
            run, settings, RemoteWriteClient(client, router.remote_write, _authorization(router))
        )
    return OutletDelivery(run, settings, _outlet(router, run), _state_folder(router))


def _state_folder(router: PrometheusOptions) -> Path | None:
    """The folder in which the series are kept; None = in the ledger."""
    if router.keep is not None:
        return router.keep.absolute()
    return None if router.textfile is None else router.textfile.absolute() / ".muxly"


def _outlet(router: PrometheusOptions, run: muxly.Run) -> Outlet:
    if router.textfile is not None:
        return TextfileOutlet(router.textfile.absolute(), run.token)
    if router.listen is not None:
        return _endpoint_outlet(router, run, ListenAddress(*options.parse_address(router.listen)))
    assert router.pushgateway is not None
    return PushgatewayOutlet(
        _client(router, router.pushgateway, run, "pushgateway"),
        router.pushgateway,
        _authorization(router),
        job=router.job or run.pipeline,
        stream_label=router.stream_label or "stream",
        grouping=router.grouping,
    )


def _endpoint_outlet(router: PrometheusOptions, run: muxly.Run, address: ListenAddress) -> EndpointOutlet:
    wanted = _authorization(router)
    local = _is_local(address.host)
    if not local and run.guarded:
        raise muxly.ConfigurationError(
            f"{address} is open to the network, and this pipeline was not written by the operator; listen at 127.0.0.1",
            path=("listen",),
        )
    if not local and wanted is None:
        raise muxly.ConfigurationError(
            f"{address} is open to the network; say with `bearer` or `basic` who may read, or listen at 127.0.0.1",
            path=("listen",),
        )
    endpoint = run.shared(f"muxly_routers.prometheus {address}", lambda: ScrapeEndpoint(address, wanted))
    if not endpoint.asks_for(wanted):
        raise muxly.ConfigurationError(
            f"another route listens at {address} with other `bearer` or `basic`; give both the same, or choose another "
            "port",
            path=("listen",),
        )
    if router.operations:
        endpoint.operations = run_metrics.of_all_runs()
    return EndpointOutlet(endpoint, router.expire_seconds)


def _is_local(host: str) -> bool:
    """Return whether only this machine can reach it; a name may lead anywhere, whatever it begins with."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _authorization(router: PrometheusOptions) -> muxly.Secret | None:
    """The header that says who we are, or who may read; a secret, as what it is made of."""
    if router.bearer is not None:
        return muxly.Secret(f"Bearer {router.bearer.reveal()}")
    if router.basic is not None:
        return muxly.Secret(credentials.basic_authorization(router.basic.user, router.basic.password))
    return None


def _client(router: PrometheusOptions, url: muxly.Secret, run: muxly.Run, option: str) -> HttpClient:
    with needs("prometheus"):
        from muxly_routers._http.client import HttpClient, HttpLimits
    from muxly_routers._http.egress import Guard

    limits = HttpLimits(total_seconds=router.timeout_seconds)
    try:
        return HttpClient(url.reveal(), limits=limits, tls=router.tls, guard=Guard.of_machine(on=run.guarded))
    except muxly.ConfigurationError as error:
        if error.path == ("url",):
            raise muxly.ConfigurationError(f"{option}: {error}", path=(option,)) from None
        raise
