"""A proxy in front of a real store that goes wrong as it is told."""

from __future__ import annotations

import http.client
import re
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import urlsplit

from attrs import define, frozen

from tests.loopback import Loopback, handled_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Fault", "Proxy", "Seen"]

_DROPPED = {"connection", "transfer-encoding", "content-length"}


@frozen
class Seen:
    """A request that came.

    Args:
        line: Such as ``"PUT /bucket/key?partNumber=1"``.
        headers: Its headers, names in lower case.
    """

    line: str
    headers: Mapping[str, str]


@define(kw_only=True)
class Fault:
    """What goes wrong.

    Args:
        on: A pattern that is searched in ``"METHOD /bucket/key?query"``.
        times: How often.
        after: So many requests that fit pass before.
        applied: Whether the store gets the request all the same.
        status: Of the answer in place of the store's.
        code: In that answer.
        headers: Of that answer.
        body: Of that answer; default an error with the code.
        how: Answer; or hang up, send half an answer, stall until the proxy closes, or leave a header out.
        header: The header of ``"strip"``, or one that the request must have.
        call: Called before anything else.
    """

    on: str
    times: int = 1
    after: int = 0
    applied: bool = False
    status: int = 500
    code: str = "InternalError"
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    how: Literal["answer", "hang_up", "truncate", "stall", "strip", "pass"] = "answer"
    header: str | None = None
    call: Callable[[], object] = lambda: None

    def answer(self) -> bytes:
        """The body of the answer."""
        if self.body is not None:
            return self.body
        return f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>as told</Message></Error>".encode()


class Proxy:
    """Forwards what comes to a store; a context manager.

    Args:
        upstream: The URL of the store.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._loopback = Loopback(handled_by(_Handler, self))
        self.url = f"http://127.0.0.1:{self._loopback.port}"

    def __enter__(self) -> Self:
        self._loopback.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self.closing.set()
        self._loopback.__exit__()

    def reset(self) -> None:
        """Forget all faults and what was seen; answers that stall end."""
        self.closing.set()
        with self._lock:
            self.faults.clear()
            self.seen.clear()
            self.closing = threading.Event()

    def lines(self, pattern: str = "") -> list[str]:
        """The requests that came and fit, each as one line."""
        with self._lock:
            return [one.line for one in self.seen if re.search(pattern, one.line)]

    def next_fault(self, seen: Seen) -> Fault | None:
        """What is to go wrong with a request."""
        with self._lock:
            self.seen.append(seen)
            for fault in self.faults:
                if fault.times == 0 or not re.search(fault.on, seen.line):
                    continue
                if fault.header is not None and fault.header.lower() not in seen.headers:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece

    @property
    def owner(self) -> Proxy:
        return cast("Proxy", self.server)

    def handle_expect_100(self) -> bool:
        # At once: who waits for it waits a second.
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _handle(self) -> None:
        seen = Seen(f"{self.command} {self.path}", {name.lower(): value for name, value in self.headers.items()})
        body = self.rfile.read(int(seen.headers.get("content-length", 0)))
        fault = self.owner.next_fault(seen)
        if fault is None:
            self._relay(*self._ask(body, seen.headers))
            return
        fault.call()
        if fault.how in ("strip", "pass"):
            self._relay(*self._ask(body, {k: v for k, v in seen.headers.items() if k != fault.header}))
            return
        answer = self._ask(body, seen.headers) if fault.applied else None
        if fault.how == "answer":
            self._relay(fault.status, {"content-type": "application/xml", **fault.headers}, fault.answer())
            return
        self.close_connection = True
        if fault.how == "stall":
            self.owner.closing.wait()
        elif fault.how == "truncate":
            content = answer[2] if answer and answer[2] else fault.answer()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 100))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    def _ask(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.owner.upstream, timeout=60)
        try:
            sent = {name: value for name, value in headers.items() if name not in ("expect", "connection")}
            upstream.request(self.command, self.path, body, sent)
            answer = upstream.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            upstream.close()

    def _relay(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers.items():
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in _DROPPED:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
