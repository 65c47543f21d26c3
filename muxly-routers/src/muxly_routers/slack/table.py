"""The first records of a delivery as a table: a table block, or text in a code fence."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from muxly_routers.slack.message import section
from muxly_routers.slack.text import fenced, line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COLUMNS_LIMIT", "ROWS_LIMIT", "block", "monospaced"]

# docs.slack.dev/reference/block-kit/blocks/table-block; the first row is the header.
ROWS_LIMIT, COLUMNS_LIMIT = 99, 20
_ALL_CELLS_LIMIT = 9_000
_CELL_LIMIT = 100
_EMPTY = "-"
_FENCE_LIMIT = 2_800
_FENCE_CELL = 24


def block(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


def monospaced(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A section with the records aligned in a code fence, as many as there is room for."""
    columns = columns[:COLUMNS_LIMIT]
    cells = [[_cell(record.get(name), _FENCE_CELL) for name in columns] for record in records]
    rows = [[line(name, _FENCE_CELL) or _EMPTY for name in columns], *cells]
    widths = [max(_width(row[at]) for row in rows) for at in range(len(columns))]
    numeric = [_is_numeric([record.get(name) for record in records]) for name in columns]
    lines = [_aligned(row, widths, numeric) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    shown = len(records)
    while shown > 1 and len(_text(lines, shown)) > _FENCE_LIMIT:
        shown -= 1
    return section(_text(lines, shown))


def _text(lines: Sequence[str], shown: int) -> str:
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
    """How many places of a monospaced font a text takes."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


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
    found = [one for one in values if one is not None]
    return bool(found) and all(isinstance(one, int | float | Decimal) and not isinstance(one, bool) for one in found)
