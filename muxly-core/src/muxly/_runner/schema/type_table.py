"""The order of Arrow types: which type a column is kept in, and which one holds two of them.

==========================================  =======================================
a connector's type                          the type in the spool
==========================================  =======================================
string, large_string, string_view           string
binary, large, view, fixed size             binary
dictionary, run-end encoded                 that of its values
extension                                   that of its storage
list, large, view, fixed size               list, of the element's type
map                                         map, of the key's and the item's types
struct                                      struct, field by field
float16                                     float32
decimal32, 64, 128                          decimal128; decimal256 stays
date64                                      date32
time32, time64                              time64, microseconds or nanoseconds
timestamp of seconds to microseconds        timestamp of microseconds; nanoseconds stay
timestamp of any time zone                  timestamp, UTC; without a zone: without
duration of seconds to microseconds         duration of microseconds; nanoseconds stay
==========================================  =======================================

Two types are joined by the smallest that holds both: null joins anything; integers widen;
an integer or float32 with a float becomes float64; integers and decimals become a decimal of up
to 76 digits (uint64 with any other integer too); dates become timestamps without a zone; times
take the finer unit; lists and structs join inside. Anything else does not join: text never
becomes a number nor a number text, and a time with a zone is not one without.
"""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

__all__ = ["canonical", "canonical_schema", "is_list", "join", "same"]

_INT64_DIGITS = 19
_UINT64_DIGITS = 20
_MOST_DIGITS = 76
_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def canonical(kind: pa.DataType) -> pa.DataType:
    """The type in which the spool keeps values of a type; see the module's table."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return canonical(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(kind.storage_type)
    if types.is_nested(kind):
        return _canonical_nested(kind)
    return _canonical_plain(kind)


def _canonical_plain(kind: pa.DataType) -> pa.DataType:
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal(kind):
        return _decimal(kind.precision - min(kind.scale, 0), max(kind.scale, 0))
    return _canonical_time(kind)


def _canonical_time(kind: pa.DataType) -> pa.DataType:
    if types.is_date64(kind):
        return pa.date32()
    if types.is_time(kind):
        return pa.time64(_unit(kind))
    if types.is_timestamp(kind):
        return pa.timestamp(_unit(kind), None if kind.tz is None else "UTC")
    if types.is_duration(kind):
        return pa.duration(_unit(kind))
    return kind


def _unit(*kinds: pa.DataType) -> str:
    return "ns" if any(kind.unit == "ns" for kind in kinds) else "us"


def _canonical_nested(kind: pa.DataType) -> pa.DataType:
    if types.is_struct(kind):
        return pa.struct([pa.field(child.name, canonical(child.type)) for child in kind])
    if types.is_map(kind):
        return pa.map_(canonical(kind.key_type), canonical(kind.item_type))
    if is_list(kind):
        return pa.list_(canonical(kind.value_type))
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any layout (a map is not one)."""
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def canonical_schema(schema: pa.Schema) -> pa.Schema:
    """A schema in the spool's types, all columns nullable, without metadata."""
    return pa.schema([pa.field(field.name, canonical(field.type)) for field in schema])


def same(one: pa.Schema | None, other: pa.Schema | None) -> bool:
    """Whether two schemas have the same columns in the same order, whatever their metadata."""
    if one is None or other is None:
        return one is other
    return bool(one.equals(other))


def join(one: pa.DataType, other: pa.DataType, *, grow: bool = True) -> pa.DataType | None:
    """The smallest type that holds two canonical types.

    Commutative (up to the order of a struct's fields), associative and idempotent, with None
    as the top.

    Args:
        one: A canonical type.
        other: Another.
        grow: Whether a struct takes fields that only ``other`` has.

    Returns:
        None = no type holds both.
    """
    if one.equals(other) or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_nested(one):
        return _join_nested(one, other, grow)
    if _is_number(one) and _is_number(other):
        return _join_numbers(one, other)
    return _join_times(one, other)


def _join_nested(one: pa.DataType, other: pa.DataType, grow: bool) -> pa.DataType | None:
    if types.is_struct(one) and types.is_struct(other):
        return _join_structs(one, other, grow)
    if types.is_map(one) and types.is_map(other):
        key = join(one.key_type, other.key_type, grow=grow)
        item = join(one.item_type, other.item_type, grow=grow)
        return None if key is None or item is None else pa.map_(key, item)
    if types.is_list(one) and types.is_list(other):
        element = join(one.value_type, other.value_type, grow=grow)
        return None if element is None else pa.list_(element)
    return None


def _join_structs(one: pa.DataType, other: pa.DataType, grow: bool) -> pa.DataType | None:
    joined = {child.name: child.type for child in one}
    if len(joined) < one.num_fields or len({child.name for child in other}) < other.num_fields:
        return None
    for child in other:
        before = joined.get(child.name)
        if before is None and not grow:
            continue
        after = child.type if before is None else join(before, child.type, grow=grow)
        if after is None:
            return None
        joined[child.name] = after
    return pa.struct(list(joined.items()))


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _join_numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_floating(one) or types.is_floating(other):
        exact = any(types.is_decimal(kind) or types.is_uint64(kind) for kind in (one, other))
        return None if exact else pa.float64()
    if types.is_integer(one) and types.is_integer(other) and (whole := _join_integers(one, other)):
        return whole
    digits = max(_whole_digits(one), _whole_digits(other))
    scale = max(getattr(one, "scale", 0), getattr(other, "scale", 0))
    return _decimal(digits + scale, scale) if digits + scale <= _MOST_DIGITS else None


def _join_integers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_signed_integer(one) == types.is_signed_integer(other):
        return one if one.bit_width >= other.bit_width else other
    signed, unsigned = (one, other) if types.is_signed_integer(one) else (other, one)
    return _SIGNED.get(max(signed.bit_width, unsigned.bit_width * 2))


def _whole_digits(kind: pa.DataType) -> int:
    if types.is_decimal(kind):
        return int(kind.precision - kind.scale)
    return _UINT64_DIGITS if types.is_uint64(kind) else _INT64_DIGITS


def _decimal(precision: int, scale: int) -> pa.DataType:
    precision = min(precision, _MOST_DIGITS)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _join_times(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_timestamp(one) and types.is_timestamp(other):
        return pa.timestamp(_unit(one, other), one.tz) if one.tz == other.tz else None
    for day, moment in ((one, other), (other, one)):
        if types.is_date(day) and types.is_timestamp(moment) and moment.tz is None:
            return moment
    if types.is_time(one) and types.is_time(other):
        return pa.time64(_unit(one, other))
    if types.is_duration(one) and types.is_duration(other):
        return pa.duration(_unit(one, other))
    return None
