"""Connections: sites, proxies, checked addresses, and no operation that outlasts its request's deadline."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

import muxly
from muxly_routers._http import egress

__all__ = [
    "Deadline",
    "GuardedNetwork",
    "TlsRefusedError",
    "UntrustedCertificateError",
    "checked_url",
    "proxy_of",
    "site",
]

_STEP_SECONDS = 0.25


class TlsRefusedError(httpcore2.ConnectError):
    """TLS is not possible with that server, whenever it is tried; the message says why."""


class UntrustedCertificateError(TlsRefusedError):
    """The server's certificate cannot be trusted.

    Args:
        reason: The verifier's words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"its certificate cannot be trusted: {reason}; if an authority of your own has signed it, "
            "name that authority in tls: {ca: ...}"
        )
        self.reason = reason


class Deadline:
    """When the request that this thread makes has to be over; each thread has its own.

    A server that sends a byte a second keeps within every limit for a single operation; only a
    limit for all of them together ends such a request.

    Args:
        stopping: Whether nobody wants to wait any longer.
        grace_seconds: How long a request that is on its way is waited for all the same.
    """

    def __init__(self, stopping: Callable[[], bool] = lambda: False, grace_seconds: float = 0.0) -> None:
        self._local = threading.local()
        self._stopping, self._grace_seconds = stopping, grace_seconds

    def start(self, seconds: float) -> None:
        """A request begins."""
        self._local.at = time.monotonic() + seconds
        self._local.stopped = False

    def left(self, timeout: float | None) -> float:
        """Seconds that the next operation may take.

        Raises:
            httpcore2.ReadTimeout: The time is over.
        """
        now = time.monotonic()
        if not self._local.stopped and self._stopping():
            self._local.stopped = True
            self._local.at = min(self._local.at, now + self._grace_seconds)
        left: float = self._local.at - now
        if left <= 0:
            raise httpcore2.ReadTimeout(
                "no answer since the run was asked to stop"
                if self._local.stopped
                else "no whole answer within total_seconds"
            )
        return left if timeout is None else min(left, timeout)


class GuardedNetwork(httpcore2.NetworkBackend):
    """Resolves a name, checks all its addresses, and connects to one of those that were checked.

    TLS goes on with the name, so that the certificate is still checked against it.

    Args:
        guard: What may be connected to.
        deadline: Of the requests.
        lookup: Resolves names; default the system's resolver.
    """

    def __init__(self, guard: egress.Guard, deadline: Deadline, lookup: egress.Lookup | None = None) -> None:
        self._guard, self._deadline, self._lookup = guard, deadline, lookup

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address that answers."""
        try:
            found = egress.addresses(host, port, self._guard, self._lookup)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
        problem: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in found:
            try:
                return _DeadlineStream(self._connected(address, port, timeout), self._deadline)
            except TimeoutError:
                problem = httpcore2.ConnectTimeout(f"{host} did not take the connection at port {port} in time")
            except OSError as error:
                problem = httpcore2.ConnectError(f"no connection to {host}, port {port}: {error.strerror or error}")
        raise problem

    def _connected(self, address: str, port: int, timeout: float | None) -> socket.socket:
        connected = socket.create_connection((address, port), self._deadline.left(timeout))
        try:
            self._deadline.left(timeout)  # nothing is sent over a connection that came too late
        except httpcore2.TimeoutException:
            connected.close()
            raise
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A connection that a firewall forgot is noticed before the next request relies on it.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connected


class _DeadlineStream(httpcore2.NetworkStream):
    """A connection that looks at the deadline before each operation."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = connected, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._wait(timeout)
        self._socket.settimeout(self._deadline.left(timeout))
        try:
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise _error_from(error, httpcore2.ReadError) from error

    def _wait(self, timeout: float | None) -> None:
        """Wait until something can be read or the time is over, in steps, to notice that the run stops."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return
        until = time.monotonic() + self._deadline.left(timeout)
        while not _is_readable(self._socket, min(_STEP_SECONDS, self._deadline.left(timeout))):
            if time.monotonic() >= until:
                return

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        try:
            while rest:
                self._socket.settimeout(self._deadline.left(timeout))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise httpcore2.WriteTimeout("the request was not taken in time") from error
        except OSError as error:
            raise _error_from(error, httpcore2.WriteError) from error

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        # ssl holds one limit for the whole handshake, however many messages it has.
        self._socket.settimeout(self._deadline.left(timeout))
        try:
            secured = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise httpcore2.ConnectTimeout("the TLS handshake did not end in time") from error
        except OSError as error:
            self.close()
            raise _error_from(error, httpcore2.ConnectError) from error
        return _DeadlineStream(secured, self._deadline)

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Answer httpcore's questions about a connection."""
        if info == "ssl_object":
            return getattr(self._socket, "_sslobj", None)
        if info == "is_readable":
            return _is_readable(self._socket)
        return self._socket if info == "socket" else None


def _error_from(error: OSError, kind: type[Exception]) -> Exception:
    """The error to raise: an end or a reset may be chance, a refusal of TLS is not."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UntrustedCertificateError(error.verify_message)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TlsRefusedError(f"TLS is not possible: {error.reason or error}; look at the URL and at tls:")
    return kind(str(error.strerror or error))


def _is_readable(connected: socket.socket, seconds: float = 0.0) -> bool:
    """Return whether something comes in time; on an idle connection that is mostly its end."""
    if connected.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def site(url: str | httpx2.URL) -> str:
    """Scheme, host and port of a URL: what may be shown of one whose path may be a secret."""
    parts = httpx2.URL(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.host}{port}"


def checked_url(url: str | muxly.Secret) -> httpx2.URL:
    """A URL that requests can be made to.

    Raises:
        ConfigurationError: It is none; neither the message nor this frame shows it, for it may be a secret.
    """
    problem = _problem(_text(url))
    if problem is not None:
        raise muxly.ConfigurationError(problem, path=("url",))
    return httpx2.URL(_text(url))


def _text(url: str | muxly.Secret) -> str:
    return url if isinstance(url, str) else url.reveal()


def _problem(url: str) -> str | None:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        return f"this is not a URL: {error}"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return "this is not a URL that begins with http:// or https:// and names a host"
    if parsed.userinfo:
        return "a user or password in the URL is not sent and shows in logs; use basic or bearer"
    return None


def proxy_of(url: httpx2.URL) -> httpcore2.Proxy | None:
    """The proxy that the environment names for that URL, as curl and most programs take it.

    Raises:
        ConfigurationError: It names one that cannot be used.
    """
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    if not found or proxy_bypass(f"{url.host}:{url.port or ''}".rstrip(":")):
        return None
    proxy = _parsed(found if "://" in found else f"http://{found}")
    if proxy is None or proxy.scheme not in ("http", "https") or not proxy.host:
        kind = "that is not a URL" if proxy is None else f"with {proxy.scheme}://, which is not supported"
        raise muxly.ConfigurationError(
            f"the environment names a proxy {kind}; use one with http:// or https://, or put {url.host} into NO_PROXY",
            path=("url",),
        )
    auth = (proxy.username, proxy.password) if proxy.userinfo else None
    return httpcore2.Proxy(str(proxy.copy_with(userinfo=b"")), auth=auth)


def _parsed(url: str) -> httpx2.URL | None:
    try:
        return httpx2.URL(url)
    except httpx2.InvalidURL:
        return None
