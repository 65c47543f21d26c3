"""The scrape endpoint: a small HTTP server that shows the series of all routes that listen at one address.

It answers ``GET /metrics`` and nothing else, in OpenMetrics to who asks for it and in the text format
to all others. It lives as long as runs of this process hold it.
"""

from __future__ import annotations

import errno
import gzip
import hmac
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

import muxly
from muxly_routers._prometheus.exposition import CONTENT_TYPES, Exposed, Format, render
from muxly_routers._prometheus.series import grouped, joined
from muxly_routers._prometheus.settings import Metric, Unit

if TYPE_CHECKING:
    from muxly_routers._prometheus.operations import Operations

__all__ = ["Address", "Endpoint", "Listening", "preferred_format"]

_CONNECTIONS = 32
_IDLE_SECONDS = 15.0


@frozen
class Address:
    """Where to listen.

    Args:
        host: A name or an address.
        port: 0 = any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
        self._server = _listening(address, self)
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


def preferred_format(accept: str) -> Format:
    """Which format a scraper prefers, by its header ``Accept``; the text format if it does not say."""
    weights = {"openmetrics": 0.0, "text": 0.0}
    for part in accept.split(","):
        kind, *more = (word.strip().lower() for word in part.split(";"))
        weight = _weight(more)
        if kind == "application/openmetrics-text":
            weights["openmetrics"] = max(weights["openmetrics"], weight)
        elif kind in ("text/plain", "text/*", "*/*"):
            weights["text"] = max(weights["text"], weight)
    return "openmetrics" if weights["openmetrics"] > weights["text"] else "text"


def _weight(parameters: Sequence[str]) -> float:
    for one in parameters:
        if one.startswith("q="):
            try:
                return float(one[2:])
            except ValueError:
                return 0.0
    return 1.0


class _Server(ThreadingHTTPServer):
    """Answers a limited number of connections at once; more are closed at the door."""

    daemon_threads = True
    request_queue_size = 2 * _CONNECTIONS
    block_on_close = False
    endpoint: Endpoint

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, _Answering)

    def server_bind(self) -> None:
        """Bind, without asking the resolver for this machine's name as the standard library does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, if there is room."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is no affair of ours."""


def _listening(address: Address, endpoint: Endpoint) -> _Server:
    try:
        family, *_, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = _Server((str(place[0]), int(place[1])), family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise muxly.RouteError(
                f"cannot listen at {address}: another program does; end it, or choose another port"
            ) from error
        raise muxly.ConfigurationError(
            f"cannot listen at {address}: {error.strerror or error}; choose an address of this machine and a port "
            "that this user may use",
            path=("listen",),
        ) from error
    server.endpoint = endpoint
    return server


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "muxly"
    sys_version = ""
    timeout: ClassVar[float] = _IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with the metrics."""
        endpoint = cast("_Server", self.server).endpoint
        if self.path.partition("?")[0] != "/metrics":
            self._plain(HTTPStatus.NOT_FOUND, "the metrics are at /metrics\n")
        elif not endpoint.admits(self.headers.get("Authorization", "")):
            self._plain(HTTPStatus.UNAUTHORIZED, "not for everybody\n", {"WWW-Authenticate": "Bearer"})
        else:
            format = preferred_format(self.headers.get("Accept", ""))
            compressed = _takes_gzip(self.headers.get("Accept-Encoding", ""))
            coding = {"Content-Encoding": "gzip"} if compressed else {}
            headers = {"Content-Type": CONTENT_TYPES[format], "Vary": "Accept, Accept-Encoding", **coding}
            self._send(HTTPStatus.OK, endpoint.content(format, compressed=compressed), headers)

    def __getattr__(self, name: str) -> Any:
        """Every other method is one and the same mistake."""
        if name.startswith("do_"):
            return self._only_get
        raise AttributeError(name)

    def _only_get(self) -> None:
        self.close_connection = True  # a body may follow, and is not read
        self._plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET\n", {"Allow": "GET", "Connection": "close"})

    def _plain(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, text.encode(), {"Content-Type": "text/plain; charset=utf-8", **(headers or {})})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line each."""


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.split(","):
        coding, *more = (word.strip().lower() for word in part.split(";"))
        if coding == "gzip":
            return _weight(more) > 0
    return False
