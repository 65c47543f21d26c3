"""Values of records as text, and as JSON has them."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

__all__ = [
    "Number",
    "as_json",
    "as_text",
    "check_spec",
    "decimal_text",
    "formatted",
    "is_date_format",
    "number_json",
    "scalar_text",
]

Number = Decimal | float
"""A number that JSON has no form for, or no exact one."""

_LONGEST_NUMBER = 400
# Python's own format specifications, without what depends on the locale of the machine.
_NUMBER = re.compile(
    r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>\d*)[,_]?(?:\.(?P<precision>\d+))?[bdeEfFgGosxX%]?", re.DOTALL
)
# The C library also knows widths such as %1000000000Y, which nothing would stop.
_DATE = re.compile(r"(?:[^%]|%-?[aAbBcdfGHIjmMpSuUVwWxXyYzZ%])+")
_WIDEST, _MOST_PRECISE, _LONGEST_SPEC = 200, 50, 100


def formatted(value: Any, spec: str) -> str:
    """A value in a format.

    Raises:
        ValueError: The format does not fit it.
    """
    if isinstance(value, date | datetime | time):
        fits = is_date_format(spec)
    else:
        fits = isinstance(value, str | int | float | Decimal) and not is_date_format(spec)
    try:
        if fits and not _is_endless(value):
            return format(value, spec)
    except (ValueError, TypeError):
        pass
    raise ValueError(f"does not fit a value of type {type(value).__name__}")


def check_spec(spec: str) -> None:
    """Refuse a format that is none, or that would write a very long text.

    Raises:
        ValueError: It is one of these; the message says which.
    """
    if len(spec) > _LONGEST_SPEC:
        raise ValueError(f"a format has at most {_LONGEST_SPEC} characters")
    number = _NUMBER.fullmatch(spec)
    if number is None and not is_date_format(spec):
        raise ValueError(f"{spec!r} is no format; write one such as ,.2f for numbers or %Y-%m-%d for dates")
    if number is not None and (int(number["width"] or 0) > _WIDEST or int(number["precision"] or 0) > _MOST_PRECISE):
        raise ValueError(f"{spec!r} is wider than {_WIDEST} or more precise than {_MOST_PRECISE} digits")


def is_date_format(spec: str) -> bool:
    """Whether a format is one of dates and times, and not of numbers and texts."""
    return "%" in spec and _NUMBER.fullmatch(spec) is None and _DATE.fullmatch(spec) is not None


def as_text(value: Any) -> str:
    """A value as it stands inside a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    plain = as_json(value, text=str, number=number_json)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def as_json(value: Any, *, text: Callable[[str], str], number: Callable[[Number], Any]) -> Any:
    """A value as JSON has it: null, true, a number, a text, a list or an object.

    Args:
        value: A Python value, as Arrow gives it.
        text: Applied to each text in it.
        number: What becomes of a decimal, of NaN and of infinity.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else number(value)
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, dict):
        return {text(str(key)): as_json(item, text=text, number=number) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, text=text, number=number) for item in value]
    return text(scalar_text(value))


def scalar_text(value: Any) -> str:
    """Text, bytes as base64, times as ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def number_json(value: Number) -> str | None:
    """A decimal as text; null for NaN and infinity."""
    return decimal_text(value) if isinstance(value, Decimal) else None


def decimal_text(value: Decimal) -> str:
    """All digits of a decimal, unless that would take a long text."""
    return str(value) if _is_endless(value) else format(value, "f")


def _is_endless(value: Any) -> bool:
    """Whether writing the number out would take a long text, as for 1E+999999."""
    return isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > _LONGEST_NUMBER


def _duration(value: timedelta) -> str:
    """ISO 8601, such as ``P1DT2.5S``."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = (
        f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".") if value.microseconds else value.seconds
    )
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S" if seconds or not days else f"{sign}P{days}"
