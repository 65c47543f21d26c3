"""The connections of a client of the SDK: to addresses that were checked, and to nothing else.

The SDK resolves a name for itself, whatever it meant a moment before, and puts the bucket in front of
it where the bucket stands in the name. So what is checked is each address that is connected to.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, ClassVar

import muxly
from muxly_routers._http import egress
from muxly_routers.s3.retries import StoppableSocket, StoppableTlsSocket, connecting_seconds

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

__all__ = ["close", "guard"]

_CONNECT_SECONDS = 10.0


def guard(client: S3Client, guarding: egress.Guard) -> None:
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


def close(client: S3Client) -> None:
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
            found = egress.addresses(host, port, self.egress_guard)
        except OSError as error:
            raise muxly.RetryableError(f"{host} has no address: {error}") from error
        problem = ""
        for address in found:
            try:
                return _connected(address, port, self.socket_options)
            except OSError as error:
                problem = error.strerror or str(error)
        raise muxly.RetryableError(f"no connection to {host}, port {port}: {problem}")


def _connected(address: str, port: int, options: list[tuple[int, int, int]]) -> StoppableSocket:
    made = StoppableSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        for option in options:
            made.setsockopt(*option)
        made.settimeout(connecting_seconds(_CONNECT_SECONDS))
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made
