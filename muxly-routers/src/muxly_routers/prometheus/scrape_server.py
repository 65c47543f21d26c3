"""The HTTP server of a scrape endpoint: it answers ``GET /metrics``, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Protocol, cast

from attrs import frozen

import muxly
from muxly_routers.prometheus.connections import ScrapeConnections
from muxly_routers.prometheus.exposition import CONTENT_TYPES, ExpositionFormat

__all__ = ["ListenAddress", "ScrapeServer", "Source", "listening", "preferred_format"]

_CONNECTIONS = 32
_STEP_SECONDS = 15.0
_HEAD_BYTES = 16 << 10


class Source(Protocol):
    """What is served."""

    @property
    def challenge(self) -> str:
        """What to tell who may not read, as the header ``WWW-Authenticate``."""

    def admits(self, authorization: str) -> bool:
        """Whether who sends this header may read."""

    def content(self, format: ExpositionFormat, *, compressed: bool) -> bytes:
        """What a scraper gets."""


@frozen
class ListenAddress:
    """Where to listen.

    Args:
        host: A name or an address.
        port: 0 = any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def preferred_format(accept: str) -> ExpositionFormat:
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


class ScrapeServer(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, as long as it asks and takes in reasonable time."""

    daemon_threads = True
    request_queue_size = 2 * _CONNECTIONS
    block_on_close = False
    source: Source

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
        """Look after the connections; called at each turn of the server."""
        self.connections.expire()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, whatever became of it."""
        self.connections.leave(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the door, and the connections: one that is kept open would be shown old series for ever."""
        super().server_close()
        self.connections.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is no affair of ours; any other mistake is."""
        error = sys.exception()
        if not isinstance(error, OSError):
            logging.getLogger(__name__).error("a scrape could not be answered", exc_info=error)


def listening(address: ListenAddress, source: Source) -> ScrapeServer:
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
    server.source = source
    return server


class _RequestHead:
    """What a client sends, of which the head of a request may be only so long."""

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
        source = cast("ScrapeServer", self.server).source
        if self.path.partition("?")[0] != "/metrics":
            self._plain(HTTPStatus.NOT_FOUND, "the metrics are at /metrics\n")
        elif not source.admits(self.headers.get("Authorization", "")):
            self._plain(HTTPStatus.UNAUTHORIZED, "not for everybody\n", {"WWW-Authenticate": source.challenge})
        else:
            format = preferred_format(self.headers.get("Accept", ""))
            compressed = _takes_gzip(self.headers.get("Accept-Encoding", ""))
            coding = {"Content-Encoding": "gzip"} if compressed else {}
            headers = {"Content-Type": CONTENT_TYPES[format], "Vary": "Accept, Accept-Encoding", **coding}
            self._send(HTTPStatus.OK, source.content(format, compressed=compressed), headers)

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
