"""A loopback proxy that goes wrong as told: it loses an answer, cuts connections, or refuses them."""

from __future__ import annotations

import socket
import threading
from typing import Self

from tests.loopback import Loopback, end

__all__ = ["TcpProxy"]

_PART_BYTES = 1 << 16


class TcpProxy:
    """Passes bytes between its clients and one server; a context manager.

    Args:
        server: ``(host, port)``, or the path of a Unix socket.
    """

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._loopback = Loopback(self._link)
        self.port = self._loopback.port
        self.lost = threading.Event()
        """Set once an answer was lost."""
        self._marker: bytes | None = None

    def __enter__(self) -> Self:
        self._loopback.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loopback.__exit__()

    def lose_answer_to(self, marker: bytes) -> None:
        """Pass the next request that holds these bytes to the server, wait for its answer, and hang up."""
        self._marker = marker
        self.lost.clear()

    def cut(self) -> None:
        """Hang up on all clients and on the server."""
        self._loopback.hang_up()

    def _link(self, client: socket.socket) -> None:
        with self._loopback.holding(self._connect()) as server:
            link = _Link(client, server)
            self._loopback.start(self._pass_answers, link)
            self._pass_requests(link)

    def _connect(self) -> socket.socket:
        if isinstance(self._server, tuple):
            return socket.create_connection(self._server, 10)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(self._server)
        return connected

    def _pass_requests(self, link: _Link) -> None:
        while part := link.client.recv(_PART_BYTES):
            if self._marker is not None and self._marker in part:
                self._marker, link.losing = None, True
            link.server.sendall(part)

    def _pass_answers(self, link: _Link) -> None:
        try:
            while part := link.server.recv(_PART_BYTES):
                if link.losing:
                    self.lost.set()
                    return
                link.client.sendall(part)
        finally:
            end(link.client)


class _Link:
    """One client's connection and its server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.losing = False
