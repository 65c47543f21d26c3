"""A loopback server that speaks the wire format of Slack's Web API and incoming webhooks, with faults to switch on.

Written after the reference at docs.slack.dev: methods ``auth.test``, ``chat.postMessage``,
``conversations.info``, ``conversations.history``, ``conversations.replies``,
``files.getUploadURLExternal`` with its upload URL, ``files.completeUploadExternal``, and webhooks
below ``/services/``. Messages are checked as Slack checks them; what breaks a limit is refused with
Slack's own words.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field

from tests.loopback import Loopback, handled_by, reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["CHANNEL", "Fault", "SlackServer", "problems"]

CHANNEL = "C0123ABCD"
TEXT_LIMIT, BLOCKS_LIMIT, ALL_BLOCKS_LIMIT = 40_000, 50, 13_000
BOT_SCOPES = {"chat:write", "files:write", "channels:read", "channels:history"}
Answer = dict[str, Any]


@define
class Fault:
    """What goes wrong, with the next calls of one method.

    Args:
        method: Such as ``"chat.postMessage"``; ``"webhook"`` and ``"upload"`` are the other two.
        status: The HTTP status of the answer.
        headers: Its headers.
        body: Its body; a dict becomes JSON.
        applied: Whether the server does what it was asked before it goes wrong.
        way: ``"answer"`` gives status and body; ``"reset"`` ends the connection without a word;
            ``"hang"`` says nothing until the server is released; ``"drip"`` sends headers, then a byte now
            and then.
        skip: So many calls go well first.
        times: So many calls go wrong.
    """

    method: str
    status: int = 500
    headers: dict[str, str] = field(factory=dict)
    body: Any = ""
    applied: bool = False
    way: Literal["answer", "reset", "hang", "drip"] = "answer"
    skip: int = 0
    times: int = 1


class SlackError(Exception):
    """A refusal: its word, and what Slack says besides."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer: Answer = {"ok": False, "error": error, **more}


