"""A message as plain text, the way a reader of Slack sees it: for the pages of the documentation."""

from __future__ import annotations

import html
import re
from typing import Any

__all__ = ["drawn"]

_DATE = re.compile(r"<!date\^\d+\^[^|>]*\|([^>]*)>")


def drawn(message: dict[str, Any]) -> str:
    """The blocks of a message below each other; its text where it has none."""
    blocks = message.get("blocks")
    if not blocks:
        return _shown(message["text"])
    return "\n\n".join(_block(one) for one in blocks)


def _block(block: dict[str, Any]) -> str:
    kind = block["type"]
    if kind == "header":
        return _shown(block["text"]["text"]).upper()
    if kind == "section":
        parts = [block["text"], *block.get("fields", [])] if "text" in block else block["fields"]
        return "\n".join(_shown(one["text"]) for one in parts)
    if kind == "context":
        return " ".join(_shown(one["text"]) for one in block["elements"])
    if kind == "table":
        return _table(block)
    return "-" * 40


def _table(block: dict[str, Any]) -> str:
    rows = [[cell["text"] for cell in row] for row in block["rows"]]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    right = [one["align"] == "right" for one in block["column_settings"]]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append("| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells) + " |")
    return "\n".join(lines)


def _shown(text: str) -> str:
    """Text as it is displayed, with dates for a reader in UTC; quotes keep their sign."""
    return html.unescape(_DATE.sub(r"\1", text)).replace("```\n", "").replace("\n```", "")
