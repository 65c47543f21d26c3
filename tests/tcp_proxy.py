"""A loopback proxy that goes wrong as told: it loses an answer, cuts connections, or refuses them."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TcpProxy", "proxy_to"]

_PART_BYTES = 1 << 16


class TcpProxy:
    """Passes bytes between its clients and one server.

    Args:
        server: ``(host, port)``, or the path of a Unix socket.
    """

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = threading.Event()
        """Set once an answer was lost."""
        self._marker: bytes | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lose_answer_to(self, marker: bytes) -> None:
        """Pass the next request that holds these bytes to the server, wait for its answer, and hang up."""
        self._marker = marker
        self.lost.clear()

    def cut(self) -> None:
        """Hang up on all clients and on the server."""
        for one in list(self._open):
            _hang_up(one)

    def close(self) -> None:
        """End everything."""
        _hang_up(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                try:
                    server = self._connect()
                except OSError:
                    _hang_up(client)
                    continue
                link = _Link(client, server)
                self._open |= {client, server}
                self._start(self._pass_requests, link)
                self._start(self._pass_answers, link)

    def _connect(self) -> socket.socket:
        if isinstance(self._server, tuple):
            return socket.create_connection(self._server, 10)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(self._server)
        return connected

    def _pass_requests(self, link: _Link) -> None:
        with suppress(OSError):
            while part := link.client.recv(_PART_BYTES):
                if self._marker is not None and self._marker in part:
                    self._marker, link.losing = None, True
                link.server.sendall(part)
        self._end(link)

    def _pass_answers(self, link: _Link) -> None:
        with suppress(OSError):
            while part := link.server.recv(_PART_BYTES):
                if link.losing:
                    self.lost.set()
                    break
                link.client.sendall(part)
        self._end(link)

    def _end(self, link: _Link) -> None:
        for one in (link.client, link.server):
            _hang_up(one)
            self._open.discard(one)


class _Link:
    """One client's connection and its server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.losing = False


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxy_to(server: tuple[str, int] | str) -> Iterator[TcpProxy]:
    """A proxy that is closed at the end."""
    proxy = TcpProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
