"""Arrow types: the type a column is stored in, the type that holds two of them, and values cast into it.

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

from collections.abc import Iterable
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

__all__ = ["canonical", "canonical_schema", "either", "fitted", "fitted_array", "is_list", "join", "same", "unchanged"]


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


_DOES_NOT_FIT = (pa.ArrowException, OverflowError)
_EXACT_IN_FLOAT64 = 1 << 53
_MOST_INT64 = (1 << 63) - 1
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_SECONDS = 86_400


def unchanged(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """The whole column in a narrower type of its own family, or None if some value would change.

    An int64 column that receives 1.0 and 2.0 (how pandas shows integers beside nulls), or
    an int32 column that receives small int64 values, need not become another column.
    """
    if not _same_family(canonical(column.type), kind):
        return None
    try:
        return column.cast(kind, safe=True)
    except _DOES_NOT_FIT:
        return None


def _same_family(incoming: pa.DataType, kind: pa.DataType) -> bool:
    if types.is_integer(kind):
        return bool(types.is_integer(incoming) or types.is_floating(incoming) or types.is_decimal(incoming))
    if types.is_decimal(kind):
        return bool(types.is_integer(incoming) or types.is_decimal(incoming))
    if types.is_timestamp(kind):
        return bool(types.is_timestamp(incoming) and incoming.tz == kind.tz)
    return bool(types.is_duration(kind) and types.is_duration(incoming)) or bool(
        types.is_time(kind) and types.is_time(incoming)
    )


def fitted(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """A column in a type that its own was joined into.

    Args:
        column: Values of any type.
        kind: A canonical type.

    Returns:
        The column, null where a value does not survive, and a mask of those values; None
        instead of a mask if all survive.
    """
    if column.type.equals(kind):
        return column, None
    pieces = [fitted_array(chunk, kind) for chunk in column.chunks]
    arrays = pa.chunked_array([array for array, _ in pieces], type=kind)
    if all(wrong is None for _, wrong in pieces):
        return arrays, None
    masks = [_nothing(len(array)) if wrong is None else wrong for array, wrong in pieces]
    return arrays, pa.chunked_array(masks, type=pa.bool_())


def fitted_array(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """The same as ``fitted`` for one array."""
    array = _plain(array)
    if array.type.equals(kind):
        return array, None
    if types.is_null(array.type):
        return pa.nulls(len(array), kind), None
    if types.is_struct(kind) and types.is_struct(array.type):
        return _fitted_struct(array, kind)
    if types.is_list(kind) and is_list(array.type):
        return _fitted_list(array, kind)
    if not _castable(array.type, kind):
        return pa.nulls(len(array), kind), array.is_valid()
    try:
        return array.cast(kind, safe=True), None
    except _DOES_NOT_FIT:
        return _where_it_fits(array, kind)


def _where_it_fits(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """The values that survive, by kernels where the wrong ones can be computed: they may be all."""
    wrong = _wrong(array, kind)
    if wrong is None:
        return _halved(array, kind)
    wrong = wrong.fill_null(False)
    return pc.if_else(wrong, pa.scalar(None, array.type), array).cast(kind, safe=True), wrong


def _wrong(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Which values a cast between two types cannot keep; None = only trying tells."""
    if types.is_integer(array.type) and types.is_float64(kind):
        return _beyond(array, _EXACT_IN_FLOAT64)
    if types.is_date64(array.type) and types.is_date32(kind):
        days = pc.divide(array.view(pa.int64()), _DAY_SECONDS * 1000)
        return pc.not_equal(pc.multiply(days, _DAY_SECONDS * 1000), array.view(pa.int64()))
    if types.is_date32(array.type) and types.is_timestamp(kind):
        return _beyond(array.view(pa.int32()).cast(pa.int64()), _MOST_INT64 // (_DAY_SECONDS * _PER_SECOND[kind.unit]))
    if types.is_timestamp(kind) or types.is_duration(kind):
        factor = _PER_SECOND[kind.unit] // _PER_SECOND[getattr(array.type, "unit", "ms")]
        return _beyond(array.view(pa.int64()), _MOST_INT64 // factor) if factor else None
    return None


def _beyond(numbers: pa.Array, limit: int) -> pa.Array:
    above = pc.greater(numbers, pa.scalar(limit, numbers.type))
    if not types.is_signed_integer(numbers.type):
        return above
    return pc.or_(above, pc.less(numbers, pa.scalar(-limit, numbers.type)))


def _plain(array: pa.Array) -> pa.Array:
    """The values themselves, out of a dictionary, runs, or an extension."""
    while True:
        if isinstance(array, pa.DictionaryArray):
            array = array.dictionary_decode()
        elif isinstance(array, pa.RunEndEncodedArray):
            array = pc.run_end_decode(array)
        elif isinstance(array, pa.ExtensionArray):
            array = array.storage
        else:
            return array


def _castable(incoming: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a cast between the types keeps the meaning; text is never parsed, nothing becomes text."""
    plain = canonical(incoming)
    if plain.equals(kind) or types.is_map(kind):
        return bool(plain.equals(kind) or types.is_map(plain))
    if types.is_timestamp(kind) and types.is_date(plain):
        return kind.tz is None
    if types.is_floating(kind):
        return bool(types.is_integer(plain) or (types.is_floating(plain) and plain.bit_width <= kind.bit_width))
    return _same_family(plain, kind) and not (types.is_integer(kind) and not types.is_integer(plain))


def _halved(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Both halves cast apart, until the wrong values stand alone."""
    if len(array) == 1:
        return pa.nulls(1, kind), pa.array([True])
    middle = len(array) // 2
    parts = [fitted_array(array[:middle], kind), fitted_array(array[middle:], kind)]
    masks = [_nothing(len(part)) if wrong is None else wrong for part, wrong in parts]
    return pa.concat_arrays([part for part, _ in parts]), pa.concat_arrays(masks)


def _fitted_struct(array: pa.StructArray, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    values: dict[str, pa.Array] = {}
    masks: list[pa.Array] = []
    wanted = {child.name: child.type for child in kind}
    for child, value in zip(array.type, array.flatten(), strict=True):
        if child.name not in wanted or child.name in values:
            # A field that the column does not take is a misfit where it has a value.
            masks.append(value.is_valid())
            continue
        values[child.name], wrong = fitted_array(value, wanted[child.name])
        if wrong is not None:
            masks.append(wrong)
    children = [values[name] if name in values else pa.nulls(len(array), child) for name, child in wanted.items()]
    mask = either(masks)
    absent = array.is_null() if mask is None else pc.or_(array.is_null(), mask)
    return _struct(children, kind, absent), mask


def _struct(children: list[pa.Array], kind: pa.DataType, absent: pa.Array) -> pa.Array:
    if not children:
        return pc.if_else(absent, pa.scalar(None, kind), pa.scalar({}, kind))
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=absent)


def _fitted_list(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    if len(array) == 0:
        return pa.array([], kind), None
    values = array.flatten()
    elements, wrong = fitted_array(values, kind.value_type)
    lengths = pc.list_value_length(array).fill_null(0).cast(pa.int64())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    mask = None if wrong is None else _lists_with(wrong, offsets)
    absent = array.is_null() if mask is None else pc.or_(array.is_null(), mask)
    lists = pa.ListArray.from_arrays(offsets.cast(pa.int32()), elements, type=kind, mask=absent)
    return lists, mask


def _lists_with(wrong: pa.Array, offsets: pa.Array) -> pa.Array:
    """Which lists hold a wrong element: the count of them before its end is above that at its start."""
    counts = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(wrong.cast(pa.int64()))])
    return pc.greater(counts.take(offsets[1:]), counts.take(offsets[:-1]))


def either(masks: Iterable[pa.Array]) -> pa.Array | None:
    """Where any of the masks is true; None = no masks."""
    present = list(masks)
    return reduce(pc.or_, present) if present else None


def _nothing(length: int) -> pa.Array:
    return pa.repeat(False, length)
