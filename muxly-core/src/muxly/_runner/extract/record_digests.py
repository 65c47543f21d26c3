"""One digest for each record, the same however its columns are typed, ordered or joined by empty ones."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly._runner.schema.type_table import is_list

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DIGEST_BYTES", "record_digests"]

DIGEST_BYTES = 16
_SLICE_RECORDS = 1 << 16
_SLICE_BYTES = 32 << 20
_BYTES = pa.large_binary()
_NOTHING = pa.scalar(b"", _BYTES)
_COLON = pa.scalar(b":", _BYTES)


def record_digests(table: pa.Table) -> list[bytes]:
    """BLAKE2b-128 of every record.

    The bytes of a record are, for each column by name that is not null, the name, the family
    of its type, and the value as a netstring; all built by column kernels. So a column that is
    null, a wider integer, a decimal with more zeros, or another order of columns changes no
    digest. Two digests are equal only for equal records.

    Memory: a few times the bytes of at most 65,536 records or 32 MiB, and one record.
    """
    length = table.num_rows
    per_record = table.nbytes // max(length, 1) + 1
    step = max(1, min(_SLICE_RECORDS, _SLICE_BYTES // per_record))
    digests: list[bytes] = []
    for start in range(0, length, step):
        digests += _digests(table.slice(start, step))
    return digests


def _digests(table: pa.Table) -> list[bytes]:
    columns = [_whole(column) for column in table.columns]
    encoded = _joined(zip(table.column_names, columns, strict=True), table.num_rows)
    return [blake2b(record, digest_size=DIGEST_BYTES).digest() for record in encoded.to_pylist()]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _joined(fields: Iterable[tuple[str, pa.Array]], length: int) -> pa.Array:
    """The encoded fields of each record, those that are null left out."""
    parts = [
        _part(name, array) for name, array in sorted(fields, key=lambda item: item[0]) if array.null_count < length
    ]
    # The last part is never null: the kernel forgets a row of nothing but nulls.
    parts.append(pa.repeat(_NOTHING, length))
    return pc.binary_join_element_wise(*parts, _NOTHING, null_handling="skip")


def _part(name: str, array: pa.Array) -> pa.Array:
    family, values = _encoded(array)
    label = name.encode()
    head = pa.scalar(b"%d:%s%s" % (len(label), label, family), _BYTES)
    return pc.binary_join_element_wise(head, _netstrings(values), _NOTHING)


def _netstrings(values: pa.Array) -> pa.Array:
    lengths = pc.binary_length(values).cast(pa.string()).cast(pa.binary()).cast(_BYTES)
    return pc.binary_join_element_wise(lengths, values, _COLON)


def _encoded(array: pa.Array) -> tuple[bytes, pa.Array]:
    """The family of a type, in one letter, and each value's bytes."""
    kind = array.type
    if types.is_struct(kind):
        names = [child.name for child in kind]
        fields = _joined(zip(names, array.flatten(), strict=True), len(array))
        return b"r", pc.if_else(array.is_valid(), fields, pa.scalar(None, _BYTES))
    if types.is_map(kind):
        return _encoded(array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))))
    if is_list(kind):
        return b"l", _lists(array)
    return _plain(array)


def _plain(array: pa.Array) -> tuple[bytes, pa.Array]:
    kind = array.type
    if types.is_string(kind):
        return b"t", array.cast(pa.binary()).cast(_BYTES)
    if types.is_binary(kind):
        return b"b", array.cast(_BYTES)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return b"n", _text(array, zeros=types.is_decimal(kind))
    if types.is_boolean(kind):
        return b"o", _text(array)
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_date(kind):
        return b"d", _text(array, zeros=True)
    return b"x", pa.array([None if value is None else str(value).encode() for value in array.to_pylist()], _BYTES)


def _text(array: pa.Array, *, zeros: bool = False) -> pa.Array:
    """Values as text, without the zeros that only a finer scale or unit adds."""
    text = array.cast(pa.string())
    if zeros:
        text = pc.replace_substring_regex(text, r"(\.\d*?)0+(Z?)$", r"\1\2")
        text = pc.replace_substring_regex(text, r"\.(Z?)$", r"\1")
    return text.cast(pa.binary()).cast(_BYTES)


def _lists(array: pa.Array) -> pa.Array:
    """Each list's elements, one after the other, each as a netstring with its family."""
    if len(array) == 0:
        return pa.array([], _BYTES)
    family, values = _encoded(array.flatten())
    elements = pc.binary_join_element_wise(pa.scalar(family, _BYTES), _netstrings(values), _NOTHING)
    lengths = pc.list_value_length(array).fill_null(0).cast(pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    # A null inside of a list counts, unlike a null field: [null, 1] is not [1].
    present = elements.fill_null(pa.scalar(b"~", _BYTES))
    lists = pa.LargeListArray.from_arrays(offsets, present)
    joined = pc.binary_join(lists, _NOTHING)
    return pc.if_else(array.is_valid(), joined, pa.scalar(None, _BYTES))
