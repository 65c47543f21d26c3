"""Arrow columns made of records; a record that does not fit its column is set aside."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

_DOES_NOT_FIT = (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError)
_INT64 = range(-(2**63), 2**63)


Misfits = list[tuple[str, Mapping[str, Any]]]
"""Records that do not fit their column, each behind the reason."""


def to_table(data: Any, schema: pa.Schema | None = None) -> tuple[pa.Table, Misfits]:
    """Any data that a ``Batch`` takes, as one table; see ``Batch.to_arrow``."""
    if data is None:
        return pa.table({}), []
    if isinstance(data, pa.Table):
        return data, []
    if isinstance(data, list):
        return _from_records(data, schema)
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data]), []
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), []
    return pa.Table.from_batches([pa.record_batch(data)]), []


def _from_records(records: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> tuple[pa.Table, Misfits]:
    columns: dict[str, pa.Array] = {}
    misfits: dict[int, str] = {}
    for name in _names(records):
        values = [record.get(name) for record in records]
        columns[name], wrong = _column(values, _declared(schema, name))
        for index, why in wrong.items():
            misfits.setdefault(index, f"column {name!r}: {why}")
    table = pa.table(columns) if columns else _without_columns(len(records))
    if not misfits:
        return table, []
    keep = pa.array([index not in misfits for index in range(len(records))])
    return table.filter(keep), [(why, records[index]) for index, why in sorted(misfits.items())]


def _without_columns(length: int) -> pa.Table:
    """A table of records that have no column; Arrow needs one to count them."""
    return pa.table({"_": pa.nulls(length)}).select([]) if length else pa.table({})


def _names(records: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    names: dict[str, None] = {}
    for record in records:
        if not record.keys() <= names.keys():
            names.update(dict.fromkeys(record))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is not a column name: the keys of a record must be text")
    return names


def _declared(schema: pa.Schema | None, name: str) -> pa.DataType | None:
    if schema is None or (index := schema.get_field_index(name)) < 0:
        return None
    return schema.field(index).type


def _column(values: list[Any], declared: pa.DataType | None) -> tuple[pa.Array, dict[int, str]]:
    """The values as one array; those that fit no single type become null and are named."""
    for kind in (declared, None) if declared is not None else (None,):
        try:
            return _array(values, kind), {}
        except _DOES_NOT_FIT:
            continue
    kind = declared if declared is not None and not pa.types.is_null(declared) else _usual_type(values)
    return _one_by_one(values, kind)


def _array(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """The values, each exactly what it was; Arrow alone would make 1 of 1.5 where integers are wanted."""
    try:
        array = _exactly(values, kind)
    except OverflowError:
        if kind is not None:
            raise
        return _wide_integers(values)
    if kind is None and pa.types.is_timestamp(array.type) and array.type.tz not in (None, "UTC"):
        return array.cast(pa.timestamp(array.type.unit, "UTC"))
    return array


def _exactly(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    array = pa.array(values, type=kind)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not is_exact(array, values):
        raise pa.ArrowInvalid(f"{array.type} cannot hold every value unchanged")
    return array


def _wide_integers(values: list[Any]) -> pa.Array:
    """Integers beyond 64 bits, exactly, as decimals of up to 76 digits."""
    if not all(value is None or type(value) is int for value in values):
        raise pa.ArrowInvalid("integers beyond 64 bits among other types")
    digits = max(len(str(abs(value))) for value in values if value is not None)
    kind = pa.decimal128(38, 0) if digits <= 38 else pa.decimal256(76, 0)
    return pa.array([None if value is None else Decimal(value) for value in values], type=kind)


def _usual_type(values: list[Any]) -> pa.DataType:
    """The Arrow type of the Python type that most of the values have, or of the first value that has one."""
    counts = Counter(type(value) for value in values if value is not None)
    for python_type, _count in counts.most_common():
        try:
            return _array([value for value in values if type(value) is python_type], None).type
        except _DOES_NOT_FIT:
            continue
    for value in values:
        with contextlib.suppress(*_DOES_NOT_FIT):
            if value is not None:
                return _array([value], None).type
    return pa.string()


def _one_by_one(values: list[Any], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    wrong: dict[int, str] = {}
    kept: list[Any] = []
    for index, value in enumerate(values):
        try:
            _exactly([value], kind)
            kept.append(value)
        except _DOES_NOT_FIT:
            wrong[index] = f"{_shown(value)} does not fit the type {kind}"
            kept.append(None)
    return pa.array(kept, type=kind), wrong


def _shown(value: Any) -> str:
    """A short, printable form of a value for a message."""
    text = ascii(value) if not isinstance(value, int) or value in _INT64 else "an integer of more than 64 bits"
    return text if len(text) <= 60 else f"{text[:57]}..."


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
