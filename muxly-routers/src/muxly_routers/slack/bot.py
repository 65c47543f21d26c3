"""Slack's Web API through slack-sdk; the only module that imports the SDK."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import Request

from attrs import evolve

import muxly
from muxly_routers._failures import needs
from muxly_routers._http.messages import HttpResponse
from muxly_routers.slack.client import SlackConnection, ThreadGoneError, UnansweredError, api_error
from muxly_routers.slack.options import url_problem
from muxly_routers.slack.outbox import MessageKey, PostedMessages

with needs("slack"):
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

from muxly_routers.slack.message import SlackMessage

__all__ = ["SlackBot"]

# docs.slack.dev/messaging/message-metadata
_EVENT_TYPE = "muxly_delivery"
_PAGE, _MOST_PAGES = 200, 50
_UNREADABLE = {"missing_scope", "not_in_channel", "not_allowed_token_type", "method_not_supported_for_channel_type"}
_UNNAMED_BOT = "the bot"


class SlackBot:
    """A bot's token and one channel.

    Args:
        connection: Makes the requests.
        token: The bot's token.
        base_url: Where the Web API is.
        channel: The channel's id.
    """

    def __init__(self, connection: SlackConnection, *, token: muxly.Secret, base_url: str, channel: str) -> None:
        self.key = f"{urlsplit(base_url).netloc}:{channel}"
        self._connection, self._channel = connection, channel
        self._client = _SlackWebClient(connection, token=token.reveal(), base_url=base_url)

    def post(self, message: SlackMessage, part: MessageKey, *, thread: str | None) -> str | None:
        """Post a message with its metadata."""
        payload = {"delivery": part.delivery, "part": part.name, "stream": part.stream, "run": part.run}
        answer = self._call(
            "chat.postMessage",
            lambda: self._client.chat_postMessage(
                channel=self._channel,
                metadata={"event_type": _EVENT_TYPE, "event_payload": payload},
                thread_ts=thread,
                unfurl_links=False,
                unfurl_media=False,
                **message.payload,
            ),
        )
        if not answer.get("ts"):
            raise UnansweredError("chat.postMessage: the answer is not Slack's: it names no message")
        return str(answer["ts"])

    def attach(self, file: IO[bytes], size: int, name: str, *, thread: str | None) -> None:
        """Upload a file in the three steps of ``files_upload_v2``, streamed from where it lies."""
        place = self._call(
            "files.getUploadURLExternal", lambda: self._client.files_getUploadURLExternal(filename=name, length=size)
        )
        self._send_bytes(str(place.get("upload_url")), file, size)
        self._call(
            "files.completeUploadExternal",
            lambda: self._client.files_completeUploadExternal(
                files=[{"id": str(place.get("file_id")), "title": name}], channel_id=self._channel, thread_ts=thread
            ),
        )

    def _send_bytes(self, url: str, file: IO[bytes], size: int) -> None:
        if url_problem(url):
            raise muxly.RouteError("files.getUploadURLExternal: Slack names no URL to upload to")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        request = Request(url, data=file, headers=headers, method="POST")  # noqa: S310 - the connection opens no files
        answer = self._connection.send(request, what="the upload of a file", size=size)
        if answer.status != 200:
            raise muxly.RetryableError(f"the upload of a file: Slack answers {answer.status}")

    def seen(self, part: MessageKey, *, since: float, threads: bool, thread: str | None) -> PostedMessages | str:
        """Look in the channel's history, and in the threads that may hold messages of the delivery."""
        found, where = PostedMessages(), {thread} if thread else set()
        parent = None
        try:
            for page in self._pages("conversations.history", oldest=f"{since:.6f}", inclusive=True):
                payload = _payload(page)
                _remember(found, page, payload, part.delivery)
                if payload.get("delivery") == part.delivery and page.get("reply_count"):
                    where.add(str(page["ts"]))
                if (payload.get("run"), payload.get("stream")) == (part.run, part.stream):
                    parent = str(page["ts"])  # the newest come first, so that the first message is the last one here
            for ts in where | ({parent} if threads and parent else set()):
                self._look_in_thread(found, ts, part.delivery, since)
        except _UnreadableError as error:
            return str(error)
        return PostedMessages(found.parts, found.files, parent)

    def _look_in_thread(self, found: PostedMessages, thread: str, delivery: str, since: float) -> None:
        try:
            for page in self._pages("conversations.replies", ts=thread, oldest=f"{since:.6f}", inclusive=True):
                _remember(found, page, _payload(page), delivery)
        except ThreadGoneError:
            return  # somebody deleted it, and what was in it

    def _pages(self, method: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        cursor = None
        for _ in range(_MOST_PAGES):
            given = {**arguments, "channel": self._channel, "include_all_metadata": True, "limit": _PAGE}
            given |= {"cursor": cursor} if cursor else {}
            answer = self._call(method, partial(self._client.api_call, method, params=given))
            yield from (message for message in answer.get("messages") or [] if isinstance(message, dict))
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return
        raise _UnreadableError(f"{method}: more than {_PAGE * _MOST_PAGES} messages came since")

    def check(self) -> list[str]:
        """Ask who the bot is, whether it sees the channel, and whether it can look up what it posted."""
        name = self._call("auth.test", self._client.auth_test).get("user") or "the bot"
        problems = []
        try:
            answer = self._call("conversations.info", lambda: self._client.conversations_info(channel=self._channel))
        except _UnreadableError as error:
            problems.append(f"{error}; whether the bot is in the channel cannot be checked")
        else:
            channel = answer.get("channel") or {}
            if channel.get("is_archived"):
                raise muxly.RouteError(f"channel {self._channel} is archived; unarchive it, or name another channel")
            if channel.get("is_member") is False:
                problems.append(f"channel {self._channel}: the bot is not a member; write /invite @{name} there")
        try:
            self._call(
                "conversations.history",
                lambda: self._client.api_call("conversations.history", params={"channel": self._channel, "limit": 1}),
            )
        except _UnreadableError as error:
            problems.append(f"{error}; without it a message whose answer was lost may come twice")
        return problems

    def _call(self, method: str, call: Callable[[], Any]) -> dict[str, Any]:
        """Make a call of the Web API, and give its answer or raise the error that it means."""
        what = f"{method} for channel {self._channel}"
        try:
            response = call()
        except SlackApiError:
            answer = self._client.answered
        else:
            return dict(response.data)
        code, error = api_error(answer, what, channel=self._channel, bot=self._bot_name(answer))
        if code == "thread_not_found":
            raise ThreadGoneError(f"{what}: the thread is gone") from None
        if code in _UNREADABLE and method.startswith("conversations."):
            raise _UnreadableError(str(error)) from None
        raise error from None

    def _bot_name(self, answer: HttpResponse) -> str:
        """The bot's name where a message tells somebody to invite it."""
        if not any(code in answer.text for code in ("not_in_channel", "channel_not_found")):
            return _UNNAMED_BOT
        try:
            return str(self._client.auth_test().get("user") or _UNNAMED_BOT)
        except (SlackApiError, muxly.MuxlyError):
            return _UNNAMED_BOT


class _UnreadableError(Exception):
    """The bot may not read the channel; the message says why."""


class _SlackWebClient(WebClient):
    """slack-sdk's client, whose requests go over our connection; it retries nothing and logs nothing."""

    def __init__(self, connection: SlackConnection, *, token: str, base_url: str) -> None:
        # Its own logger is at level 0, at which the SDK writes out whole requests.
        silent = logging.getLogger(f"{__name__}.sdk")
        silent.setLevel(logging.CRITICAL + 1)
        super().__init__(token=token, base_url=base_url, retry_handlers=[], logger=silent)
        self._connection = connection
        self.answered = HttpResponse(0, {}, b"")

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:
        method = urlsplit(url).path.rsplit("/", 1)[-1]
        answer = self._connection.send(req, what=method)
        if not _is_object(answer.text):
            if answer.status == 200:
                raise UnansweredError(f"{method}: the answer is not Slack's: no JSON object")
            answer = evolve(answer, body=b"{}")
        self.answered = answer
        return {"status": answer.status, "headers": dict(answer.headers), "body": answer.text}


def _remember(found: PostedMessages, message: dict[str, Any], payload: dict[str, Any], delivery: str) -> None:
    """Remember a message, if it is of the delivery, and the names of its files."""
    if payload.get("delivery") == delivery:
        found.parts.setdefault(str(payload.get("part")), str(message["ts"]))
    for file in message.get("files") or []:
        if isinstance(file, dict) and file.get("name"):
            found.files.add(str(file["name"]))


def _payload(message: dict[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != _EVENT_TYPE:
        return {}
    payload = metadata.get("event_payload")
    return payload if isinstance(payload, dict) else {}


def _is_object(body: str) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
