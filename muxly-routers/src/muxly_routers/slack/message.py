"""Messages as values: templates, tables and Block Kit, escaped and cut to Slack's limits."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

import muxly
from muxly_routers._templates import Escape, Template

__all__ = [
    "COLUMNS_LIMIT",
    "ELLIPSIS",
    "MessageTemplate",
    "ROWS_LIMIT",
    "SlackMessage",
    "context",
    "escape",
    "escape_markdown",
    "fenced",
    "header",
    "line",
    "section",
    "shortened",
    "table_block",
    "text_table",
]

Block = dict[str, Any]

# docs.slack.dev/reference/block-kit/blocks and /reference/methods/chat.postMessage
TEXT_LIMIT, SECTION_LIMIT, FIELD_LIMIT, HEADER_LIMIT, CONTEXT_LIMIT = 40_000, 3_000, 2_000, 150, 3_000
BLOCKS_LIMIT, FIELDS_LIMIT, ELEMENTS_LIMIT = 50, 10, 10
# Beside blocks, the text is what a notification shows.
NOTIFICATION_LIMIT = 3_000
_EMPTY = "-"


def _fitted(blocks: Iterable[Block]) -> tuple[Block, ...]:
    found = [_block(block) for block in blocks]
    if len(found) > BLOCKS_LIMIT:
        left = len(found) - BLOCKS_LIMIT + 1
        found = [*found[: BLOCKS_LIMIT - 1], context(f"… and {left} more blocks")]
    return tuple(found)


@frozen
class SlackMessage:
    """A message: blocks, and the text of notifications; or a text alone.

    Args:
        text: Escaped; cut to what Slack takes.
        blocks: Block Kit; each is cut to what Slack takes.
    """

    text: str = field()
    blocks: tuple[Block, ...] = field(default=(), converter=_fitted)

    @property
    def payload(self) -> dict[str, Any]:
        """The arguments of ``chat.postMessage`` and the body of an incoming webhook."""
        if not self.blocks:
            return {"text": shortened(self.text, TEXT_LIMIT)}
        return {"text": shortened(self.text, NOTIFICATION_LIMIT), "blocks": list(self.blocks)}


def header(text: str) -> Block:
    """A block with large text; ``text`` is escaped."""
    return {"type": "header", "text": {"type": "plain_text", "text": text, "emoji": True}}


def section(text: str) -> Block:
    """A block with text; ``text`` is escaped mrkdwn."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def context(text: str) -> Block:
    """A block with small grey text; ``text`` is escaped mrkdwn."""
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def _block(block: Block) -> Block:
    """A block within its limits; blocks of other kinds are not cut."""
    block = _verbatim(block)
    kind = block.get("type")
    if kind == "header":
        return _with_text(block, HEADER_LIMIT)
    if kind == "section":
        fields = block.get("fields")
        if isinstance(fields, list):
            block = {**block, "fields": [_fitted_text(field, FIELD_LIMIT) for field in fields[:FIELDS_LIMIT]]}
        return _with_text(block, SECTION_LIMIT)
    if kind == "context" and isinstance(block.get("elements"), list):
        return {
            **block,
            "elements": [_fitted_text(element, CONTEXT_LIMIT) for element in block["elements"][:ELEMENTS_LIMIT]],
        }
    return block


def _with_text(block: Block, limit: int) -> Block:
    return {**block, "text": _fitted_text(block["text"], limit)} if "text" in block else block


def _fitted_text(element: Any, limit: int) -> Any:
    """A text object within its limit."""
    if not isinstance(element, dict) or element.get("type") not in ("mrkdwn", "plain_text"):
        return element
    return {**element, "text": shortened(str(element.get("text") or _EMPTY), limit)}


def _verbatim(node: Any) -> Any:
    """A block in whose texts, however deep, Slack looks for nothing that they do not mark themselves.

    Without ``verbatim`` it makes links of names of channels and of some mentions.
    """
    if isinstance(node, list):
        return [_verbatim(child) for child in node]
    if not isinstance(node, dict):
        return node
    found = {key: _verbatim(child) for key, child in node.items()}
    return {"verbatim": True, **found} if found.get("type") == "mrkdwn" else found


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


# docs.slack.dev/reference/block-kit/blocks/table-block; the first row is the header.
ROWS_LIMIT, COLUMNS_LIMIT = 99, 20
_ALL_CELLS_LIMIT = 9_000
_CELL_LIMIT = 100
_FENCE_LIMIT = 2_800
_FENCE_CELL = 24


