"""Assertions that say what the contract says, and what was seen instead."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SCALARS = (bool, int, float, str, date, datetime, Decimal)


def expect(condition: object, contract: str, seen: object = None) -> None:
    """Fail with both sides unless the condition holds.

    Args:
        condition: Whether the contract is kept.
        contract: What the contract says, as a sentence.
        seen: What happened instead.

    Raises:
        AssertionError: It does not hold.
    """
    __tracebackhide__ = True
    if not condition:
        found = "" if seen is None else f"\n  seen: {shown(seen)}"
        raise AssertionError(f"\n  the contract says: {contract}{found}")


def shown(value: object) -> str:
    """A short form of a value for a message."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}..."


def cursor_problem(value: Any, path: str = "cursor") -> str | None:
    """Why a value would not come back from the store equal and of the same type, or None."""
    if isinstance(value, dict):
        if wrong := [key for key in value if type(key) is not str]:
            return f"{path} has the key {wrong[0]!r}, which is not text"
        return _first(cursor_problem(one, f"{path}[{key!r}]") for key, one in value.items())
    if type(value) is list:
        return _first(cursor_problem(one, f"{path}[{index}]") for index, one in enumerate(value))
    if value is not None and type(value) not in _SCALARS:
        return f"{path} is a {type(value).__name__}; a list, dict, text, number, date or Decimal comes back equal"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON cannot hold"
    return None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((one for one in problems if one is not None), None)


def hashable(value: Any) -> Any:
    """A hashable form of a value; equal for equal values, NaN included."""
    if isinstance(value, dict):
        return tuple((key, hashable(value[key])) for key in sorted(value) if value[key] is not None)
    if isinstance(value, list | tuple):
        return tuple(hashable(one) for one in value)
    if isinstance(value, float) and math.isnan(value):
        return "not a number"
    return (type(value).__name__, value) if isinstance(value, bool) else value


def counted(records: Iterable[Mapping[str, Any]]) -> Counter[Any]:
    """How often each record is there; a null and a missing value are the same."""
    return Counter(hashable(record) for record in records)
