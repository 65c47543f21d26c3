"""The scrape endpoint: an HTTP server that answers ``GET /metrics`` for all routes that listen at one address.

It lives as long as runs of this process hold it. Each connection has a thread of its own, so their number and
the time of every step, asking and being answered, are bounded: a client that sends a byte now and then would
otherwise keep a thread forever, and enough of them would lock every scraper out.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hmac
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, cast

from attrs import frozen

import muxly
from muxly_routers.prometheus.exposition import CONTENT_TYPES, ExpositionFormat, MetricFamily, PublishedSeries, render
from muxly_routers.prometheus.options import StreamKey
from muxly_routers.run_metrics import Operations

__all__ = [
    "EndpointOutlet",
    "ListenAddress",
    "ScrapeConnections",
    "ScrapeEndpoint",
    "ScrapeServer",
    "listening",
    "preferred_format",
]


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
        self._published = PublishedSeries()
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

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily], expire_seconds: float | None) -> None:
        """Show these series of a stream, and no others.

        Raises:
            RouteError: Another route shows a metric of that name that is of another kind.
        """
        with self._lock:
            self._published.publish(stream_key, families, expire_seconds)
            self._rendered.clear()

    def content(self, format: ExpositionFormat, *, compressed: bool) -> bytes:
        """The document for a scraper."""
        with self._lock:
            lasting = self.operations is None and self._published.lasting
            if lasting and (known := self._rendered.get((format, compressed))) is not None:
                return known
            content = self._operations_text(format) + render(self._published.merged(time.time()), format)
            content = gzip.compress(content, 1, mtime=0) if compressed else content
            if lasting:
                self._rendered[format, compressed] = content
            return content

    def _operations_text(self, format: ExpositionFormat) -> bytes:
        if self.operations is None:
            return b""
        return self.operations.openmetrics() if format == "openmetrics" else self.operations.text()

    @property
    def challenge(self) -> str:
        """The header ``WWW-Authenticate`` for a client that may not read."""
        scheme = "" if self._authorization is None else self._authorization.reveal().partition(" ")[0]
        return f'{scheme} realm="muxly"'

    def admits(self, authorization: str) -> bool:
        """Return whether the sender of this header may read."""
        if self._authorization is None:
            return True
        return hmac.compare_digest(self._authorization.reveal().encode(), authorization.encode("utf-8", "replace"))

    def asks_for(self, authorization: muxly.Secret | None) -> bool:
        """Return whether this is the header that scrapers must send."""
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

    def publish(self, stream_key: StreamKey, families: Sequence[MetricFamily]) -> None:
        """Show these series of a stream, and no others."""
        self.endpoint.publish(stream_key, families, self.expire_seconds)

    def check(self) -> Iterable[muxly.Notice]:
        """It listens already."""
        return ()

    def close(self) -> None:
        """The endpoint stays open while a run holds it."""


_CONNECTIONS = 32
_STEP_SECONDS = 15.0
_HEAD_BYTES = 16 << 10


@frozen
class ListenAddress:
    """A host and port to listen at.

    Args:
        host: A name or an address.
        port: 0 = any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def preferred_format(accept: str) -> ExpositionFormat:
    """The format that a scraper prefers, by its header ``Accept``; the text format if it does not say."""
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
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


