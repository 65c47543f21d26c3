"""Posting a delivery's messages: in order, at Slack's pace, in their thread, and none twice if that can be known."""

from __future__ import annotations

import itertools
import time
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, cast

from attrs import frozen

import muxly
from muxly.retry import RateBucket
from muxly_routers._deliveries import ulid_time_ms
from muxly_routers.slack.client import ThreadGoneError, UnansweredError
from muxly_routers.slack.destination import Part, Seen
from muxly_routers.slack.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly_routers.slack.destination import Destination
    from muxly_routers.slack.message import Message

__all__ = ["Manner", "Outbox", "is_new"]

T = TypeVar("T")

# Slack's clock and ours may differ.
_CLOCKS_SECONDS = 300.0
# A longer wait is left to the runner, which shows it.
_LONGEST_WAIT_SECONDS, _MOST_WAITS = 60.0, 5


@frozen(kw_only=True)
class Manner:
    """How messages are posted.

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
        manner: How.
    """

    def __init__(self, run: muxly.Run, destination: Destination, delivery: muxly.Delivery, manner: Manner) -> None:
        self._run, self._destination, self._delivery, self._manner = run, destination, delivery, manner
        rate = manner.messages_per_second
        self._pace = run.shared(f"slack.pace:{destination.key}", lambda: RateBucket(rate))
        self._thread = self._thread_of_run() if manner.threads else None
        # What this process posted of deliveries that are not done: the time stamps by name, but for what was marked.
        self._open: dict[str, dict[str, str]] = run.shared("slack.open", dict)
        first = delivery.id not in self._open and is_new(delivery.id, run.started_at.timestamp(), time.time())
        self._posted = self._open.setdefault(delivery.id, {})
        self._seen = Seen() if first else self._look_up()

    def post(self, message: Message, name: str, *, upto: int | None = None) -> str | None:
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
                ts = self._posted[name] = self._patiently(lambda: self._post_once(message, name)) or ""
            except UnansweredError as error:
                self._give_up(error, name, upto)
                raise
        if self._manner.threads and self._thread is None:
            self._thread = ts or None
        return ts or None

    def mark(self, count: int, name: str) -> None:
        """Keep that the first ``count`` records are told, the last of them by the message of that name."""
        self._delivery.mark(count)
        self._posted.pop(name, None)

    def attach(self, file: IO[bytes], size: int, name: str, *, under: str | None) -> None:
        """Upload a file into the thread of a message, unless it is there already."""
        if name not in self._seen.files:
            read = cast("IO[bytes]", _WhileRunning(file, self._run))
            self._patiently(lambda: self._attach_once(read, size, name, self._thread or under))

    def done(self, before: Any) -> dict[str, Any]:
        """End the delivery; the state that its receipt keeps for the next one."""
        self._open.pop(self._delivery.id, None)
        kept = dict(before) if isinstance(before, dict) else {}
        if self._thread is not None:
            kept["thread"] = {"run": self._run.id, "ts": self._thread}
        return kept

    def _post_once(self, message: Message, name: str) -> str | None:
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

    def _patiently(self, call: Callable[[], T]) -> T:
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

    def _give_up(self, error: UnansweredError, name: str, upto: int | None) -> None:
        """Leave a message that may be there as it is, if the user wants that and nothing can be looked up."""
        if self._manner.on_ambiguous != "drop":
            return
        since = time.time() - _CLOCKS_SECONDS
        why = self._destination.seen(self._part(name), since=since, threads=False, thread=None)
        if isinstance(why, str):
            self._posted[name] = ""
            if upto is not None:
                self.mark(upto, name)
            told = f"{error}; the message counts as posted because on_ambiguous is drop and {why}"
            self._run.notice(muxly.Notice("slack_message_dropped", told, stream=self._delivery.stream.name))

    def _look_up(self) -> Seen:
        """Find what of the delivery is at Slack already."""
        since = max(0.0, ulid_time_ms(self._delivery.id) / 1000 - _CLOCKS_SECONDS)
        threads, thread = self._manner.threads, self._thread or self._last_thread()
        seen = self._destination.seen(self._part(""), since=since, threads=threads, thread=thread)
        if isinstance(seen, str):
            self._tell_once(f"{seen}; a message of a delivery that is tried again may come twice")
            return Seen()
        if self._manner.threads and self._thread is None:
            self._thread = seen.parent
        return seen

    def _tell_once(self, message: str) -> None:
        told: set[str] = self._run.shared("slack.told", set)
        if message not in told:
            told.add(message)
            self._run.notice(muxly.Notice("slack_not_looked_up", message, level="info"))

    def _part(self, name: str) -> Part:
        return Part(delivery=self._delivery.id, name=name, stream=self._delivery.stream.name, run=self._run.id)

    def _kept_thread(self) -> dict[str, Any]:
        state = self._delivery.state
        kept = state.get("thread") if isinstance(state, dict) else None
        return kept if isinstance(kept, dict) else {}

    def _thread_of_run(self) -> str | None:
        kept = self._kept_thread()
        return kept.get("ts") if kept.get("run") == self._run.id else None

    def _last_thread(self) -> str | None:
        return self._kept_thread().get("ts") if self._manner.threads else None


@frozen
class _WhileRunning:
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
    """Whether a delivery was made in this run, so that no earlier run can have posted anything of it.

    Args:
        delivery: Its id, a ULID.
        run_started_at: Unix time.
        now: Unix time; an id from the future tells nothing.
    """
    return run_started_at <= ulid_time_ms(delivery) / 1000 <= now
