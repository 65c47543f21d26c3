"""The scrape endpoint: what all routes that listen at one address show there.

It lives as long as runs of this process hold it.
"""

from __future__ import annotations

import gzip
import hmac
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

import muxly
from muxly_routers.prometheus.exposition import ExpositionFormat, MetricFamily, render
from muxly_routers.prometheus.render import PublishedSeries
from muxly_routers.prometheus.scrape_server import ListenAddress, ScrapeServer, listening

if TYPE_CHECKING:
    from muxly_routers.prometheus.operations import Operations
    from muxly_routers.prometheus.settings import StreamKey

__all__ = ["ScrapeEndpoint", "EndpointOutlet"]


class ScrapeEndpoint:
    """Listens at one address, and shows what was published last of each stream.

    Args:
        address: Where to listen.
        authorization: The value of the header that a scraper must send; None = anybody may read.

    Raises:
        ConfigurationError: The address is not one of this machine, or may not be used.
        RouteError: Another program listens there.
    """

    def __init__(self, address: ListenAddress, authorization: muxly.Secret | None = None) -> None:
        self._authorization = authorization
        self._showing = PublishedSeries()
        self._rendered: dict[tuple[ExpositionFormat, bool], bytes] = {}
        self.operations: Operations | None = None
        self._lock = threading.Lock()
        self._server: ScrapeServer = listening(address, self)
        self.port: int = self._server.server_address[1]
        # A short poll: closing waits for it.
        serve = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"muxly-metrics-{self.port}", daemon=True
        )
        serve.start()

    def publish(self, unit: StreamKey, exposed: Sequence[MetricFamily], expire_seconds: float | None) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RouteError: Another route shows a metric of that name that is of another kind.
        """
        with self._lock:
            self._showing.publish(unit, exposed, expire_seconds)
            self._rendered.clear()

    def content(self, format: ExpositionFormat, *, compressed: bool) -> bytes:
        """What a scraper gets."""
        with self._lock:
            lasting = self.operations is None and self._showing.lasting
            if lasting and (known := self._rendered.get((format, compressed))) is not None:
                return known
            made = self._of_operations(format) + render(self._showing.together(time.time()), format)
            made = gzip.compress(made, 1, mtime=0) if compressed else made
            if lasting:
                self._rendered[format, compressed] = made
            return made

    def _of_operations(self, format: ExpositionFormat) -> bytes:
        if self.operations is None:
            return b""
        return self.operations.openmetrics() if format == "openmetrics" else self.operations.text()

    @property
    def challenge(self) -> str:
        """What to tell who may not read, as the header ``WWW-Authenticate``."""
        scheme = "" if self._authorization is None else self._authorization.reveal().partition(" ")[0]
        return f'{scheme} realm="muxly"'

    def admits(self, authorization: str) -> bool:
        """Whether who sends this header may read."""
        if self._authorization is None:
            return True
        return hmac.compare_digest(self._authorization.reveal().encode(), authorization.encode("utf-8", "replace"))

    def asks_for(self, authorization: muxly.Secret | None) -> bool:
        """Whether it is that header that scrapers must send."""
        return self._authorization == authorization

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@frozen
class EndpointOutlet:
    """The way out of one route through an endpoint that it may share.

    Args:
        endpoint: Where the series are shown.
        expire_seconds: After how many seconds without a report a series is left out, also between deliveries.
    """

    endpoint: ScrapeEndpoint
    expire_seconds: float | None

    def publish(self, unit: StreamKey, exposed: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others."""
        self.endpoint.publish(unit, exposed, self.expire_seconds)

    def check(self) -> Iterable[muxly.Notice]:
        """It listens already."""
        return ()

    def close(self) -> None:
        """The endpoint stays open while a run holds it."""
