"""A message for each record, from a user's template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

import muxly
from muxly_routers._slack.message import Message
from muxly_routers._slack.text import escape
from muxly_routers._templates import Template, UnknownFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MessageTemplate"]

_KEYS = {"text", "blocks"}


@frozen
class MessageTemplate:
    """What a record is told with.

    Args:
        parts: Its ``text``, its ``blocks``, or both.
        template: The same, parsed.
    """

    parts: Mapping[str, Any]
    template: Template

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
        return cls(parts, Template.parse(parts))

    def render(self, record: Mapping[str, Any]) -> Message:
        """The message of a record.

        Raises:
            RouteError: The records have no such field.
            RejectedError: A value does not fit its format, or nothing is left to say.
        """
        try:
            rendered = _with_texts(self.parts, self.template.render(record, escape=escape))
        except UnknownFieldError as error:
            raise muxly.RouteError(f"message: {error}") from error
        except ValueError as error:
            raise muxly.RejectedError(f"message: {error}") from error
        text, blocks = rendered.get("text", ""), rendered.get("blocks", [])
        if not text.strip() and not blocks:
            raise muxly.RejectedError("message: the template gives an empty text for this record")
        return Message(text or _first_text(blocks), blocks)


def _check_blocks(blocks: Any) -> None:
    if not isinstance(blocks, list) or not all(isinstance(one, dict) for one in blocks):
        raise ValueError("blocks are a list of mappings; docs.slack.dev/reference/block-kit/blocks")
    for number, one in enumerate(blocks):
        if not isinstance(one.get("type"), str):
            raise ValueError(f"blocks[{number}] has no type, such as section or header")


def _with_texts(source: Any, rendered: Any, key: str = "") -> Any:
    """A rendered template in which every ``text`` is a text: a place alone has become the value itself."""
    if isinstance(source, list):
        return [_with_texts(one, other) for one, other in zip(source, rendered, strict=True)]
    if isinstance(source, dict):
        return {name: _with_texts(one, rendered[name], name) for name, one in source.items()}
    if key != "text" or isinstance(rendered, str):
        return rendered
    return "" if rendered is None else json.dumps(rendered, ensure_ascii=False)


def _first_text(blocks: list[dict[str, Any]]) -> str:
    """What a notification shows where the template has no text of its own."""
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and str(text.get("text") or "").strip():
            return str(text["text"])
    return "-"
