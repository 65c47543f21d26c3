"""A message as a value, made to fit Slack's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from muxly_routers.slack.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SlackMessage", "context", "header", "section"]

Block = dict[str, Any]

# docs.slack.dev/reference/block-kit/blocks and /reference/methods/chat.postMessage
TEXT_LIMIT, SECTION_LIMIT, FIELD_LIMIT, HEADER_LIMIT, CONTEXT_LIMIT = 40_000, 3_000, 2_000, 150, 3_000
BLOCKS_LIMIT, FIELDS_LIMIT, ELEMENTS_LIMIT = 50, 10, 10
# Beside blocks, the text is what a notification shows.
NOTIFICATION_LIMIT = 3_000
_EMPTY = "-"


def _fitted(blocks: Iterable[Block]) -> tuple[Block, ...]:
    found = [_block(one) for one in blocks]
    if len(found) > BLOCKS_LIMIT:
        left = len(found) - BLOCKS_LIMIT + 1
        found = [*found[: BLOCKS_LIMIT - 1], context(f"… and {left} more blocks")]
    return tuple(found)


@frozen
class SlackMessage:
    """What is posted: blocks, and the text of notifications; or a text alone.

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
            block = {**block, "fields": [_text(one, FIELD_LIMIT) for one in fields[:FIELDS_LIMIT]]}
        return _with_text(block, SECTION_LIMIT)
    if kind == "context" and isinstance(block.get("elements"), list):
        return {**block, "elements": [_text(one, CONTEXT_LIMIT) for one in block["elements"][:ELEMENTS_LIMIT]]}
    return block


def _with_text(block: Block, limit: int) -> Block:
    return {**block, "text": _text(block["text"], limit)} if "text" in block else block


def _text(element: Any, limit: int) -> Any:
    """A text object within its limit."""
    if not isinstance(element, dict) or element.get("type") not in ("mrkdwn", "plain_text"):
        return element
    return {**element, "text": shortened(str(element.get("text") or _EMPTY), limit)}


def _verbatim(node: Any) -> Any:
    """A block in whose texts, however deep, Slack looks for nothing that they do not mark themselves.

    Without ``verbatim`` it makes links of names of channels and of some mentions.
    """
    if isinstance(node, list):
        return [_verbatim(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: _verbatim(one) for key, one in node.items()}
    return {"verbatim": True, **found} if found.get("type") == "mrkdwn" else found
