"""Whether an Arrow array holds Python values as they were.

``pa.array`` shortens silently where it is given a type, and where types are mixed: 1.5 to 1, a
datetime to a date, microseconds to seconds, a struct to its known fields.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_FINE_UNITS = ("us", "ns")
_EXACT: tuple[tuple[Callable[[Any], bool], set[type]], ...] = (
    (pa.types.is_integer, {int}),
    # Arrow refuses integers that a double does not hold; a float32 rounds because someone asked for it.
    (pa.types.is_floating, {int, float}),
    (pa.types.is_decimal, {int, Decimal}),
    (pa.types.is_boolean, {bool}),
    (pa.types.is_string, {str}),
    (pa.types.is_large_string, {str}),
    (pa.types.is_binary, {bytes}),
    (pa.types.is_date32, {date}),
    (lambda kind: pa.types.is_duration(kind) and kind.unit in _FINE_UNITS, {timedelta}),
)


def is_exact(array: pa.Array, values: list[Any]) -> bool:
    """Whether every value of the array is the one it was made of.

    Args:
        array: Made by ``pa.array(values)``, of any type.
        values: As many Python values.
    """
    kinds = set(map(type, values)) - {type(None)}
    if any(fits(array.type) and kinds <= exact for fits, exact in _EXACT):
        return True
    if pa.types.is_timestamp(array.type) and array.type.unit in _FINE_UNITS and kinds <= {datetime}:
        return _zones_agree(array.type, values)
    return all(map(_same, array.to_pylist(), values))


def _zones_agree(kind: pa.TimestampType, values: Iterable[datetime | None]) -> bool:
    """A time without zone is no time in UTC, nor the other way round."""
    naive = {value.tzinfo is None for value in values if value is not None}
    return naive <= {kind.tz is None}


def _same(seen: Any, value: Any) -> bool:
    if seen is None or value is None:
        return seen is value or value != value  # noqa: PLR0124 (pandas' NaT is a null, and not equal to itself)
    if isinstance(value, bool) != isinstance(seen, bool):
        return False
    if isinstance(value, dict):
        return isinstance(seen, dict) and _same_fields(seen, value)
    if isinstance(value, list | tuple | set | frozenset) and isinstance(seen, list):
        return len(seen) == len(value) and all(map(_same, seen, value))
    return bool(seen == value) or (seen != seen and value != value)  # noqa: PLR0124 (not a number)


def _same_fields(seen: dict[str, Any], value: dict[Any, Any]) -> bool:
    """A field that is null on one side may be missing on the other."""
    return all(_same(seen.get(name), value.get(name)) for name in {**seen, **value})
