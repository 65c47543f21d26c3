"""The connections of a client of the SDK: to addresses that were checked, and to nothing else.

The SDK resolves a name for itself, whatever it meant a moment before, and puts the bucket in front of
it where the bucket stands in the name. So what is checked is each address that is connected to.

The sockets wait in steps, so that no request outlasts a run that is asked to stop.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import muxly
from muxly_routers._http import egress

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

__all__ = ["StopGrace", "StoppableSocket", "StoppableTlsSocket", "close_client", "connecting_seconds", "guard_client"]

_CONNECT_SECONDS = 10.0


def guard_client(client: S3Client, guarding: egress.Guard) -> None:
    """Let a client make its connections here.

    Args:
        client: One that has made no request yet.
        guarding: What may be connected to.

    Raises:
        PluginError: This version of the SDK makes its connections in another way.
    """
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
    # Of proxies that the environment names too; a guarded client has none.
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = _pools(guarding)
    pool = session._manager.connection_from_url(client.meta.endpoint_url)
    if not issubclass(pool.ConnectionCls, _CheckedConnection):
        raise muxly.PluginError(
            "this version of botocore makes its connections in a way that the router s3 does not know; "
            "install the one before"
        )


def close_client(client: S3Client) -> None:
    """Close a client and all its connections."""
    # urllib3 leaves that to the garbage collector, which lets sockets pile up in a server.
    with contextlib.suppress(AttributeError):
        pools = client._endpoint.http_session._manager.pools  # type: ignore[attr-defined]
        for key in pools.keys():  # noqa: SIM118 -- it is no mapping and cannot be iterated
            pools[key].close()
    client.close()


def _pools(guarding: egress.Guard) -> dict[str, type]:
    # Here and not above: the SDK may not be installed, and this module is loaded where it is not needed yet.
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )

    class PlainConnection(_CheckedConnection, AWSHTTPConnection):  # type: ignore[misc]
        egress_guard = guarding

    class TlsConnection(_CheckedConnection, AWSHTTPSConnection):  # type: ignore[misc]
        egress_guard = guarding

        def connect(self) -> None:
            if self.ssl_context is not None:
                self.ssl_context.sslsocket_class = StoppableTlsSocket
            super().connect()

    class PlainPool(AWSHTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(AWSHTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}


class _CheckedConnection:
    """Resolves a name, checks all its addresses, and connects to one of those that were checked.

    TLS goes on with the name, so that the certificate is still checked against it.
    """

    egress_guard: ClassVar[egress.Guard]

    # The HTTP library's place for this, where it connects through SOCKS too.
    def _new_conn(self: Any) -> socket.socket:
        host, port = self._dns_host.strip("[]"), self.port
        try:
            addresses = egress.addresses(host, port, self.egress_guard)
        except OSError as error:
            raise muxly.RetryableError(f"{host} has no address: {error}") from error
        problem = ""
        for address in addresses:
            try:
                return _connected(address, port, self.socket_options)
            except OSError as error:
                problem = error.strerror or str(error)
        raise muxly.RetryableError(f"no connection to {host}, port {port}: {problem}")


def _connected(address: str, port: int, options: list[tuple[int, int, int]]) -> StoppableSocket:
    connection = StoppableSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        for option in options:
            connection.setsockopt(*option)
        connection.settimeout(connecting_seconds(_CONNECT_SECONDS))
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


_STEP_SECONDS = 0.25
_GRACE_SECONDS = 5.0

# The connections are the process's, the requests are a run's: who asks is known by the thread.
_thread = threading.local()


class StopGrace:
    """How long answers are waited for once the run has been asked to stop; thread-safe.

    Args:
        stopping: Whether the run has been asked to stop.
        grace_seconds: How long an answer is waited for all the same; once one did not come, no
            other is waited for.
    """

    def __init__(self, stopping: Callable[[], bool], grace_seconds: float | None = None) -> None:
        self.stopping = stopping
        self.grace_seconds = _GRACE_SECONDS if grace_seconds is None else grace_seconds

    @contextmanager
    def request(self) -> Iterator[None]:
        """Apply this grace to all that the thread waits for inside."""
        _thread.grace = self
        try:
            yield
        finally:
            _thread.grace = _NEVER_STOPPING

    def use_up(self) -> None:
        """An answer did not come in the time that was left."""
        self.grace_seconds = 0.0


_NEVER_STOPPING = StopGrace(lambda: False)


def _current() -> StopGrace:
    grace: StopGrace = getattr(_thread, "grace", _NEVER_STOPPING)
    return grace


def connecting_seconds(usual: float) -> float:
    """How long a connection may take; less where the run that wants it is stopping."""
    grace = _current()
    return min(usual, max(_STEP_SECONDS, grace.grace_seconds)) if grace.stopping() else usual


class _StoppableOperations(socket.socket):
    """What HTTP does with a socket, in steps; a timeout stays what it is, and is one for the whole operation."""

    __slots__ = ()

    at_once: ClassVar[int] = 1024 * 1024
    """How many bytes are sent in a step."""

    def recv_into(self, *args: Any, **more: Any) -> int:
        """Receive, as soon as there is something."""
        return self._in_steps(super().recv_into, *args, **more)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._in_steps(super().send, rest[: self.at_once], flags) :]

    def _in_steps(self, operation: Callable[..., int], *args: Any, **more: Any) -> int:
        timeout = self.gettimeout()
        if timeout is None or timeout <= _STEP_SECONDS:
            return operation(*args, **more)
        self.settimeout(_STEP_SECONDS)
        try:
            return _repeated(lambda: operation(*args, **more), time.monotonic() + timeout)
        finally:
            self.settimeout(timeout)


def _repeated(step: Callable[[], int], until: float) -> int:
    grace, stopped = _current(), False
    while True:
        try:
            return step()
        except TimeoutError:
            now = time.monotonic()
            if not stopped and grace.stopping():
                stopped, until = True, min(until, now + grace.grace_seconds)
            if now >= until:
                if stopped:
                    grace.use_up()
                raise


class StoppableSocket(_StoppableOperations):
    """A connection without TLS."""


class StoppableTlsSocket(_StoppableOperations, ssl.SSLSocket):
    """A connection with TLS."""

    # A record: TLS tells of what it has sent when it has sent all that it was given.
    at_once = 16 * 1024
