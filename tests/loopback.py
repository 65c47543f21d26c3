"""A server on loopback: a port, a thread for each connection, and the ways in which connections end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

__all__ = ["Loopback", "end", "handled_by", "reset"]


_PATIENCE_SECONDS = 10


class Loopback:
    """Listens from the beginning, and serves inside ``with``; nothing of it is left behind.

    Args:
        serve: Called with each connection, in a thread of its own; ended when it returns or raises ``OSError``.
        tls: Speaks TLS with this; default nothing.
        refuses: Whether to reset a new connection.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        *,
        tls: ssl.SSLContext | None = None,
        refuses: Callable[[], bool] = lambda: False,
    ) -> None:
        self._serve, self._tls, self._refuses = serve, tls, refuses
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop_listening()
        self.hang_up()
        for thread in list(self._threads):
            thread.join(10)

    def stop_listening(self) -> None:
        """Free the port; connections go on."""
        end(self._listening)

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            connections = list(self._open)
        for one in connections:
            end(one)

    def wait_for_ends(self) -> None:
        """Return when the server has ended all connections by itself."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._open:
            assert time.monotonic() < until, "connections are still open"
            time.sleep(0.005)

    def start(self, call: Callable[..., None], *arguments: Any) -> None:
        """Do something in a thread, which is waited for at the end; a broken connection ends it."""

        def work() -> None:
            with contextlib.suppress(OSError):
                call(*arguments)

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextlib.contextmanager
    def holding(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Keep a connection among those that ``hang_up`` ends, and end it after."""
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            end(connection)
            with self._lock:
                self._open.discard(connection)

    def _accept(self) -> None:
        while True:
            connection, _address = self._listening.accept()
            if self._refuses():
                reset(connection)
            else:
                self.start(self._served, connection)

    def _served(self, connection: socket.socket) -> None:
        # A server without it keeps the last part of an answer back for 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.holding(connection):
            if self._tls is None:
                self._serve(connection)
                return
            with self.holding(self._tls.wrap_socket(connection, server_side=True)) as secured:
                self._serve(secured)


def handled_by(handler: type[BaseHTTPRequestHandler], owner: Any) -> Callable[[socket.socket], None]:
    """What serves connections with a handler of the standard library, whose ``server`` is the owner."""

    def serve(connection: socket.socket) -> None:
        handler(connection, connection.getpeername(), owner)

    return serve


def reset(connection: socket.socket) -> None:
    """End a connection so that the other side sees a reset and not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def end(connection: socket.socket) -> None:
    """End a connection, or a port; one that has ended stays so."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
