"""An HTTP server on loopback that keeps what it is sent, and can be told to go wrong in many ways.

::

    with Receiver() as receiver:
        receiver.script(Reply(503), Reply(cut="lost"))  # the next two requests; then 200 again
        ...
        receiver.seen  # every request that came in whole
        receiver.applied  # those that the server acted on
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Self

from attrs import field, frozen

from tests.loopback import Loopback, reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

__all__ = ["Receiver", "Reply", "Seen"]

Cut = Literal["request", "lost", "answer", "close"]


@frozen
class Reply:
    """How a request is answered.

    Args:
        status: The HTTP status.
        body: The content.
        headers: Sent beside ``Content-Length``.
        apply: Whether the server acts on the request; default: where the status is 2xx.
        cut: Reset the connection: in the middle of the ``request``; when the server has acted and
            the answer is ``lost``; in the middle of the ``answer``. Or ``close`` it there in peace.
        hold: Never answer; with ``cut="answer"`` stop in the middle of the answer instead of a reset.
        drip_seconds: Wait so long between two bytes of the answer.
        raw: Send these bytes instead of an answer.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    apply: bool | None = field(default=None, kw_only=True)
    cut: Cut | None = field(default=None, kw_only=True)
    hold: bool = field(default=False, kw_only=True)
    drip_seconds: float = field(default=0.0, kw_only=True)
    raw: bytes | None = field(default=None, kw_only=True)

    @property
    def applies(self) -> bool:
        """Whether the server acts on the request."""
        return 200 <= self.status < 300 if self.apply is None else self.apply

    @property
    def content(self) -> bytes:
        """The whole answer as it goes over the wire."""
        if self.raw is not None:
            return self.raw
        names = {name.lower() for name, _value in self.headers}
        length = [] if "content-length" in names or self.status == 204 else [("Content-Length", str(len(self.body)))]
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*length, *self.headers))
        return f"HTTP/1.1 {self.status} Answer\r\n{lines}\r\n".encode("latin-1") + self.body


@frozen
class Seen:
    """A request that came in whole; ``connection`` counts the connections of the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def id(self) -> str:
        """What Standard Webhooks calls the message's id."""
        return self.headers["webhook-id"]


class Receiver:
    """The server.

    Args:
        tls: For HTTPS.
        respond: Decides how a request is answered, where no script says it; default 200.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, respond: Callable[[Seen], Reply] | None = None) -> None:
        self.respond: Callable[[Seen], Reply] = respond or (lambda seen: Reply())
        self.reset_on_accept = 0
        self.seen: list[Seen] = []
        self.applied: list[Seen] = []
        self._script: deque[Reply] = deque()
        self.tls = tls
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._arrived = threading.Condition(self._lock)
        self.accepted = 0
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self._loopback = Loopback(self._serve, tls=self.tls, refuses=self._refuses)
        self.port = self._loopback.port
        self._loopback.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._loopback.__exit__()

    def wait_for_ends(self) -> None:
        """Return when it has ended all connections."""
        self._loopback.wait_for_ends()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/hook"

    def script(self, *replies: Reply) -> None:
        """How the next requests are answered, one each."""
        with self._lock:
            self._script.extend(replies)

    def forget(self) -> None:
        """Forget all requests, and what was told of the next ones."""
        with self._lock:
            self._script.clear()
            self.seen.clear()
            self.applied.clear()

    def distinct(self) -> list[Seen]:
        """What a receiver acts on that drops every id it has seen before."""
        with self._lock:
            return list({one.id: one for one in reversed(self.applied)}.values())[::-1]

    def wait_for(self, requests: int, *, seconds: float = 20.0) -> None:
        """Wait until so many requests have come in whole.

        Raises:
            AssertionError: They have not in time.
        """
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.seen) >= requests, seconds), (
                f"only {len(self.seen)} requests"
            )

    def _refuses(self) -> bool:
        self.accepted += 1
        refused = self.reset_on_accept > 0
        self.reset_on_accept -= refused
        return refused

    def _serve(self, connection: socket.socket) -> None:
        number = next(self._numbers)
        while self._exchange(connection, number):
            pass

    def _exchange(self, connection: socket.socket, number: int) -> bool:
        """One request and its answer; whether the connection lives on."""
        head = _until_blank_line(connection)
        if head is None:
            return False
        with self._lock:
            breaking = bool(self._script) and self._script[0].cut == "request"
            if breaking:
                self._script.popleft()
        if breaking:
            reset(connection)
            return False
        seen = _request(connection, head, number)
        if seen is None:
            return False
        with self._lock:
            scripted = self._script.popleft() if self._script else None
        reply = scripted or self.respond(seen)
        with self._arrived:
            self.seen.append(seen)
            if reply.applies:
                self.applied.append(seen)
            self._arrived.notify_all()
        return self._answer(connection, reply)

    def _answer(self, connection: socket.socket, reply: Reply) -> bool:
        content = reply.content
        if reply.cut == "lost":
            reset(connection)
            return False
        if reply.cut in ("answer", "close"):
            connection.sendall(content[: max(1, len(content) - max(1, len(reply.body) // 2))])
        if reply.hold:
            self._closing.wait()
            return False
        if reply.cut == "answer":
            reset(connection)
        elif reply.cut is None:
            self._send(connection, content, reply.drip_seconds)
        return reply.cut is None and reply.raw is None

    def _send(self, connection: socket.socket, content: bytes, gap: float) -> None:
        if not gap:
            connection.sendall(content)
            return
        for place in range(len(content)):
            connection.sendall(content[place : place + 1])
            if self._closing.wait(gap):
                return


def _until_blank_line(connection: socket.socket) -> bytes | None:
    found = bytearray()
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        if not piece:
            return None
        found += piece
    return bytes(found)


def _request(connection: socket.socket, begun: bytes, number: int) -> Seen | None:
    head, _, body = begun.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    left = int(headers.get("content-length", "0")) - len(body)
    pieces = [body]
    while left > 0:
        piece = connection.recv(65536)
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    method, path, _version = first.split(" ")
    return Seen(method, path, headers, b"".join(pieces), number)


def records(seen: Iterable[Seen]) -> list[Any]:
    """The records of requests whose bodies are JSON arrays."""
    return [record for one in seen for record in one.json()]
