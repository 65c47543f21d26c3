"""A message for each record, from a user's template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

import muxly
from muxly_routers._templates import Template
from muxly_routers.slack.message import SlackMessage
from muxly_routers.slack.text import escape, escape_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly_routers._templates import Escape

__all__ = ["MessageTemplate"]

_KEYS = {"text", "blocks"}
_TEXTS = {"mrkdwn", "plain_text"}


@frozen
class MessageTemplate:
    """What a record is told with.

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
    if not isinstance(blocks, list) or not all(isinstance(one, dict) for one in blocks):
        raise ValueError("blocks are a list of mappings; docs.slack.dev/reference/block-kit/blocks")
    for number, one in enumerate(blocks):
        if not isinstance(one.get("type"), str):
            raise ValueError(f"blocks[{number}] has no type, such as section or header")


def _parsed(source: Any) -> Any:
    if isinstance(source, list):
        return [_parsed(one) for one in source]
    if isinstance(source, dict):
        return {key: _parsed(one) for key, one in source.items()}
    return Template.parse(source) if isinstance(source, str) else source


def _rendered(node: Any, record: Mapping[str, Any], key: str = "", kind: str = "") -> Any:
    """What a template's part becomes.

    Args:
        node: The part.
        record: The record.
        key: Under which it stands.
        kind: The ``type`` of the object in which it stands.
    """
    if isinstance(node, list):
        return [_rendered(one, record) for one in node]
    if isinstance(node, dict):
        kind = str(_rendered(node.get("type"), record))
        return {name: _rendered(one, record, name, kind) for name, one in node.items()}
    if not isinstance(node, Template):
        return node
    found = node.render(record, escape=_escape(key, kind))
    if key != "text" or isinstance(found, str):
        return found
    # A place alone has become the value itself.
    return "" if found is None else json.dumps(found, ensure_ascii=False)


def _escape(key: str, kind: str) -> Escape:
    """What text of a record needs where it stands: Slack reads markup in texts, but not in addresses and raw cells."""
    if key.endswith("url") or kind == "raw_text":
        return lambda text, _before: text
    return escape_markdown if kind == "markdown" else escape


def _first_text(blocks: list[dict[str, Any]]) -> str:
    """What a notification shows where the template has no text of its own."""
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and text.get("type") in _TEXTS and str(text.get("text") or "").strip():
            return str(text["text"])
    return "-"
