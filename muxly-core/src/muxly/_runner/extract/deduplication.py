"""Ties and lookback: which records of a reading were sealed before, and are dropped unchanged.

A connector reads inclusively from where it was, less its lookback, so the records there come
again. The runner keeps a *boundary*: the greatest value of the cursor field, and a digest of each
record sealed within the lookback of it (without lookback: at it). A record whose digest is known
is a repeat; a changed one has another digest and is sealed.

How the runner uses it, per reading of a partition::

    expected = stored boundary                            # when the reading opens
    kept = drop_repeats(table, stream, expected)          # each batch, after it was conformed
    expected = kept.expected
    stored = advance(stored, kept.table, stream, now=...) # with each seal, in any order

``expected`` and the stored boundary are two values on purpose. Without a primary key two equal
records may both be real: each sealed one drops *one* repeat, and one sealed a moment ago by the same
reading drops none. With a primary key equal records are the same record: every repeat is dropped,
and ``expected`` of a sorted stream may be advanced too, for a connector whose pages overlap.

Losing the boundary, or a part of it, only means that unchanged records are sealed once more.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import evolve, field, frozen
from pyarrow import types

from muxly._runner.extract.cursors import at_or_after, comparable, floor_of, in_python, newest_of
from muxly._runner.schema.types import is_list
from muxly.stream import Stream

__all__ = [
    "Boundary",
    "DIGEST_BYTES",
    "Deduplicated",
    "MOST_DIGESTS",
    "advance",
    "drop_repeats",
    "joined",
    "record_digests",
]


MOST_DIGESTS = 100_000
"""So many records are remembered per stream: 1.6 MB of digests, 2.2 MB as a stored state, and at
most as many values of the cursor field. Of more, those with the greatest values."""


@frozen(slots=False)
class Boundary:
    """Where a stream has been read to, and the digests of the records that lie there.

    Args:
        greatest: The greatest value of the cursor field so far, never in the future; text that
            is an ISO 8601 time counts as that time. None = none yet.
        groups: Values of the cursor field within the lookback, ascending, each with the digests
            of its records, one after the other.
        clamped: What ``advance`` met beyond now, as text, for a notice; not part of the state.
        forgotten: How many digests ``advance`` gave up above ``MOST_DIGESTS``, for a notice
            that the lookback is too wide; not part of the state.
    """

    greatest: Any = None
    groups: tuple[tuple[Any, bytes], ...] = field(default=(), repr=False)
    clamped: str | None = field(default=None, kw_only=True, eq=False)
    forgotten: int = field(default=0, kw_only=True, eq=False)

    @cached_property
    def digests(self) -> Counter[bytes]:
        """How often each digest was sealed."""
        return Counter(digest for _, packed in self.groups for digest in _unpacked(packed))

    def to_state(self) -> dict[str, Any]:
        """The boundary as cursor values and text."""
        groups = [[value, b64encode(packed).decode()] for value, packed in self.groups]
        return {"greatest": self.greatest, "groups": groups}

    @classmethod
    def from_state(cls, state: Mapping[str, Any] | None) -> Boundary:
        """The boundary that ``to_state`` gave; an empty one for None."""
        if not state:
            return cls()
        groups = tuple((value, b64decode(packed)) for value, packed in state["groups"])
        return cls(state["greatest"], groups)


@frozen
class Deduplicated:
    """A batch without its repeats.

    Args:
        table: What is new or changed, in the order it came; the same object if it is all.
        dropped: How many records were repeats.
        expected: What may still be repeated; for the next batch of this reading.
    """

    table: pa.Table
    dropped: int
    expected: Boundary


def drop_repeats(table: pa.Table, stream: Stream, expected: Boundary) -> Deduplicated:
    """Drop the records that were sealed before and have not changed.

    Costs nothing without a boundary; else one comparison per record, and a digest for
    each record within the lookback.

    Args:
        table: A batch in its stream's schema.
        stream: With the ``cursor_field``, ``lookback`` and ``primary_key`` that the runner uses.
        expected: The boundary as it was stored when this reading began, and what the last
            call returned after that.

    Raises:
        StreamError: The cursor field has a type without an order.
    """
    values = _values(table, stream) if expected.groups and table.num_rows else None
    if values is None:
        return Deduplicated(table, 0, expected)
    near = at_or_after(values, floor_of(expected.greatest, stream.lookback))
    if near is None or not near.true_count:
        return Deduplicated(table, 0, expected)
    places = pc.indices_nonzero(near).to_pylist()
    digests = record_digests(table if len(places) == table.num_rows else table.filter(near))
    repeats, left = _repeats(zip(places, digests, strict=True), expected, once=not stream.primary_key)
    if not repeats:
        return Deduplicated(table, 0, expected)
    return Deduplicated(table.filter(_all_but(repeats, table.num_rows)), len(repeats), left)


def _all_but(places: list[int], length: int) -> pa.Array:
    marks = bytearray(b"\x01") * length
    for place in places:
        marks[place] = 0
    return pa.Array.from_buffers(pa.uint8(), length, [None, pa.py_buffer(marks)]).cast(pa.bool_())


def _repeats(candidates: Iterable[tuple[int, bytes]], expected: Boundary, *, once: bool) -> tuple[list[int], Boundary]:
    if not once:
        known = expected.digests
        return [place for place, digest in candidates if digest in known], expected
    repeats: list[int] = []
    spent: Counter[bytes] = Counter()
    for place, digest in candidates:
        if spent[digest] < expected.digests[digest]:
            spent[digest] += 1
            repeats.append(place)
    return repeats, _without(expected, spent) if repeats else expected


def _without(boundary: Boundary, spent: Counter[bytes]) -> Boundary:
    groups = []
    for value, packed in boundary.groups:
        left = bytearray()
        for digest in _unpacked(packed):
            if spent[digest]:
                spent[digest] -= 1
            else:
                left += digest
        if left:
            groups.append((value, bytes(left)))
    return Boundary(boundary.greatest, tuple(groups))


def advance(boundary: Boundary, table: pa.Table, stream: Stream, *, now: datetime) -> Boundary:
    """The boundary after the records of a batch were sealed.

    The greatest value never goes back; null, NaN and infinity never count; one in the future
    counts as now. The order of batches makes no difference.

    Args:
        boundary: The boundary before.
        table: What was sealed, in its stream's schema.
        stream: As in ``drop_repeats``.
        now: The present, with a time zone.

    Raises:
        StreamError: The cursor field has a type without an order.
    """
    values = _values(table, stream) if table.num_rows else None
    if values is None:
        return boundary
    newest, clamped = newest_of(values, now)
    if newest is None:
        return boundary
    before = boundary if _ordered(boundary.greatest, newest) else Boundary()
    greatest = newest if before.greatest is None else max(before.greatest, newest)
    floor = floor_of(greatest, stream.lookback)
    near = at_or_after(values, floor)
    added = _added(table, values, near) if near is not None and near.true_count else []
    groups, forgotten = _merged(before, added, floor, keyed=bool(stream.primary_key))
    return evolve(before, greatest=greatest, groups=groups, clamped=clamped, forgotten=forgotten)


def joined(one: Boundary, other: Boundary, stream: Stream) -> Boundary:
    """The boundary after what two boundaries tell of was sealed, in either order."""
    if other.greatest is None:
        return one
    if one.greatest is None or not _ordered(one.greatest, other.greatest):
        return other
    greatest = max(one.greatest, other.greatest)
    floor = floor_of(greatest, stream.lookback)
    added = [(value, digest) for value, packed in other.groups if value >= floor for digest in _unpacked(packed)]
    groups, forgotten = _merged(one, added, floor, keyed=bool(stream.primary_key))
    return Boundary(greatest, groups, clamped=other.clamped or one.clamped, forgotten=forgotten)


def _values(table: pa.Table, stream: Stream) -> pa.Array | None:
    if stream.cursor_field is None or stream.cursor_field not in table.column_names:
        return None
    return comparable(table[stream.cursor_field], stream)


def _ordered(one: Any, other: Any) -> bool:
    """Whether two values can be compared; they cannot after the cursor field changed its type."""
    try:
        return one is None or isinstance(one <= other, bool)
    except TypeError:
        return False


def _added(table: pa.Table, values: pa.Array, near: pa.Array) -> list[tuple[Any, bytes]]:
    if near.true_count < table.num_rows:
        table, values = table.filter(near), values.filter(near)
    return list(zip(in_python(values), record_digests(table), strict=True))


def _merged(
    before: Boundary, added: list[tuple[Any, bytes]], floor: Any, *, keyed: bool
) -> tuple[tuple[tuple[Any, bytes], ...], int]:
    """The digests at or after the floor by value, and how many were too many."""
    groups: dict[Any, bytearray] = {value: bytearray(packed) for value, packed in before.groups if value >= floor}
    for value, digest in added:
        if not (keyed and digest in before.digests):
            groups.setdefault(value, bytearray()).extend(digest)
    room = MOST_DIGESTS * DIGEST_BYTES
    total = sum(map(len, groups.values()))
    kept: list[tuple[Any, bytes]] = []
    for value in sorted(groups, reverse=True):
        packed = bytes(groups[value][:room])
        room -= len(packed)
        if packed:
            kept.append((value, packed))
    forgotten = (total - sum(len(packed) for _, packed in kept)) // DIGEST_BYTES
    return tuple(reversed(kept)), forgotten


def _unpacked(packed: bytes) -> Iterable[bytes]:
    return (packed[start : start + DIGEST_BYTES] for start in range(0, len(packed), DIGEST_BYTES))


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
