"""Where messages go, as the outbox sees it: a bot in a channel, or an incoming webhook."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from muxly_routers.slack.message import SlackMessage

__all__ = ["MessageDestination", "MessageKey", "PostedMessages"]


@frozen(kw_only=True)
class MessageKey:
    """Which message of which delivery one is; kept with it at Slack, so that it is found again.

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
    """What of a delivery is at Slack already.

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
        """What is there of the delivery; or why that cannot be found out.

        Args:
            part: Names delivery, stream and run.
            since: Unix time before which it was not posted.
            threads: Whether it may be in the thread of its run.
            thread: Another thread in which it may be.
        """

    def check(self) -> list[str]:
        """What a person should know about the set-up; raises what posting would raise."""
