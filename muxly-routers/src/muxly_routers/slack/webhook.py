"""An incoming webhook: it takes messages, and tells nothing about them."""

from __future__ import annotations

import hashlib
import json
from typing import IO, TYPE_CHECKING, Any
from urllib.request import Request

import muxly
from muxly_routers.slack import errors

if TYPE_CHECKING:
    from muxly_routers.slack.client import SlackConnection
    from muxly_routers.slack.destination import MessageKey, PostedMessages
    from muxly_routers.slack.message import SlackMessage

__all__ = ["IncomingWebhook"]


class IncomingWebhook:
    """The URL of an incoming webhook, which is a secret.

    Args:
        wire: Makes the requests.
        url: The URL.
    """

    def __init__(self, wire: SlackConnection, url: muxly.Secret) -> None:
        self.key = f"webhook:{hashlib.sha256(url.reveal().encode()).hexdigest()[:16]}"
        self._wire, self._url = wire, url

    def post(self, message: SlackMessage, part: MessageKey, *, thread: str | None) -> str | None:
        """Post a message; a webhook tells no time stamp."""
        payload: dict[str, Any] = {**message.payload, "unfurl_links": False, "unfurl_media": False}
        request = Request(  # noqa: S310 - the wire opens no files
            self._url.reveal(),
            data=json.dumps(payload).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
            method="POST",
        )
        answer = self._wire.send(request, what="the webhook")
        if answer.status != 200 or answer.body.strip() != "ok":
            raise errors.of_webhook(answer, "the webhook")
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
