"""Numbers of records as cursors of every kind that a cursor may have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

KINDS = ("number", "text", "datetime", "decimal", "mapping")
_START = datetime(2024, 1, 1, tzinfo=UTC)


def encode(kind: str, number: int) -> Any:
    """The cursor that says: everything before this number was read."""
    at = _START + timedelta(seconds=number)
    return {
        "number": number,
        "text": f"{number:012}",
        "datetime": at,
        "decimal": Decimal(number).scaleb(-2),
        "mapping": {"at": at, "ids": [number], "none": None},
    }[kind]


def decode(cursor: Any) -> int:
    """The number in a cursor; None = 0."""
    if cursor is None:
        return 0
    if isinstance(cursor, dict):
        return int(cursor["ids"][0])
    if isinstance(cursor, datetime):
        return int((cursor - _START).total_seconds())
    return int(cursor.scaleb(2)) if isinstance(cursor, Decimal) else int(cursor)
