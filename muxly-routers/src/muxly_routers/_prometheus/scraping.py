"""The HTTP server of a scrape endpoint: it answers ``GET /metrics``, and nothing else."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Protocol, cast

from attrs import frozen

import muxly
from muxly_routers._prometheus.exposition import CONTENT_TYPES, Format

__all__ = ["Address", "Server", "Source", "listening", "preferred_format"]

_CONNECTIONS = 32
_IDLE_SECONDS = 15.0


class Source(Protocol):
    """What is served."""

    def admits(self, authorization: str) -> bool:
        """Whether who sends this header may read."""

    def content(self, format: Format, *, compressed: bool) -> bytes:
        """What a scraper gets."""


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


class Server(ThreadingHTTPServer):
    """Answers a limited number of connections at once; more are closed at the door."""

    daemon_threads = True
    request_queue_size = 2 * _CONNECTIONS
    block_on_close = False
    source: Source

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


def listening(address: Address, source: Source) -> Server:
    """A server that listens at an address, and answers once it serves.

    Raises:
        ConfigurationError: The address is not one of this machine, or may not be used.
        RouteError: Another program listens there.
    """
    try:
        family, *_, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = Server((str(place[0]), int(place[1])), family)
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
    server.source = source
    return server


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "muxly"
    sys_version = ""
    timeout: ClassVar[float] = _IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with the metrics."""
        source = cast("Server", self.server).source
        if self.path.partition("?")[0] != "/metrics":
            self._plain(HTTPStatus.NOT_FOUND, "the metrics are at /metrics\n")
        elif not source.admits(self.headers.get("Authorization", "")):
            self._plain(HTTPStatus.UNAUTHORIZED, "not for everybody\n", {"WWW-Authenticate": "Bearer"})
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