class SlackServer:
    """One workspace with a bot and a channel; a context manager.

    Args:
        tls: Speaks HTTPS with this; default plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.token = "xoxb-4711-loopback-0123456789abcdef"
        self.scopes = set(BOT_SCOPES)
        self.channels: dict[str, dict[str, Any]] = {
            CHANNEL: {"id": CHANNEL, "name": "sales", "is_archived": False, "is_member": True}
        }
        self.hook = "/services/T01/B02/hookhookhookhookhook"
        self.messages: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()
        self._lock = threading.RLock()
        self._last_ts = 0
        self.loopback = Loopback(handled_by(_Handler, self), tls=tls)
        self._scheme = "http" if tls is None else "https"

    def __enter__(self) -> Self:
        self.loopback.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self.released.set()
        self.loopback.__exit__()

    @property
    def root(self) -> str:
        """Scheme, host and port."""
        return f"{self._scheme}://127.0.0.1:{self.loopback.port}"

    @property
    def base_url(self) -> str:
        """Where the Web API is."""
        return f"{self.root}/api/"

    @property
    def webhook_url(self) -> str:
        """The incoming webhook of the channel."""
        return f"{self.root}{self.hook}"

    def clear(self) -> None:
        """Forget messages, files, calls and faults."""
        with self._lock:
            self.messages.clear()
            self.files.clear()
            self.calls.clear()
            self.faults.clear()

    def posted(self, channel: str = CHANNEL) -> list[dict[str, Any]]:
        """The messages of a channel that are not uploads, in order."""
        with self._lock:
            return [one for one in self.messages if one["channel"] == channel and "files" not in one]

    def called(self, method: str) -> list[dict[str, Any]]:
        """The arguments of all calls of a method."""
        with self._lock:
            return [arguments for name, arguments in self.calls if name == method]

    def fault(self, method: str) -> Fault | None:
        """The fault that this call of the method meets."""
        with self._lock:
            for one in self.faults:
                if one.method != method or one.times <= 0:
                    continue
                if one.skip:
                    one.skip -= 1
                    continue
                one.times -= 1
                return one
        return None

    def answer(self, method: str, arguments: dict[str, Any], token: str | None) -> Answer:
        """What Slack answers to a call of the Web API."""
        with self._lock:
            try:
                return {"ok": True, **self._method(method, token)(self, arguments)}
            except SlackError as error:
                return error.answer

    def _method(self, method: str, token: str | None) -> Callable[[SlackServer, dict[str, Any]], Answer]:
        if token != self.token:
            raise SlackError("invalid_auth" if token else "not_authed")
        if method not in _METHODS:
            raise SlackError("unknown_method", req_method=method)
        return _METHODS[method]

    def need(self, *scopes: str) -> None:
        """Refuse a call that none of these scopes allows."""
        if not self.scopes & set(scopes):
            raise SlackError("missing_scope", needed=",".join(scopes), provided=",".join(sorted(self.scopes)))

    def channel(self, given: Any) -> dict[str, Any]:
        """The channel of that id, or name where a name is allowed."""
        for one in self.channels.values():
            if given == one["id"]:
                return one
        raise SlackError("channel_not_found")

    def post(self, channel: str, message: dict[str, Any]) -> dict[str, Any]:
        """Keep a message, with a time stamp of its own."""
        with self._lock:
            self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
            ts = f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06}"
            kept = {"type": "message", "ts": ts, "channel": channel, "bot_id": "B02", "user": "U01BOT", **message}
            self.messages.append(kept)
            return kept

    def webhook(self, path: str, body: bytes) -> tuple[int, str]:
        """What an incoming webhook answers: a status and a word."""
        with self._lock:
            if path != self.hook:
                return 404, "no_service" if path.count("/") == 4 else "no_team"
            if self.channels[CHANNEL]["is_archived"]:
                return 410, "channel_is_archived"
            try:
                message = json.loads(body)
            except ValueError:
                return 400, "invalid_payload"
            found = problems(message)
            if found:
                return 400, "invalid_blocks" if message.get("blocks") else found[0]
            self.post(CHANNEL, {key: message[key] for key in ("text", "blocks") if message.get(key)})
            return 200, "ok"


def problems(message: dict[str, Any]) -> list[str]:
    """What Slack would say against a message: its limits, and what a block needs."""
    blocks = message.get("blocks") or []
    if not message.get("text") and not blocks:
        return ["no_text"]
    if not isinstance(blocks, list):
        return ["invalid_blocks_format"]
    found = [f"no more than {BLOCKS_LIMIT} items allowed [json-pointer:/blocks]"] * (len(blocks) > BLOCKS_LIMIT)
    for number, block in enumerate(blocks):
        found += [f"{one} [json-pointer:/blocks/{number}]" for one in _block_problems(block)]
    if sum(1 for block in blocks if block.get("type") == "table") > 1:
        found.append("only_one_table_allowed [json-pointer:/blocks]")
    return found


def _block_problems(block: dict[str, Any]) -> list[str]:
    kind = block.get("type")
    if len(block.get("block_id", "")) > 255:
        return ["must be less than 256 characters"]
    if kind == "header":
        return _text_problems(block.get("text"), 150, {"plain_text"})
    if kind == "section":
        fields = block.get("fields", [])
        if not fields and "text" not in block:
            return ["missing required field: text"]
        several = ["no more than 10 items allowed"] if len(fields) > 10 else []
        own = _text_problems(block["text"], 3000) if "text" in block else []
        return [*several, *own, *(one for each in fields for one in _text_problems(each, 2000))]
    if kind == "context":
        elements = block.get("elements", [])
        if not 1 <= len(elements) <= 10:
            return ["must have between 1 and 10 items"]
        return [one for each in elements if each.get("type") != "image" for one in _text_problems(each, 3000)]
    if kind == "table":
        return _table_problems(block)
    return [] if kind in {"divider", "image", "actions", "rich_text", "markdown"} else [f"unsupported type: {kind}"]


def _text_problems(text: Any, limit: int, kinds: set[str] | None = None) -> list[str]:
    if not isinstance(text, dict) or text.get("type") not in (kinds or {"plain_text", "mrkdwn"}):
        return ["invalid text object"]
    length = len(text.get("text", ""))
    if length == 0:
        return ["must be more than 0 characters"]
    return [f"must be less than {limit + 1} characters"] if length > limit else []


def _table_problems(block: dict[str, Any]) -> list[str]:
    rows = block.get("rows", [])
    if not 1 <= len(rows) <= 100:
        return ["no more than 100 rows allowed"]
    if any(not 1 <= len(row) <= 20 or len(row) != len(rows[0]) for row in rows):
        return ["rows must have 1 to 20 cells, all the same number"]
    cells = [cell for row in rows for cell in row]
    if any(cell.get("type") not in {"raw_text", "rich_text"} or not cell.get("text", "x") for cell in cells):
        return ["invalid cell"]
    if sum(len(cell.get("text", "")) for cell in cells) > 10_000:
        return ["must be less than 10001 characters in all cells"]
    return ["no more than 20 items allowed"] if len(block.get("column_settings", [])) > 20 else []


# --- the methods of the Web API


def _auth_test(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    return {
        "url": "https://example.slack.com/",
        "team": "Example",
        "user": "muxly",
        "user_id": "U01BOT",
        "bot_id": "B02",
    }


def _post_message(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    server.need("chat:write")
    channel = server.channel(arguments.get("channel"))
    if channel["is_archived"]:
        raise SlackError("is_archived")
    if not channel["is_member"] and "chat:write.public" not in server.scopes:
        raise SlackError("not_in_channel")
    _check(arguments)
    parent = arguments.get("thread_ts")
    if parent and not any(one["ts"] == parent for one in server.messages):
        raise SlackError("thread_not_found")
    given: dict[str, Any] = {key: arguments[key] for key in ("blocks", "metadata", "thread_ts") if key in arguments}
    kept = server.post(channel["id"], {"text": arguments.get("text", "")[:TEXT_LIMIT], **given})
    return {"channel": channel["id"], "ts": kept["ts"], "message": kept}


def _check(arguments: dict[str, Any]) -> None:
    found = problems(arguments)
    if found[:1] in (["no_text"], ["invalid_blocks_format"]):
        raise SlackError(found[0])
    if found:
        told = [f"[ERROR] {one}" for one in found]
        raise SlackError("invalid_blocks", errors=found, response_metadata={"messages": told})
    if len(json.dumps(arguments.get("blocks", []), ensure_ascii=False)) > ALL_BLOCKS_LIMIT * 3:
        raise SlackError("msg_blocks_too_long")
    metadata = arguments.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict) and metadata.get("event_type") and isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_format")


def _info(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    server.need("channels:read", "groups:read")
    return {"channel": server.channel(arguments.get("channel"))}


def _history(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    channel = _readable(server, arguments)
    found = [one for one in server.messages if one["channel"] == channel and "thread_ts" not in one]
    return _page(server, reversed(_after(found, arguments)), arguments)


def _replies(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    channel, parent = _readable(server, arguments), arguments.get("ts")
    found = [
        one for one in server.messages if one["channel"] == channel and parent in (one["ts"], one.get("thread_ts"))
    ]
    if not found:
        raise SlackError("thread_not_found")
    return _page(server, _after(found, arguments), arguments)


def _readable(server: SlackServer, arguments: dict[str, Any]) -> str:
    server.need("channels:history", "groups:history")
    channel = server.channel(arguments.get("channel"))
    if not channel["is_member"]:
        raise SlackError("not_in_channel")
    return str(channel["id"])


def _after(messages: list[dict[str, Any]], arguments: dict[str, Any]) -> list[dict[str, Any]]:
    oldest, inclusive = float(arguments.get("oldest") or 0), str(arguments.get("inclusive", "0")) in {"1", "true"}
    return [one for one in messages if (ts := float(one["ts"])) > oldest or (inclusive and ts == oldest)]


def _page(server: SlackServer, messages: Any, arguments: dict[str, Any]) -> Answer:
    found, limit, start = list(messages), int(arguments.get("limit") or 100), int(arguments.get("cursor") or 0)
    if not 1 <= limit <= 999:
        raise SlackError("invalid_limit")
    told = str(arguments.get("include_all_metadata", "0")) in {"1", "true"}
    hidden = {"channel"} if told else {"channel", "metadata"}
    page = [{key: value for key, value in one.items() if key not in hidden} for one in found[start : start + limit]]
    for one in page:
        if replies := sum(1 for other in server.messages if other.get("thread_ts") == one["ts"]):
            one |= {"reply_count": replies, "thread_ts": one["ts"]}
    more = start + limit < len(found)
    return {
        "messages": page,
        "has_more": more,
        "response_metadata": {"next_cursor": str(start + limit) if more else ""},
    }


def _upload_url(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    server.need("files:write")
    if not arguments.get("filename") or int(arguments.get("length") or 0) < 1:
        raise SlackError("invalid_arguments")
    name = f"F{len(server.files):08}"
    server.files[name] = {"name": arguments["filename"], "length": int(arguments["length"]), "content": None}
    return {"file_id": name, "upload_url": f"{server.root}/upload/v1/{name}"}


def _complete_upload(server: SlackServer, arguments: dict[str, Any]) -> Answer:
    server.need("files:write")
    files = arguments.get("files") or []
    told = [dict(one) for one in (json.loads(files) if isinstance(files, str) else files)]
    for one in told:
        kept = server.files.get(one.get("id", ""))
        if kept is None or kept["content"] is None:
            raise SlackError("file_not_found")
        one |= {"name": kept["name"], "size": len(kept["content"])}
    if arguments.get("channel_id"):
        channel = server.channel(arguments["channel_id"])
        if not channel["is_member"]:
            raise SlackError("not_in_channel")
        thread = {"thread_ts": arguments["thread_ts"]} if arguments.get("thread_ts") else {}
        if thread and not any(one["ts"] == thread["thread_ts"] for one in server.messages):
            raise SlackError("thread_not_found")
        text = arguments.get("initial_comment", "")
        server.post(channel["id"], {"text": text, "files": told, "upload": True, **thread})
    return {"files": told}


_METHODS: dict[str, Callable[[SlackServer, dict[str, Any]], Answer]] = {
    "auth.test": _auth_test,
    "chat.postMessage": _post_message,
    "conversations.info": _info,
    "conversations.history": _history,
    "conversations.replies": _replies,
    "files.getUploadURLExternal": _upload_url,
    "files.completeUploadExternal": _complete_upload,
}


# --- HTTP


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def slack(self) -> SlackServer:
        return cast("SlackServer", self.server)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        method = _method(path)
        fault = self.slack.fault(method)
        if fault is None or fault.applied:
            status, headers, answer = self._done(method, path, body)
        if fault is not None:
            self._go_wrong(fault)
            return
        self._send(status, headers, answer)

    do_GET = do_POST  # noqa: N815 - the name that http.server calls

    def _done(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "upload":
            kept = self.slack.files.get(path.rsplit("/", 1)[-1])
            if kept is None or len(body) != kept["length"]:
                return 400, {}, b"upload failed"
            kept["content"] = body
            return 200, {"Content-Type": "text/plain"}, f"OK - {len(body)}".encode()
        if method == "webhook":
            self.slack.calls.append((method, {"body": body.decode("utf-8", "replace")}))
            status, word = self.slack.webhook(path, body)
            return status, {"Content-Type": "text/html"}, word.encode()
        arguments = self._arguments(body)
        self.slack.calls.append((method, arguments))
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") if authorization else arguments.get("token")
        answer = json.dumps(self.slack.answer(method, arguments, token), ensure_ascii=False)
        return 200, {"Content-Type": "application/json; charset=utf-8"}, answer.encode()

    def _arguments(self, body: bytes) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            found: dict[str, Any] = json.loads(body or b"{}")
            return found
        given = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return {**dict(parse_qsl(urlsplit(self.path).query)), **given}

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _go_wrong(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.way == "answer":
            body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
            self._send(fault.status, fault.headers, body.encode())
        elif fault.way == "reset":
            reset(self.connection)
        elif fault.way == "hang":
            self.slack.released.wait(60)
        else:
            self._drip()

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.slack.released.wait(0.05):
            self.wfile.write(b" ")
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _method(path: str) -> str:
    if path.startswith("/api/"):
        return path.removeprefix("/api/")
    return "upload" if path.startswith("/upload/") else "webhook"
