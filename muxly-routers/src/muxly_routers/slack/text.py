"""Text as Slack reads it: control characters made harmless, and cut where Slack would refuse it."""

from __future__ import annotations

import re
from urllib.parse import quote

__all__ = ["ELLIPSIS", "escape", "escape_markdown", "fenced", "line", "shortened"]

ELLIPSIS = "…"
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# What ends the address of a link or stands in none; a mention begins as a link does: <!channel>, <@U123>, <#C123>.
_ENDS_ADDRESS = re.compile(r"[|>\s]")
_NOT_IN_ADDRESS = re.compile(r"[|\s\x00-\x1f\x7f]")
_MARKS = re.compile(r"^[!@#]|[|\s\x00-\x1f\x7f]")
# docs.slack.dev/reference/block-kit/blocks/markdown-block, "Escaping special characters"
_PUNCTUATION = re.compile(r"[\\`*_{}\[\]()#+\-.!|~=]")
# What a cut may leave of `&amp;` or of a link that a template writes.
_HALF_ENTITY = re.compile(r"&[a-z]{0,4}$")
_HALF_LINK = re.compile(r"<[^<>]*$")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029]+")
_FENCE = "```"
_APOSTROPHE = "'"


def escape(text: str, before: str = "") -> str:
    """Text whose ``<!channel>``, ``<@U123>`` and ``<http://x|y>`` are only text.

    The three characters that Slack gives a meaning to; docs.slack.dev/messaging/formatting-message-text.

    Args:
        text: What a record brings.
        before: What a template has in front of it. In the address of a link, ``<{url}|open>``, it becomes
            neither a mention nor the link's words, and in a code block it does not end that.
    """
    begun = before.rpartition("<")
    if begun[1] and not _ENDS_ADDRESS.search(begun[2]):
        text = _as_address(text, first=not begun[2])
    if before.count(_FENCE) % 2:
        text = text.replace("`", _APOSTROPHE)
    return text.translate(_ESCAPES)


def _as_address(text: str, *, first: bool) -> str:
    return (_MARKS if first else _NOT_IN_ADDRESS).sub(lambda found: quote(found[0], safe=""), text)


def escape_markdown(text: str, before: str = "") -> str:
    """Text without a meaning in a block of the type ``markdown``: no links, no mentions, no headings."""
    return _PUNCTUATION.sub(r"\\\g<0>", text).translate(_ESCAPES)


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
