"""Option groups of the router ``slack``, and the checks of its options."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

import attrs

import muxly

if TYPE_CHECKING:
    from muxly_routers.slack.delivery import DigestLayout
    from muxly_routers.slack.run_reports import QuietPeriod, ReportRules

__all__ = [
    "Digest",
    "QuietHours",
    "RunEvents",
    "check_channel",
    "check_message",
    "check_token",
    "check_url",
    "check_webhook",
    "url_problem",
]

ReportKind = Literal["failed", "partial", "delivery_failed", "recovered", "schema_changed", "notice"]
_TITLE = "{stream}: {count}"
_TITLE_FACTS = {"stream": "deals", "pipeline": "crm", "route": "sales", "run": "01J", "records": 1, "count": "1 record"}


def _check_title(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers._templates import Template

    template = Template.parse(value)
    unknown = sorted(template.fields - set(_TITLE_FACTS))
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is not a field of a title; there are {', '.join(sorted(_TITLE_FACTS))}")
    template.render(_TITLE_FACTS)


def _check_clock(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack.run_reports import clock_time

    clock_time(value)


def _check_end(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack.run_reports import clock_time

    if clock_time(value) == clock_time(instance.start):
        raise ValueError("the quiet hours begin when they end; leave quiet_hours out, or give two times")


def _check_zone(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack.run_reports import zone

    zone(value)


class Digest(muxly.Options):
    """One message for each delivery."""

    title: str = muxly.option(
        "Its title; {stream}, {count} such as 5 records, {records}, {pipeline}, {route} and {run} stand for values.",
        default=_TITLE,
        validator=_check_title,
    )
    rows: int = muxly.option(
        "So many records are shown as a table.",
        default=10,
        validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(99)),
    )
    columns: list[str] = muxly.option("Columns of the table, at most 20; default the first ones.", factory=list)
    table: Literal["block", "text"] = muxly.option(
        "A table as Slack draws it, or text in a code block for clients that draw none.", default="block"
    )

    def look(self) -> DigestLayout:
        """The same as a value."""
        from muxly_routers._templates import Template
        from muxly_routers.slack.delivery import DigestLayout

        return DigestLayout(
            title=Template.parse(self.title),
            rows=self.rows,
            columns=tuple(self.columns),
            layout=self.table,
        )


class QuietHours(muxly.Options):
    """A part of each day in which reports on runs are held back."""

    start: str = muxly.option("When it begins, by the clock on the wall.", default="22:00", validator=_check_clock)
    end: str = muxly.option(
        "When it ends; over midnight where it is the earlier one.", default="07:00", validator=_check_end
    )
    time_zone: str = muxly.option("Of the clock on the wall, such as Europe/Berlin.", validator=_check_zone)
    let_through: Literal["error", "warning", "nothing"] = muxly.option(
        "Reports that are posted all the same: failed runs; also those that are behind; none.", default="error"
    )

    def quiet_time(self) -> QuietPeriod:
        """The same as a value."""
        from muxly_routers.slack.run_reports import QuietPeriod, clock_time, zone

        return QuietPeriod(clock_time(self.start), clock_time(self.end), zone(self.time_zone))


class RunEvents(muxly.Options):
    """Reports on runs, from the records of the stream run_events."""

    report: list[ReportKind] = muxly.option("Kinds of reports.", factory=lambda: list(get_args(ReportKind)))
    notices: Literal["info", "warning", "error"] = muxly.option("Least level of notices.", default="warning")
    repeat_seconds: float = muxly.option(
        "The same failure or notice is told again only after so long, with how often it came.",
        default=6 * 3600.0,
        validator=attrs.validators.ge(0),
    )
    quiet_hours: QuietHours | None = muxly.option(
        "When reports are held back, to be told in one message by the first delivery after.", default=None
    )

    def rules(self) -> ReportRules:
        """The same as a value."""
        from muxly_routers.slack.run_reports import ReportRules

        hours = self.quiet_hours
        return ReportRules(
            kinds=frozenset(self.report),
            notices=self.notices,
            repeat=timedelta(seconds=self.repeat_seconds),
            quiet=None if hours is None else hours.quiet_time(),
            through=None if hours is None or hours.let_through == "nothing" else hours.let_through,
        )


_URL = re.compile(r"https?://[!-~]+")
_CHANNEL = re.compile(r"[CDG][A-Z0-9]{2,}")


def check_message(instance: Any, attribute: Any, value: Any) -> None:
    """Check that it is a template, and that no other option says what to post."""
    from muxly_routers.slack.message import MessageTemplate

    if value is None:
        return
    MessageTemplate.parse(value)
    if instance.template != "auto":
        raise ValueError(f"message is a template of your own; leave out template: {instance.template}, or message")
    if instance.attach != "none":
        raise ValueError("attach goes with a digest, which is posted where there is no message")


def check_token(instance: Any, attribute: Any, value: muxly.Secret | None) -> None:
    """Check that there is a token or the URL of a webhook, and not both."""
    if (value is None) == (instance.webhook_url is None):
        both = "none is given" if value is None else "both are given"
        raise ValueError(f"give webhook_url of an incoming webhook, or token and channel of a bot; {both}")


def check_webhook(instance: Any, attribute: Any, value: muxly.Secret | None) -> None:
    """Check that it is a URL, and that nothing is wanted that only a bot can do."""
    if value is None:
        return
    if problem := url_problem(value.reveal()):
        raise ValueError(f"webhook_url {problem}; copy it again from Incoming Webhooks")
    if instance.attach != "none":
        raise ValueError("an incoming webhook takes no files; set attach: none, or use token and channel")
    if instance.threads != "none":
        raise ValueError("an incoming webhook has no threads; set threads: none, or use token and channel")


def check_channel(instance: Any, attribute: Any, value: str) -> None:
    """Check that it is the id of a channel, where there is a token."""
    if instance.token is not None and not _CHANNEL.fullmatch(value):
        raise ValueError(
            f"a channel is given by its id, such as C0123ABCD, not {value!r}; it stands at the bottom of the "
            "channel's details in Slack"
        )
    if instance.token is None and value:
        raise ValueError("an incoming webhook belongs to one channel; leave channel out")


def check_url(instance: Any, attribute: Any, value: str) -> None:
    """Check that requests can be made to it."""
    if problem := url_problem(value):
        raise ValueError(f"base_url {problem}; leave it out for Slack's own")


def url_problem(url: str) -> str | None:
    """Why requests cannot be made to a URL, in words that do not show it; None if they can."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "names no host, or an invalid port"
    if not reachable or not _URL.fullmatch(url):
        return "does not begin with https:// and a host, or has spaces in it"
    return "has a user in it, which would not be sent" if "@" in parts.netloc else None