def table_block(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table block; its cells are raw text, in which nothing has a meaning."""
    columns = columns[:COLUMNS_LIMIT]
    width = max(4, min(_CELL_LIMIT, _ALL_CELLS_LIMIT // (len(columns) * (len(records) + 1))))
    rows = [[line(name, width) or _EMPTY for name in columns]]
    rows += [[_cell(record.get(name), width) for name in columns] for record in records[:ROWS_LIMIT]]
    numeric = [_is_numeric([record.get(name) for record in records]) for name in columns]
    return {
        "type": "table",
        "column_settings": [{"align": "right" if right else "left"} for right in numeric],
        "rows": [[{"type": "raw_text", "text": cell} for cell in row] for row in rows],
    }


def text_table(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A section with the records aligned in a code fence, as many as there is room for."""
    columns = columns[:COLUMNS_LIMIT]
    cells = [[_cell(record.get(name), _FENCE_CELL) for name in columns] for record in records]
    rows = [[line(name, _FENCE_CELL) or _EMPTY for name in columns], *cells]
    widths = [max(_width(row[at]) for row in rows) for at in range(len(columns))]
    numeric = [_is_numeric([record.get(name) for record in records]) for name in columns]
    lines = [_aligned(row, widths, numeric) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    shown = len(records)
    while shown > 1 and len(_fenced_rows(lines, shown)) > _FENCE_LIMIT:
        shown -= 1
    return section(_fenced_rows(lines, shown))


def _fenced_rows(lines: Sequence[str], shown: int) -> str:
    """The first rows below their header, and how many there would be more."""
    left = len(lines) - 2 - shown
    return fenced("\n".join([*lines[: 2 + shown], *([f"… and {left} more"] if left else [])]))


def _aligned(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = []
    for cell, width, right in zip(row, widths, numeric, strict=True):
        space = " " * (width - _width(cell))
        parts.append(space + cell if right else cell + space)
    return "  ".join(parts).rstrip()


def _width(text: str) -> int:
    """The columns that a text takes in a monospaced font."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _cell(value: Any, width: int) -> str:
    return line(_shown(value), width) or _EMPTY


def _shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value[:_CELL_LIMIT].hex()
    return str(value)


def _is_numeric(values: Sequence[Any]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in found
    )


_KEYS = {"text", "blocks"}
_TEXTS = {"mrkdwn", "plain_text"}


@frozen
class MessageTemplate:
    """A user's template for the message of a record.

    Args:
        parts: Its ``text``, its ``blocks``, or both, with a template for each text in them.
        whole: The same as one template.
    """

    parts: Mapping[str, Any]
    whole: Template

    @classmethod
    def parse(cls, source: Any) -> MessageTemplate:
        """Read a template: a text, a list of blocks, or a mapping with ``text`` and ``blocks``.

        Raises:
            ValueError: It is none; the message says where and why.
        """
        parts = source if isinstance(source, dict) else {"text" if isinstance(source, str) else "blocks": source}
        if not (parts and set(parts) <= _KEYS):
            other = ", ".join(sorted(set(parts) - _KEYS)) or "nothing"
            raise ValueError(f"a message is a text, a list of blocks, or has text and blocks, not {other}")
        _check_blocks(parts.get("blocks", []))
        if not isinstance(parts.get("text", ""), str):
            raise ValueError("the text of a message is a text")
        whole = Template.parse(parts)
        return cls(_parsed(parts), whole)

    def render(self, record: Mapping[str, Any]) -> SlackMessage:
        """The message of a record that has all fields.

        Raises:
            RejectedError: A value does not fit its format, or nothing is left to say.
        """
        try:
            rendered = _rendered(self.parts, record)
        except ValueError as error:
            raise muxly.RejectedError(f"message: {error}") from error
        text, blocks = rendered.get("text", ""), rendered.get("blocks", [])
        if not text.strip() and not blocks:
            raise muxly.RejectedError("message: the template gives an empty text for this record")
        return SlackMessage(text or _first_text(blocks), blocks)


def _check_blocks(blocks: Any) -> None:
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise ValueError("blocks are a list of mappings; docs.slack.dev/reference/block-kit/blocks")
    for number, block in enumerate(blocks):
        if not isinstance(block.get("type"), str):
            raise ValueError(f"blocks[{number}] has no type, such as section or header")


def _parsed(source: Any) -> Any:
    if isinstance(source, list):
        return [_parsed(child) for child in source]
    if isinstance(source, dict):
        return {key: _parsed(child) for key, child in source.items()}
    return Template.parse(source) if isinstance(source, str) else source


def _rendered(node: Any, record: Mapping[str, Any], key: str = "", kind: str = "") -> Any:
    """Render a part of a template.

    Args:
        node: The part.
        record: The record.
        key: Under which it stands.
        kind: The ``type`` of the object in which it stands.
    """
    if isinstance(node, list):
        return [_rendered(child, record) for child in node]
    if isinstance(node, dict):
        kind = str(_rendered(node.get("type"), record))
        return {name: _rendered(child, record, name, kind) for name, child in node.items()}
    if not isinstance(node, Template):
        return node
    found = node.render(record, escape=_escape(key, kind))
    if key != "text" or isinstance(found, str):
        return found
    # A place alone has become the value itself.
    return "" if found is None else json.dumps(found, ensure_ascii=False)


def _escape(key: str, kind: str) -> Escape:
    """The escaping for a place: Slack reads markup in texts, but not in addresses and raw cells."""
    if key.endswith("url") or kind == "raw_text":
        return lambda text, _before: text
    return escape_markdown if kind == "markdown" else escape


def _first_text(blocks: list[dict[str, Any]]) -> str:
    """The text of a notification where the template has none of its own."""
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and text.get("type") in _TEXTS and str(text.get("text") or "").strip():
            return str(text["text"])
    return "-"
