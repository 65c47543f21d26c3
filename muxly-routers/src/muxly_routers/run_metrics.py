"""Metrics of Muxly itself: runs, records and backlog, by prometheus-client.

As an observer of runs it is a plugin of the group ``muxly.hooks``: there it costs nothing until an
endpoint of this process shows it. In Python it is given to a run: ``muxly.run(..., observers=[Operations()])``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import muxly
from muxly.pipeline import RouteResult
from muxly_routers._failures import needs

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


__all__ = ["Operations", "of_all_runs"]

_WENT = ("delivered", "rejected", "filtered", "dropped", "superseded", "quarantined")
_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 10800)


class Operations:
    """Counts what runs do; thread-safe.

    Args:
        registry: Where the metrics are registered; default one of its own, in ``registry``.

    Raises:
        PluginError: prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        with needs("prometheus"):
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        self.registry = registry = registry or CollectorRegistry()
        route = ["pipeline", "route", "stream"]
        self._lock = threading.Lock()
        self._running: dict[str, set[str]] = {}
        self._active = Gauge("muxly_runs_active", "Runs that are under way.", ["pipeline"], registry=registry)
        self._runs = Counter("muxly_runs", "Runs that have ended.", ["pipeline", "state"], registry=registry)
        self._finished = Gauge(
            "muxly_run_finished_timestamp_seconds",
            "When a run last ended in that state.",
            ["pipeline", "state"],
            registry=registry,
        )
        self._seconds = Histogram(
            "muxly_run_duration_seconds", "How long runs took.", ["pipeline"], registry=registry, buckets=_SECONDS
        )
        self._sealed = Counter(
            "muxly_records_sealed", "Records read into the spool.", ["pipeline", "stream"], registry=registry
        )
        self._bytes = Counter(
            "muxly_sealed_bytes", "Bytes of Arrow data read into the spool.", ["pipeline", "stream"], registry=registry
        )
        self._records = Counter(
            "muxly_records", "What became of a route's records.", [*route, "outcome"], registry=registry
        )
        self._pending = Gauge("muxly_records_pending", "Records that wait for a route.", route, registry=registry)
        self._failed = Counter(
            "muxly_deliveries_failed", "Routes that gave a stream up for a run.", [*route, "error"], registry=registry
        )
        self._notices = Counter(
            "muxly_notices",
            "Notices, such as that a route is stalled.",
            ["pipeline", "code", "level"],
            registry=registry,
        )

    @muxly.hookimpl
    def muxly_run_started(self, run: muxly.Run) -> None:
        """A run more is under way."""
        self._count_active(run, ended=False)

    @muxly.hookimpl
    def muxly_run_finished(self, run: muxly.Run, result: muxly.RunResult) -> None:
        """Add up what it did."""
        pipeline = result.pipeline
        self._count_active(run, ended=True)
        self._runs.labels(pipeline, result.state).inc()
        self._finished.labels(pipeline, result.state).set(result.finished_at.timestamp())
        self._seconds.labels(pipeline).observe((result.finished_at - result.started_at).total_seconds())
        for name, stream in result.streams.items():
            self._sealed.labels(pipeline, name).inc(stream.sealed)
            self._bytes.labels(pipeline, name).inc(stream.bytes)
        for route, route_result in result.routes.items():
            for name, found in route_result.streams.items():
                self._count_records((pipeline, route, name), found)

    def _count_active(self, run: muxly.Run, *, ended: bool) -> None:
        with self._lock:
            running = self._running.setdefault(run.pipeline, set())
            # A run may have begun before anybody watched.
            (running.discard if ended else running.add)(run.id)
            self._active.labels(run.pipeline).set(len(running))

    def _count_records(self, labels: tuple[str, str, str], found: RouteResult) -> None:
        for outcome in _WENT:
            if count := getattr(found, outcome):
                self._records.labels(*labels, outcome).inc(count)
        self._pending.labels(*labels).set(found.pending)

    @muxly.hookimpl
    def muxly_delivery_failed(self, run: muxly.Run, route: str, stream: str, error: Exception) -> None:
        """Count it, by the kind of error; its text may hold anything."""
        self._failed.labels(run.pipeline, route, stream, type(error).__name__).inc()

    @muxly.hookimpl
    def muxly_notice(self, run: muxly.Run, notice: muxly.Notice) -> None:
        """Count it, by its code."""
        self._notices.labels(run.pipeline, notice.code, notice.level).inc()

    def text(self) -> bytes:
        """All metrics in the text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def openmetrics(self) -> bytes:
        """All metrics in OpenMetrics, without the end of the document."""
        from prometheus_client.openmetrics import exposition

        content: bytes = exposition.generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return content.removesuffix(b"# EOF\n")


_of_all_runs: Operations | None = None
_lock = threading.Lock()


def of_all_runs() -> Operations:
    """The metrics of all runs of this process; counted from the first call on."""
    global _of_all_runs  # noqa: PLW0603 (one for the process is its purpose)
    with _lock:
        _of_all_runs = _of_all_runs or Operations()
        return _of_all_runs


@muxly.hookimpl
def muxly_run_started(run: muxly.Run) -> None:
    """Count it, if an endpoint shows it."""
    if _of_all_runs is not None:
        _of_all_runs.muxly_run_started(run)


@muxly.hookimpl
def muxly_run_finished(run: muxly.Run, result: muxly.RunResult) -> None:
    """Count it, if an endpoint shows it."""
    if _of_all_runs is not None:
        _of_all_runs.muxly_run_finished(run, result)


@muxly.hookimpl
def muxly_delivery_failed(run: muxly.Run, route: str, stream: str, error: Exception) -> None:
    """Count it, if an endpoint shows it."""
    if _of_all_runs is not None:
        _of_all_runs.muxly_delivery_failed(run, route, stream, error)


@muxly.hookimpl
def muxly_notice(run: muxly.Run, notice: muxly.Notice) -> None:
    """Count it, if an endpoint shows it."""
    if _of_all_runs is not None:
        _of_all_runs.muxly_notice(run, notice)
