"""The router ``slack``: messages in a channel, for each record, for each delivery, or for events of runs.

A message carries the delivery's id as metadata. Where it is not known whether one arrived, the next
attempt looks into the channel's history, and each message is recorded as soon as it was posted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

import muxly
from muxly_routers.slack import options
from muxly_routers.slack.options import Digest, QuietHours, RunEvents

if TYPE_CHECKING:
    from muxly_routers.slack.outbox import MessageDestination, PostingRules

__all__ = ["Digest", "QuietHours", "RunEvents", "Slack"]

_RUN_EVENTS = "run_events"
_API = "https://slack.com/api/"
_OF_SLACK = re.compile(r"https://([a-z0-9-]+\.)*slack\.com/")


class Slack(muxly.Router):
    """Posts messages into a channel of Slack."""

    modes: ClassVar[frozenset[str]] = frozenset({"append"})
    promise: ClassVar[muxly.Promise] = "at_least_once"

    token: muxly.Secret | None = muxly.option(
        "Bot User OAuth Token of an app, xoxb-...", default=None, validator=options.check_token
    )
    channel: str = muxly.option(
        "Id of the channel for the token, such as C0123ABCD.", default="", validator=options.check_channel
    )
    webhook_url: muxly.Secret | None = muxly.option(
        "URL of an incoming webhook, instead of token and channel.", default=None, validator=options.check_webhook
    )
    message: str | dict[str, Any] | list[Any] | None = muxly.option(
        "Template of a message for each record: a text, a list of Block Kit blocks, or a mapping with text and "
        "blocks; {field} stands for a value.",
        default=None,
        validator=options.check_message,
    )
    template: Literal["auto", "digest", "run_events"] = muxly.option(
        "What is posted without message: a digest of each delivery, or reports on runs; auto takes run_events for "
        "the stream run_events.",
        default="auto",
    )
    digest: Digest = muxly.option("How a digest looks.", factory=Digest)
    run_events: RunEvents = muxly.option("What is reported on runs.", factory=RunEvents)
    attach: Literal["none", "csv", "jsonl", "parquet"] = muxly.option(
        "Format of a file with all records of the delivery, added to the thread of the digest.", default="none"
    )
    threads: Literal["none", "run"] = muxly.option(
        "run: the messages of a run and stream answer the first one of them.", default="none"
    )
    on_ambiguous: Literal["resend", "drop"] = muxly.option(
        "What becomes of a message whose answer was lost, where the history cannot be read.", default="resend"
    )
    messages_per_second: float = muxly.option(
        "Pace of the channel; Slack allows one message a second.", default=1.0, validator=attrs.validators.gt(0)
    )
    timeout_seconds: float = muxly.option(
        "Longest wait for Slack's whole answer.", default=20.0, validator=attrs.validators.gt(0)
    )
    base_url: str = muxly.option("Where Slack's Web API is.", default=_API, validator=options.check_url)

    def open(self, run: muxly.Run) -> None:
        """Remember the run; nothing is asked before there is something to post."""
        self._run = run
        self._posts_to: MessageDestination | None = None

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the token is valid, the bot in the channel, and the history readable."""
        try:
            found = self._destination().check()
        except muxly.DeliveryError as error:
            return [muxly.Notice("slack_refuses", str(error), level="error")]
        return [muxly.Notice("slack_set_up", message) for message in found]

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        """Post the delivery's messages; see the module for what holds after a crash."""
        # Loads pyarrow's encoders, which a route that has nothing to post does not need.
        from muxly_routers.slack import delivery as deliveries
        from muxly_routers.slack.message import MessageTemplate
        from muxly_routers.slack.outbox import Outbox

        if not any(batch.num_rows for batch in delivery.batches()):
            return None
        outbox = Outbox(self._run, self._destination(), delivery, self._posting_rules())
        state = delivery.state
        if self.message is not None:
            deliveries.post_records(delivery, outbox, MessageTemplate.parse(self.message))
        elif self._is_report(delivery.stream):
            runs = deliveries.post_reports(delivery, outbox, self.run_events.rules(), datetime.now(UTC))
            state = {**(state if isinstance(state, dict) else {}), "runs": runs}
        else:
            encoding = deliveries.encoding_of(self.attach)
            deliveries.post_digest(delivery, outbox, self.digest.look(), self._run, encoding)
        return muxly.Receipt(state=outbox.done(state))

    def close(self) -> None:
        """Release the client."""
        self._posts_to = None

    def _destination(self) -> MessageDestination:
        # slack-sdk loads 190 modules, which an incoming webhook does not need.
        from muxly_routers._http.messages import Redaction
        from muxly_routers.slack.client import SlackConnection

        if self._posts_to is None:
            if self.webhook_url is not None:
                from muxly_routers.slack.outbox import IncomingWebhook

                url = self.webhook_url.reveal()
                redaction = Redaction.of_request(url, self.webhook_url)
                connection = SlackConnection(self.timeout_seconds, guarded=self._is_guarded(url), redaction=redaction)
                self._posts_to = IncomingWebhook(connection, self.webhook_url)
            else:
                from muxly_routers.slack.bot import SlackBot

                assert self.token is not None
                redaction = Redaction.of([self.token.reveal()])
                connection = SlackConnection(
                    self.timeout_seconds, guarded=self._is_guarded(self.base_url), redaction=redaction
                )
                self._posts_to = SlackBot(connection, token=self.token, base_url=self.base_url, channel=self.channel)
        return self._posts_to

    def _is_guarded(self, url: str) -> bool:
        """Return whether someone other than the operator wrote the configuration, and the URL is not Slack's own."""
        return self._run.guarded and not _OF_SLACK.match(url)

    def _is_report(self, stream: muxly.Stream) -> bool:
        return self.template == "run_events" or (self.template == "auto" and stream.name == _RUN_EVENTS)

    def _posting_rules(self) -> PostingRules:
        from muxly_routers.slack.outbox import PostingRules

        return PostingRules(
            threads=self.threads == "run",
            on_ambiguous=self.on_ambiguous,
            messages_per_second=self.messages_per_second,
        )


@muxly.hookimpl
def muxly_router() -> type[Slack]:
    """The router of this module."""
    return Slack
