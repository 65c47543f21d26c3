"""Text as Slack reads it: control characters made harmless, and cut where Slack would refuse it."""

from __future__ import annotations

import re

__all__ = ["ELLIPSIS", "escape", "fenced", "line", "shortened"]

ELLIPSIS = "…"
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# What a cut may leave of `&amp;` or of a link that a template writes.
_HALF_ENTITY = re.compile(r"&[a-z]{0,4}$")
_HALF_LINK = re.compile(r"<[^<>]*$")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029]+")
_FENCE = "```"
_APOSTROPHE = "'"


def escape(text: str) -> str:
    """Text whose ``<!channel>``, ``<@U123>`` and ``<http://x|y>`` are only text.

    The three characters that Slack gives a meaning to; docs.slack.dev/messaging/formatting-message-text.
    """
    return text.translate(_ESCAPES)


def line(text: str, width: int) -> str:
    """Text in one line of at most so many characters."""
    plain = _SPACES.sub(" ", text).strip()
    return plain if len(plain) <= width else plain[: width - 1] + ELLIPSIS


def fenced(text: str) -> str:
    """Text inside a code fence that it cannot end."""
    return f"{_FENCE}\n{escape(text.replace('`', _APOSTROPHE))}\n{_FENCE}"


def shortened(text: str, limit: int) -> str:
    """Escaped text of at most so many characters; what is cut off is counted.

    Args:
        text: As Slack gets it; half an entity, half a link or an open code fence is not left behind.
        limit: At least 100.
    """
    if len(text) <= limit:
        return text
    kept = text[: limit - 40]
    kept = _HALF_ENTITY.sub("", _HALF_LINK.sub("", kept))
    if kept.count(_FENCE) % 2:
        kept += f"\n{_FENCE}"
    return f"{kept}{ELLIPSIS} ({len(text) - len(kept):,} more characters)"
