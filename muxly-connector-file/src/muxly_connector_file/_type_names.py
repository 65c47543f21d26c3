"""The names of types in the ``types`` option, checked without loading Arrow."""

from __future__ import annotations

import difflib
import re
from typing import Any

_PLAIN = (
    "binary", "bool", "date", "float32", "float64", "int8", "int16", "int32", "int64", "string", "time",
    "timestamp", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_DECIMAL = re.compile(r"decimal\(\s*([1-9]\d?)\s*(?:,\s*(\d{1,2})\s*)?\)\Z")
_TIMESTAMP = re.compile(r"timestamp\(\s*(s|ms|us|ns)\s*(?:,\s*([A-Za-z][A-Za-z0-9_+/-]*)\s*)?\)\Z")
EXAMPLES = "string, int64, float64, bool, date, timestamp, timestamp(us, UTC) or decimal(12, 2)"


def parse(name: str) -> tuple[Any, ...]:
    """The parts of a type's name: ``("decimal", 12, 2)``, ``("timestamp", "us", "UTC")``, ``("date",)``.

    Raises:
        ValueError: There is no such type; says what there is.
    """
    if name in _PLAIN:
        return ("timestamp", "us", None) if name == "timestamp" else (name,)
    if found := _DECIMAL.match(name):
        digits, scale = int(found[1]), int(found[2] or 0)
        if digits <= 76 and scale <= digits:
            return ("decimal", digits, scale)
        raise ValueError(f"{name!r} is too wide: a decimal has at most 76 digits, and its scale is not more than these")
    if found := _TIMESTAMP.match(name):
        return ("timestamp", found[1], found[2])
    near = difflib.get_close_matches(name, [*_PLAIN, "decimal(12, 2)"], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no type {name!r}; use {EXAMPLES}{hint}")


def validate(_instance: Any, attribute: Any, value: dict[str, str]) -> None:
    """Check all types of an option, for attrs.

    Raises:
        ValueError: Names the first column whose type is not one.
    """
    for column, name in value.items():
        try:
            parse(name)
        except ValueError as error:
            raise ValueError(f"{attribute.name}.{column}: {error}") from None
