"""The outbox of a delivery: messages in order, at Slack's pace, in their thread, and none twice if that can be known.

Slack has no idempotency key. After an answer that was lost, a message may be there or not; the next attempt
looks into the channel's history for the metadata of the delivery, where the destination can do that, and posts
only the rest. An incoming webhook cannot look anything up: there ``on_ambiguous`` decides.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable
from typing import IO, Any, Literal, Protocol, TypeVar, cast
from urllib.request import Request

from attrs import field, frozen

import muxly
from muxly.retry import RateBucket
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers.slack.client import (
    RateLimitedError,
    SlackConnection,
    ThreadGoneError,
    UnansweredError,
    webhook_error,
)
from muxly_routers.slack.message import SlackMessage

__all__ = ["IncomingWebhook", "MessageDestination", "MessageKey", "Outbox", "PostedMessages", "PostingRules", "is_new"]

T = TypeVar("T")

# Slack's clock and ours may differ.
_CLOCKS_SECONDS = 300.0
# A longer wait is left to the runner, which shows it.
_LONGEST_WAIT_SECONDS, _MOST_WAITS = 60.0, 5


@frozen(kw_only=True)
class PostingRules:
    """Rules for posting messages.

    Args:
        threads: Whether the messages of a run answer its first one.
        on_ambiguous: What becomes of a message that may be there or not, where that cannot be looked up.
        messages_per_second: The pace of the channel, for all who post there in this process.
    """

    threads: bool
    on_ambiguous: Literal["resend", "drop"]
    messages_per_second: float


class Outbox:
    """Posts the messages of one delivery.

    Args:
        run: The run.
        destination: Where to.
        delivery: The delivery.
        rules: How.
    """

    def __init__(
        self, run: muxly.Run, destination: MessageDestination, delivery: muxly.Delivery, rules: PostingRules
    ) -> None:
        self._run, self._destination, self._delivery, self._rules = run, destination, delivery, rules
        rate = rules.messages_per_second
        self._pace = run.shared(f"slack.pace:{destination.key}", lambda: RateBucket(rate))
        self._thread = self._thread_of_run() if rules.threads else None
        # What this process posted of deliveries that are not done: the time stamps by name, but for what was marked.
        self._open: dict[str, dict[str, str]] = run.shared("slack.open", dict)
        first = delivery.id not in self._open and is_new(delivery.id, run.started_at.timestamp(), time.time())
        self._posted = self._open.setdefault(delivery.id, {})
        self._seen = PostedMessages() if first else self._look_up()

    def post(self, message: SlackMessage, name: str, *, upto: int | None = None) -> str | None:
        """Post a message, unless it is there already; its time stamp, if known.

        Args:
            message: The message.
            name: Names it in the delivery; the same in every attempt.
            upto: So many records of the delivery need no other attempt when it is there; None = something
                else is still to be done for them.

        Raises:
            UnansweredError: It may be there or not; the next attempt looks.
        """
        ts = self._seen.parts.get(name, self._posted.get(name))
        if ts is None:
            try:
                # Where Slack tells no time stamp, it is empty.
                ts = self._posted[name] = self._at_its_turn(lambda: self._post_once(message, name)) or ""
            except UnansweredError as error:
                self._accept_ambiguity(error, name, upto)
                raise
        if self._rules.threads and self._thread is None:
            self._thread = ts or None
        return ts or None

    def mark(self, count: int, name: str) -> None:
        """Keep that the first ``count`` records are told, the last of them by the message of that name."""
        self._delivery.mark(count)
        self._posted.pop(name, None)

    def attach(self, file: IO[bytes], size: int, name: str, *, under: str | None) -> None:
        """Upload a file into the thread of a message, unless it is there already."""
        if name not in self._seen.files:
            read = cast("IO[bytes]", _StoppableFile(file, self._run))
            self._at_its_turn(lambda: self._attach_once(read, size, name, self._thread or under))

    def done(self, before: Any) -> dict[str, Any]:
        """End the delivery; the state that its receipt keeps for the next one."""
        self._open.pop(self._delivery.id, None)
        kept = dict(before) if isinstance(before, dict) else {}
        if self._thread is not None:
            kept["thread"] = {"run": self._run.id, "ts": self._thread}
        return kept

    def _post_once(self, message: SlackMessage, name: str) -> str | None:
        part = self._part(name)
        try:
            return self._destination.post(message, part, thread=self._thread)
        except ThreadGoneError:
            self._thread = None
            return self._destination.post(message, part, thread=None)

    def _attach_once(self, file: IO[bytes], size: int, name: str, thread: str | None) -> None:
        file.seek(0)
        try:
            self._destination.attach(file, size, name, thread=thread)
        except ThreadGoneError:
            file.seek(0)
            self._destination.attach(file, size, name, thread=None)

    def _at_its_turn(self, call: Callable[[], T]) -> T:
        """Make a call when it is its turn, and again after Slack asked to wait."""
        for tries in itertools.count(1):
            self._pace.take(self._run.sleep)
            if self._run.stopping:
                raise muxly.StoppedError("the run was asked to stop")
            try:
                return call()
            except RateLimitedError as error:
                seconds = 1.0 if error.retry_after is None else error.retry_after
                self._pace.pause(seconds)
                if seconds > _LONGEST_WAIT_SECONDS or tries == _MOST_WAITS:
                    raise
        raise AssertionError("itertools.count does not end")

    def _accept_ambiguity(self, error: UnansweredError, name: str, upto: int | None) -> None:
        """Leave a message that may be there as it is, if the user wants that and nothing can be looked up."""
        if self._rules.on_ambiguous != "drop":
            return
        since = time.time() - _CLOCKS_SECONDS
        why = self._destination.seen(self._part(name), since=since, threads=False, thread=None)
        if isinstance(why, str):
            self._posted[name] = ""
            if upto is not None:
                self.mark(upto, name)
            message = f"{error}; the message counts as posted because on_ambiguous is drop and {why}"
            self._run.notice(muxly.Notice("slack_message_dropped", message, stream=self._delivery.stream.name))

    def _look_up(self) -> PostedMessages:
        """Find what of the delivery is at Slack already."""
        since = max(0.0, ulid_time_ms(self._delivery.id) / 1000 - _CLOCKS_SECONDS)
        threads, thread = self._rules.threads, self._thread or self._last_thread()
        seen = self._destination.seen(self._part(""), since=since, threads=threads, thread=thread)
        if isinstance(seen, str):
            self._notice_once(f"{seen}; a message of a delivery that is tried again may come twice")
            return PostedMessages()
        if self._rules.threads and self._thread is None:
            self._thread = seen.parent
        return seen

    def _notice_once(self, message: str) -> None:
        shown: set[str] = self._run.shared("slack.told", set)
        if message not in shown:
            shown.add(message)
            self._run.notice(muxly.Notice("slack_not_looked_up", message, level="info"))

    def _part(self, name: str) -> MessageKey:
        return MessageKey(delivery=self._delivery.id, name=name, stream=self._delivery.stream.name, run=self._run.id)

    def _kept_thread(self) -> dict[str, Any]:
        state = self._delivery.state
        kept = state.get("thread") if isinstance(state, dict) else None
        return kept if isinstance(kept, dict) else {}

    def _thread_of_run(self) -> str | None:
        kept = self._kept_thread()
        return kept.get("ts") if kept.get("run") == self._run.id else None

    def _last_thread(self) -> str | None:
        return self._kept_thread().get("ts") if self._rules.threads else None


@frozen
class _StoppableFile:
    """A file that cannot be read on when the run stops, so that a long upload ends too."""

    file: IO[bytes]
    run: muxly.Run

    def read(self, size: int = -1) -> bytes:
        if self.run.stopping:
            raise muxly.StoppedError("the run was asked to stop")
        return self.file.read(size)

    def seek(self, place: int) -> int:
        return self.file.seek(place)


def is_new(delivery: str, run_started_at: float, now: float) -> bool:
    """Return whether a delivery was made in this run, so that no earlier run can have posted anything of it.

    Args:
        delivery: Its id, a ULID.
        run_started_at: Unix time.
        now: Unix time; an id from the future tells nothing.
    """
    return run_started_at <= ulid_time_ms(delivery) / 1000 <= now


@frozen(kw_only=True)
class MessageKey:
    """Identifies a message; kept with it at Slack, so that it is found again.

    Args:
        delivery: The delivery's id.
        name: Which of its messages.
        stream: The stream.
        run: The run that posts it.
    """

    delivery: str
    name: str
    stream: str
    run: str


@frozen
class PostedMessages:
    """The messages and files of a delivery that are at Slack already.

    Args:
        parts: The time stamps of its messages, by the name of the part.
        files: The names of its files.
        parent: The first message that this run posted of the stream, if there is one.
    """

    parts: dict[str, str] = field(factory=dict)
    files: set[str] = field(factory=set)
    parent: str | None = None


class MessageDestination(Protocol):
    """Posts, and looks up what was posted."""

    key: str
    """Names the channel, for what is shared by all who post there; no secret."""

    def post(self, message: SlackMessage, part: MessageKey, *, thread: str | None) -> str | None:
        """Post a message; its time stamp, where the destination tells it.

        Raises:
            UnansweredError: It may be there or not.
            ThreadGoneError: The thread is not there any more; nothing was posted.
        """

    def attach(self, file: IO[bytes], size: int, name: str, *, thread: str | None) -> None:
        """Upload a file and show it."""

    def seen(self, part: MessageKey, *, since: float, threads: bool, thread: str | None) -> PostedMessages | str:
        """Look up what was posted of the delivery; a text says why that is impossible.

        Args:
            part: Names delivery, stream and run.
            since: Unix time before which it was not posted.
            threads: Whether it may be in the thread of its run.
            thread: Another thread in which it may be.
        """

    def check(self) -> list[str]:
        """Check the set-up, and return hints about it; raises what posting would raise."""


class IncomingWebhook:
    """The URL of an incoming webhook, which is a secret.

    Args:
        connection: Makes the requests.
        url: The URL.
    """

    def __init__(self, connection: SlackConnection, url: muxly.Secret) -> None:
        self.key = f"webhook:{hashlib.sha256(url.reveal().encode()).hexdigest()[:16]}"
        self._connection, self._url = connection, url

    def post(self, message: SlackMessage, part: MessageKey, *, thread: str | None) -> str | None:
        """Post a message; a webhook tells no time stamp."""
        payload: dict[str, Any] = {**message.payload, "unfurl_links": False, "unfurl_media": False}
        request = Request(  # noqa: S310 - the connection opens no files
            self._url.reveal(),
            data=json.dumps(payload).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
            method="POST",
        )
        answer = self._connection.send(request, what="the webhook")
        if answer.status != 200 or answer.text.strip() != "ok":
            raise webhook_error(answer, "the webhook")
        return None

    def attach(self, file: IO[bytes], size: int, name: str, *, thread: str | None) -> None:
        """A webhook takes no files; the options refuse it before."""
        raise muxly.RouteError("an incoming webhook takes no files; set attach: none, or use token and channel")

    def seen(self, part: MessageKey, *, since: float, threads: bool, thread: str | None) -> PostedMessages | str:
        """A webhook cannot look up what it posted."""
        return "an incoming webhook cannot look up what it posted"

    def check(self) -> list[str]:
        """Nothing can be asked of a webhook without posting."""
        return []