class ScrapeServer(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, as long as it asks and takes in reasonable time."""

    daemon_threads = True
    request_queue_size = 2 * _CONNECTIONS
    block_on_close = False
    endpoint: ScrapeEndpoint

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self.connections = ScrapeConnections(_CONNECTIONS, _STEP_SECONDS)
        super().__init__(address, _ScrapeRequest)

    def server_bind(self) -> None:
        """Bind, without asking the resolver for this machine's name as the standard library does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take it in; whoever has been at it longest makes room."""
        self.connections.enter(request)
        return True

    def service_actions(self) -> None:
        """Cut late connections; called at each turn of the server."""
        self.connections.expire()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, whatever became of it."""
        self.connections.leave(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, and close the connections: one that is kept open would be shown old series forever."""
        super().server_close()
        self.connections.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is none of our business; any other error is."""
        error = sys.exception()
        if not isinstance(error, OSError):
            logging.getLogger(__name__).error("a scrape could not be answered", exc_info=error)


def listening(address: ListenAddress, endpoint: ScrapeEndpoint) -> ScrapeServer:
    """A server that listens at an address, and answers once it serves.

    Raises:
        ConfigurationError: The address is not one of this machine, or may not be used.
        RouteError: Another program listens there.
    """
    try:
        family, *_, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = ScrapeServer((str(place[0]), int(place[1])), family)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise muxly.RouteError(
                f"cannot listen at {address}: another program does; end it, or choose another port"
            ) from error
        cause = getattr(error, "strerror", None) or error
        raise muxly.ConfigurationError(
            f"cannot listen at {address}: {cause}; choose an address of this machine and a port that this user may use",
            path=("listen",),
        ) from error
    server.endpoint = endpoint
    return server


class _RequestHead:
    """Limits the length of a request's head."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file, self.left = file, 0

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise LineTooLong("head of the request")
        return line

    def close(self) -> None:
        self._file.close()


class _ScrapeRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "muxly"
    sys_version = ""

    def setup(self) -> None:
        """Bound what is read."""
        super().setup()
        self._head = _RequestHead(self.rfile)
        self.rfile = cast("Any", self._head)

    def handle_one_request(self) -> None:
        """Read a request and answer it, unless the server ends."""
        self._head.left = _HEAD_BYTES
        self.close_connection = True
        if self._connections.asks(self.connection):
            with contextlib.suppress(LineTooLong):  # not even its first line ends
                super().handle_one_request()

    @property
    def _connections(self) -> ScrapeConnections:
        return cast("ScrapeServer", self.server).connections

    def do_GET(self) -> None:
        """Answer with the metrics."""
        self._connections.is_answered(self.connection)
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body is not read, and is no next request
        endpoint = cast("ScrapeServer", self.server).endpoint
        if self.path.partition("?")[0] != "/metrics":
            self._plain(HTTPStatus.NOT_FOUND, "the metrics are at /metrics\n")
        elif not endpoint.admits(self.headers.get("Authorization", "")):
            self._plain(HTTPStatus.UNAUTHORIZED, "not foreverybody\n", {"WWW-Authenticate": endpoint.challenge})
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


@frozen
class _ConnectionStep:
    """Since when a connection asks, or is answered."""

    since: float
    answered: bool = False


class ScrapeConnections:
    """Bounds their number, and the time of each step: to ask, and to be answered; thread-safe.

    Args:
        most: So many at once.
        step_seconds: A connection that takes longer is cut, however often it sends a byte.
    """

    def __init__(self, most: int, step_seconds: float) -> None:
        self._most, self._step_seconds = most, step_seconds
        self._open: dict[socket.socket, _ConnectionStep] = {}  # the one that has been at its step longest comes first
        self._closed = False
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket) -> None:
        """It has come, and will ask."""
        with self._lock:
            if len(self._open) >= self._most:
                self._cut(next(iter(self._open)))
            self._open[connection] = _ConnectionStep(time.monotonic())

    def asks(self, connection: socket.socket) -> bool:
        """Its next request is read from now on; False if there is to be none."""
        return self._turn(connection, answered=False)

    def is_answered(self, connection: socket.socket) -> None:
        """Its request is there, and is answered from now on."""
        self._turn(connection, answered=True)

    def _turn(self, connection: socket.socket, *, answered: bool) -> bool:
        with self._lock:
            known = self._open.pop(connection, None)
            if known is not None:
                self._open[connection] = _ConnectionStep(time.monotonic(), answered)
            return known is not None and not self._closed

    def leave(self, connection: socket.socket) -> None:
        """It is about to be closed; afterwards nobody touches it."""
        with self._lock:
            self._open.pop(connection, None)

    def expire(self) -> None:
        """Cut those whose step takes too long."""
        with self._lock:
            late = time.monotonic() - self._step_seconds
            for connection in [connection for connection, step in self._open.items() if step.since < late]:
                self._cut(connection)

    def close(self) -> None:
        """Cut those that are not being answered; the others end with their answer."""
        with self._lock:
            self._closed = True
            for connection in [connection for connection, step in self._open.items() if not step.answered]:
                self._cut(connection)

    def _cut(self, connection: socket.socket) -> None:
        """Wake whoever reads from it or writes to it, who then closes it."""
        del self._open[connection]
        with contextlib.suppress(OSError):  # it went away by itself
            connection.shutdown(socket.SHUT_RDWR)
