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

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

import muxly
from muxly_routers._prometheus.exposition import Exposed, Format, render
from muxly_routers._prometheus.scraping import Address, Server, listening
from muxly_routers._prometheus.series import grouped, joined
from muxly_routers._prometheus.settings import Metric, Unit

if TYPE_CHECKING:
    from muxly_routers._prometheus.operations import Operations

__all__ = ["Endpoint", "Listening"]


@frozen
class _Shown:
    """The series of one stream, and after how many seconds without a report one is left out."""

    exposed: tuple[Exposed, ...]
    expire_seconds: float | None


class Endpoint:
    """Listens at one address, and shows what was published last of each stream.

    Args:
        address: Where to listen.
        authorization: The value of the header that a scraper must send; None = anybody may read.

    Raises:
        ConfigurationError: The address is not one of this machine, or may not be used.
        RouteError: Another program listens there.
    """

    def __init__(self, address: Address, authorization: muxly.Secret | None = None) -> None:
        self._authorization = authorization
        self._shown: dict[Unit, _Shown] = {}
        self._rendered: dict[tuple[Format, bool], bytes] = {}
        self.operations: Operations | None = None
        self._lock = threading.Lock()
        self._server: Server = listening(address, self)
        self.port: int = self._server.server_address[1]
        # A short poll: closing waits for it.
        serve = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"muxly-metrics-{self.port}", daemon=True
        )
        serve.start()

    def publish(self, unit: Unit, exposed: Sequence[Exposed], expire_seconds: float | None) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RouteError: Another stream shows a metric of that name that is of another kind.
        """
        with self._lock:
            self._refuse_other_kinds(unit, exposed)
            self._shown[unit] = _Shown(tuple(exposed), expire_seconds)
            self._rendered.clear()

    def _refuse_other_kinds(self, unit: Unit, exposed: Sequence[Exposed]) -> None:
        new = {one.metric.family: one.metric for one in exposed}
        for other, shown in self._shown.items():
            for known in (one.metric for one in shown.exposed if other != unit):
                mine = new.get(known.family)
                if mine and (mine.is_counter, mine.unit) != (known.is_counter, known.unit):
                    raise muxly.RouteError(
                        f"metric {mine.name!r} of stream {unit.stream!r} differs in type or unit from the one of "
                        f"route {other.route!r} of pipeline {other.pipeline!r}, which is shown at the same address; "
                        "name one of them otherwise"
                    )

    def content(self, format: Format, *, compressed: bool) -> bytes:
        """What a scraper gets."""
        with self._lock:
            shown = [self._shown[unit] for unit in sorted(self._shown, key=_order)]
            lasting = self.operations is None and all(one.expire_seconds is None for one in shown)
            if lasting and (known := self._rendered.get((format, compressed))) is not None:
                return known
            made = self._of_operations(format) + render(_together(shown, time.time()), format)
            made = gzip.compress(made, 1, mtime=0) if compressed else made
            if lasting:
                self._rendered[format, compressed] = made
            return made

    def _of_operations(self, format: Format) -> bytes:
        if self.operations is None:
            return b""
        return self.operations.openmetrics() if format == "openmetrics" else self.operations.text()

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


def _order(unit: Unit) -> tuple[str, str, str]:
    return unit.pipeline, unit.route, unit.stream


def _together(shown: Sequence[_Shown], now: float) -> list[Exposed]:
    """Each metric once, with the series of all streams; of a label set in several streams only one."""
    metrics: dict[str, Metric] = {}
    tables: dict[str, list[pa.Table]] = {}
    for one in shown:
        for exposed in one.exposed:
            metrics.setdefault(exposed.metric.family, exposed.metric)
            tables.setdefault(exposed.metric.family, []).extend(_unexpired(exposed, one.expire_seconds, now))
    return [Exposed(metric, _distinct(tables[name])) for name, metric in metrics.items()]


def _unexpired(exposed: Exposed, expire_seconds: float | None, now: float) -> list[pa.Table]:
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


@frozen
class Listening:
    """The way out of one route through an endpoint that it may share.

    Args:
        endpoint: Where the series are shown.
        expire_seconds: After how many seconds without a report a series is left out, also between deliveries.
    """

    endpoint: Endpoint
    expire_seconds: float | None

    def publish(self, unit: Unit, exposed: Sequence[Exposed]) -> None:
        """Show these series of a stream, and no others."""
        self.endpoint.publish(unit, exposed, self.expire_seconds)

    def check(self) -> Iterable[muxly.Notice]:
        """It listens already."""
        return ()

    def close(self) -> None:
        """The endpoint stays open while a run holds it."""
