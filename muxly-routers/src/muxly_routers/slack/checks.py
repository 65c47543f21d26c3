"""What the options of the router ``slack`` may be; several look at others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import muxly

__all__ = ["check_channel", "check_message", "check_token", "check_url", "check_webhook", "url_problem"]

_URL = re.compile(r"https?://[!-~]+")
_CHANNEL = re.compile(r"[CDG][A-Z0-9]{2,}")


def check_message(instance: Any, attribute: Any, value: Any) -> None:
    """Whether it is a template, and nothing else says what is posted."""
    from muxly_routers.slack.templated import MessageTemplate

    if value is None:
        return
    MessageTemplate.parse(value)
    if instance.template != "auto":
        raise ValueError(f"message is a template of your own; leave template: {instance.template} away, or message")
    if instance.attach != "none":
        raise ValueError("attach goes with a digest, which is posted where there is no message")


def check_token(instance: Any, attribute: Any, value: muxly.Secret | None) -> None:
    """Whether there is a token or the URL of a webhook, and not both."""
    if (value is None) == (instance.webhook_url is None):
        both = "none is given" if value is None else "both are given"
        raise ValueError(f"give webhook_url of an incoming webhook, or token and channel of a bot; {both}")


def check_webhook(instance: Any, attribute: Any, value: muxly.Secret | None) -> None:
    """Whether it is a URL, and nothing is wanted that only a bot can do."""
    if value is None:
        return
    if problem := url_problem(value.reveal()):
        raise ValueError(f"webhook_url {problem}; copy it again from Incoming Webhooks")
    if instance.attach != "none":
        raise ValueError("an incoming webhook takes no files; set attach: none, or use token and channel")
    if instance.threads != "none":
        raise ValueError("an incoming webhook has no threads; set threads: none, or use token and channel")


def check_channel(instance: Any, attribute: Any, value: str) -> None:
    """Whether it is the id of a channel, where there is a token."""
    if instance.token is not None and not _CHANNEL.fullmatch(value):
        raise ValueError(
            f"a channel is given by its id, such as C0123ABCD, not {value!r}; it stands at the bottom of the "
            "channel's details in Slack"
        )
    if instance.token is None and value:
        raise ValueError("an incoming webhook belongs to one channel; leave channel away")


def check_url(instance: Any, attribute: Any, value: str) -> None:
    """Whether requests can be made to it."""
    if problem := url_problem(value):
        raise ValueError(f"base_url {problem}; leave it away for Slack's own")


def url_problem(url: str) -> str | None:
    """Why requests cannot be made to a URL, in words that do not show it; None if they can."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "names no host, or a port that is none"
    if not reachable or not _URL.fullmatch(url):
        return "does not begin with https:// and a host, or has spaces in it"
    return "has a user in it, who would be sent nowhere" if "@" in parts.netloc else None
