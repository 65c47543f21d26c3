"""Destinations that are HTTP receivers of our own: a webhook, Slack's Web API, and a small Pushgateway.

They keep what they get in files, so that one can look at it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from destinations.programs import HOST, NotReadyError

# The secrets of the example, which its muxly.yaml knows too; the first is Base64 after its prefix.
SIGNING_SECRET = "whsec_bXV4bHktZmFuLW91dC1leGFtcGxlLXNlY3JldA=="
SLACK_TOKEN = "xoxb-muxly-fan-out-example"
SIGNED_SECONDS = 300


@dataclass(frozen=True)
class Request:
    """What came: `path` without the query."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is said to it; a `body` that is no bytes becomes JSON."""

    status: int
    body: Any = b""


class Receiver:
    """An HTTP server that can be stopped and frozen like a program; a subclass says what it answers."""

    name: str
    address: str

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder / self.name, port
        self.thawed = threading.Event()
        self.thawed.set()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """What is answered, once what must be kept is kept."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen, from now on.

        Raises:
            NotReadyError: The port is taken.
        """
        if self._server is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._server = _Server(self)
        except OSError as error:
            raise NotReadyError(f"{self.name} cannot listen on {HOST}:{self.port}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """It listens from its start on."""

    def stop(self) -> None:
        """Listen no longer, and break the connections that are open."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.end()
        self._server = self._thread = None
        self.thaw()

    def freeze(self) -> None:
        """Take requests, and answer none."""
        self.thawed.clear()

    def thaw(self) -> None:
        """Answer again."""
        self.thawed.set()

    def keep(self, name: str, content: bytes) -> None:
        """Write a file that is there whole or not at all."""
        draft = self.folder / f".{threading.get_ident()}.draft"
        draft.write_bytes(content)
        draft.replace(self.folder / name)

    def count(self) -> int:
        """How many files are kept."""
        return sum(1 for one in self.folder.iterdir() if not one.name.startswith("."))

    def received(self, request: Request) -> Answer:
        """Answer one request after the other, when not frozen."""
        self.thawed.wait()
        with self._writing:
            return self.answer(request)


class _Server(ThreadingHTTPServer):
    """Knows its open connections, to break them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.open: set[socket.socket] = set()
        super().__init__((HOST, receiver.port), _Requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell of."""

    def end(self) -> None:
        self.server_close()
        for one in list(self.open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Requests(BaseHTTPRequestHandler):
    """Turns requests into values and answers into bytes."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.open.add(self.request)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.server.open.discard(self.request)

    def _serve(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        answer = self.server.receiver.received(Request(self.command, path, self.headers, body))
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = "text/plain; version=0.0.4" if isinstance(answer.body, bytes) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """One way for every method: `do_GET`, `do_PUT` and the rest are looked up by name."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the console's."""


class Webhook(Receiver):
    """Checks the signature, keeps each `webhook-id` once, and says 200 to a repeat."""

    name = "webhook"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.address = f"http://{HOST}:{port}/hook, keeps what it gets in {self.folder}"

    def answer(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer(405)
        if not _is_signed(request):
            return Answer(401, {"error": "the signature is missing, wrong or too old"})
        identity = quote(request.headers["webhook-id"], safe="")
        if not any(self.folder.glob(f"*.{identity}.json")):
            self.keep(f"{self.count() + 1:04}.{identity}.json", request.body)
        return Answer(200)


def _is_signed(request: Request) -> bool:
    """Standard Webhooks: HMAC-SHA256 over id, time and body; one good signature of several is enough."""
    identity, at = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not (identity and at.isdecimal() and abs(time.time() - int(at)) < SIGNED_SECONDS):
        return False
    secret = base64.b64decode(SIGNING_SECRET.removeprefix("whsec_"))
    wanted = hmac.digest(secret, f"{identity}.{at}.".encode() + request.body, hashlib.sha256)
    given = request.headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(one, f"v1,{base64.b64encode(wanted).decode()}") for one in given)


class Slack(Receiver):
    """As much of Slack's Web API as takes messages and uploaded files."""

    name = "slack"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.address = f"http://{HOST}:{port}/api/, keeps messages and files in {self.folder}"

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/upload/"):
            self.keep(os.path.basename(unquote(request.path)), request.body)  # noqa: PTH119 - of a URL
            return Answer(200, b"OK")
        if request.headers.get("Authorization") != f"Bearer {SLACK_TOKEN}":
            return Answer(200, {"ok": False, "error": "invalid_auth"})
        said = _arguments(request)
        doing = {
            "auth.test": self._who,
            "chat.postMessage": self._message,
            "conversations.history": self._history,
            "conversations.info": self._channel,
            "conversations.replies": self._history,
            "files.completeUploadExternal": self._files,
            "files.getUploadURLExternal": self._place_for_file,
        }
        method = request.path.removeprefix("/api/")
        if method not in doing:
            return Answer(200, {"ok": False, "error": "unknown_method"})
        return Answer(200, {"ok": True, **doing[method](said)})

    def _who(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"team": "Example", "team_id": "T0EXAMPLE", "user": "muxly", "user_id": "U0EXAMPLE"}

    def _channel(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"channel": {"id": said.get("channel"), "name": "weather", "is_archived": False, "is_member": True}}

    def _message(self, said: dict[str, Any]) -> dict[str, Any]:
        number = self.count() + 1
        ts = f"{int(time.time())}.{number:06}"
        message = {"ts": ts, **{name: value for name, value in said.items() if name != "token"}}
        self.keep(f"{number:04}.message.json", json.dumps(message, indent=1, ensure_ascii=False).encode())
        return {"channel": said.get("channel"), "ts": ts, "message": message}

    def _history(self, said: dict[str, Any]) -> dict[str, Any]:
        """What was posted since, the newest first; of a thread the oldest."""
        kept = [json.loads(one.read_bytes()) for one in sorted(self.folder.glob("*.message.json"))]
        found = [one for one in kept if float(one["ts"]) >= float(said.get("oldest") or 0)]
        if "ts" in said:
            return {"messages": [one for one in found if said["ts"] in {one["ts"], one.get("thread_ts")}]}
        return {"messages": [one for one in reversed(found) if "thread_ts" not in one]}

    def _place_for_file(self, said: dict[str, Any]) -> dict[str, Any]:
        number = self.count() + 1
        name = quote(f"{number:04}.{said.get('filename', 'file')}", safe="")
        return {"upload_url": f"http://{HOST}:{self.port}/upload/{name}", "file_id": f"F{number:08}"}

    def _files(self, said: dict[str, Any]) -> dict[str, Any]:
        """The files are there already; a message shows them."""
        files = [{"id": one.get("id"), "name": one.get("title")} for one in said.get("files", [])]
        self._message({**said, "channel": said.get("channel_id"), "files": files})
        return {"files": files}


def _arguments(request: Request) -> dict[str, Any]:
    """What a method is called with: JSON, or a form whose values may be JSON."""
    text = request.body.decode()
    if request.headers.get_content_type() == "application/json":
        found: dict[str, Any] = json.loads(text or "{}")
        return found
    return {name: _value(value) for name, value in parse_qsl(text)}


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in "[{" else text
    except ValueError:
        return text


class SmallPushgateway(Receiver):
    """Keeps the last metrics of each group and shows them all; for where Prometheus' own is not installed."""

    name = "pushgateway"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.address = f"http://{HOST}:{port}, a small one of our own"

    def answer(self, request: Request) -> Answer:
        if request.path in {"/-/ready", "/-/healthy"}:
            return Answer(200, b"OK\n")
        if request.path == "/metrics" and request.method == "GET":
            return Answer(200, b"".join(one.read_bytes() for one in sorted(self.folder.glob("*.prom"))))
        if not request.path.startswith("/metrics/job"):
            return Answer(404)
        group = f"{quote(request.path.removeprefix('/metrics/'), safe='')}.prom"
        if request.method in {"PUT", "POST"}:
            self.keep(group, request.body)
            return Answer(200)
        (self.folder / group).unlink(missing_ok=True)
        return Answer(202)
