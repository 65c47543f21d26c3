"""A message for each record, from a user's template."""

from __future__ import annotations

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
        template: Of the text, the list of blocks, or the mapping with both.
    """

    template: Template

    @classmethod
    def parse(cls, source: Any) -> MessageTemplate:
        """Read a template: a text, a list of blocks, or a mapping with ``text`` and ``blocks``.

        Raises:
            ValueError: It is none; the message says where and why.
        """
        if isinstance(source, dict) and not (source and set(source) <= _KEYS):
            other = ", ".join(sorted(set(source) - _KEYS)) or "nothing"
            raise ValueError(f"a message is a text, a list of blocks, or has text and blocks, not {other}")
        parts = source if isinstance(source, dict) else {"text" if isinstance(source, str) else "blocks": source}
        _check_blocks(parts.get("blocks", []))
        if not isinstance(parts.get("text", ""), str):
            raise ValueError("the text of a message is a text")
        return cls(Template.parse(source))

    def render(self, record: Mapping[str, Any]) -> Message:
        """The message of a record.

        Raises:
            RouteError: The records have no such field.
            RejectedError: A value does not fit its format, or nothing is left to say.
        """
        try:
            rendered = _texts(self.template.render(record, escape=escape))
        except UnknownFieldError as error:
            raise muxly.RouteError(f"message: {error}") from error
        except ValueError as error:
            raise muxly.RejectedError(f"message: {error}") from error
        found = rendered if isinstance(rendered, dict) else {}
        blocks = rendered if isinstance(rendered, list) else found.get("blocks") or []
        text = found.get("text", "") if isinstance(rendered, dict | list) else str(rendered or "")
        if not text.strip() and not blocks:
            raise muxly.RejectedError("message: the template gives an empty text for this record")
        return Message(text or _first_text(blocks), blocks)


def _check_blocks(blocks: Any) -> None:
    if not isinstance(blocks, list) or not all(isinstance(one, dict) for one in blocks):
        raise ValueError("blocks are a list of mappings; docs.slack.dev/reference/block-kit/blocks")
    for number, one in enumerate(blocks):
        if not isinstance(one.get("type"), str):
            raise ValueError(f"blocks[{number}] has no type, such as section or header")


def _texts(value: Any, key: str = "") -> Any:
    """A rendered template in which every ``text`` is a text: a place alone may have become a number."""
    if isinstance(value, list):
        return [_texts(one) for one in value]
    if isinstance(value, dict):
        return {name: _texts(one, name) for name, one in value.items()}
    if key != "text" or isinstance(value, str):
        return value
    return "" if value is None else str(value)


def _first_text(blocks: list[dict[str, Any]]) -> str:
    """What a notification shows where the template has no text of its own."""
    for block in blocks:
        text = block.get("text")
        if isinstance(text, dict) and str(text.get("text") or "").strip():
            return str(text["text"])
    return "-"
