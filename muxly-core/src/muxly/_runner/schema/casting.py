"""Values into the type of their column, naming each value that does not survive the change."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly._runner.schema.type_table import canonical, is_list

__all__ = ["either", "fitted", "fitted_array", "unchanged"]

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
