"""Records as PostgreSQL reads them in a binary COPY.

Arrow's kernels make the bytes of whole columns at a time: each column becomes pieces, some the same for
every record, and joining all pieces element by element gives the records one behind the other. That takes
a third of the time of the ADBC driver, and no library that has to be there for each kind of machine.

The format: PostgreSQL manual, "COPY", "Binary Format". The forms of values: the functions ``*_recv`` in
``src/backend/utils/adt`` of PostgreSQL, above all ``numeric_recv``, which strips zeros at both ends.
"""

from __future__ import annotations

import array
import struct
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly_routers.sql.text_buffer import content, slices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    Piece: TypeAlias = bytes | pa.Array

__all__ = ["END", "HEAD", "parts", "rows"]

HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = struct.pack(">h", -1)

# What stands in memory in this form at a time.
_PART_ROWS = 32_768
_PART_BYTES = 4 * 1024 * 1024

_BYTES = pa.large_binary()
_NULL = struct.pack(">i", -1)

# PostgreSQL counts days and microseconds from 2000, Arrow from 1970.
_EPOCH_DAYS = pa.scalar(10_957, pa.int32())
_EPOCH_MICROSECONDS = pa.scalar(946_684_800_000_000, pa.int64())

# For the types that PostgreSQL does not have, one that holds the same numbers.
_HELD_BY = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
_CODES = {2: "h", 4: "i", 8: "q"}
_WORDS = {2: pa.int16(), 4: pa.int32(), 8: pa.int64()}

# A numeric is made of words of eight digits: two of PostgreSQL's own, which have four.
_WORD_DIGITS = 8
_WORD = 10**_WORD_DIGITS
_HALF = 10**4


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices that may stand in memory a second time."""
    return slices(batch, most_records=_PART_ROWS, most_bytes=_PART_BYTES)


def rows(part: pa.RecordBatch) -> pa.Buffer:
    """The records as they stand between ``HEAD`` and ``END``.

    Args:
        part: At least one record, of plain columns: booleans, numbers, decimals with a scale of 0 or more,
            dates in days, times, time stamps and durations in microseconds, texts and bytes.

    Raises:
        ArrowInvalid: A value has 2 GiB or more.
    """
    pieces: list[Piece] = [struct.pack(">h", part.num_columns)]
    for column in part.columns:
        pieces += _field(column)
    return content(_joined(pieces))


def _joined(pieces: Iterable[Piece]) -> pa.Array:
    """All of them one behind the other, record by record; constants that meet become one."""
    inputs: list[pa.Array | pa.Scalar] = []
    for constant, found in groupby(pieces, key=lambda one: isinstance(one, bytes)):
        together = list(found)
        inputs += [pa.scalar(b"".join(together), _BYTES)] if constant else together
    return pc.binary_join_element_wise(*inputs, pa.scalar(b"", _BYTES))


def _field(column: pa.Array) -> list[Piece]:
    """A column's values, each behind its length; a null is a length of -1 alone."""
    if wider := _HELD_BY.get(column.type):
        column = column.cast(wider)
    pieces = _value(column)
    if not column.null_count:
        return pieces
    return [pc.if_else(column.is_valid(), _joined(pieces), pa.scalar(_NULL, _BYTES))]


def _value(column: pa.Array) -> list[Piece]:
    """As ``_field``, but what stands for a null may be anything."""
    kind = column.type
    if types.is_boolean(kind):
        return [_chosen(column, struct.pack(">i?", 1, True), struct.pack(">i?", 1, False))]
    if types.is_decimal(kind):
        return _numeric(column)
    if types.is_fixed_size_binary(kind):
        return [_length(kind.byte_width), _cells(column.buffers()[1], len(column), kind.byte_width, column.offset)]
    if not types.is_primitive(kind):
        return [_word(pc.binary_length(column).cast(pa.int32())), column.cast(_BYTES)]
    return _primitive(column)


def _primitive(column: pa.Array) -> list[Piece]:
    kind, width = column.type, column.type.bit_width // 8
    numbers = column.view(_WORDS[width])
    if types.is_duration(kind):  # an interval of no days and no months
        return [_length(16), _word(numbers), bytes(8)]
    if types.is_date32(kind):
        numbers = pc.subtract(numbers, _EPOCH_DAYS)
    elif types.is_timestamp(kind):
        numbers = pc.subtract(numbers, _EPOCH_MICROSECONDS)
    return [_length(width), _word(numbers)]


def _length(size: int) -> bytes:
    return struct.pack(">i", size)


def _chosen(condition: pa.BooleanArray, true: bytes, false: bytes) -> pa.Array:
    return pc.if_else(condition, pa.scalar(true, _BYTES), pa.scalar(false, _BYTES))


def _word(numbers: pa.Array) -> pa.Array:
    """Signed integers, in the order of bytes of the network."""
    width = numbers.type.bit_width // 8
    swapped = array.array(_CODES[width])
    start = numbers.offset * width
    swapped.frombytes(memoryview(numbers.buffers()[1])[start : start + len(numbers) * width])
    swapped.byteswap()
    return _cells(pa.py_buffer(swapped), len(numbers), width)


def _cells(buffer: pa.Buffer, count: int, width: int, first: int = 0) -> pa.Array:
    """Values of one width as bytes of any length; what is null is some bytes too."""
    offsets = pc.multiply(pa.arange(first, first + count + 1), width)
    return pa.Array.from_buffers(_BYTES, count, [None, offsets.buffers()[1], buffer])


def _numeric(column: pa.Array) -> list[Piece]:
    """How many digits of base 10,000, the exponent of the first, the sign, the scale, then the digits."""
    scale = column.type.scale
    kind = pa.decimal256(76, 0) if types.is_decimal256(column.type) else pa.decimal128(38, 0)
    unscaled = pa.Array.from_buffers(kind, len(column), column.buffers(), offset=column.offset)
    words = _words(_limbs(pc.abs(unscaled)), scale)
    count, exponent = 2 * len(words), 2 * (len(words) - -(-scale // _WORD_DIGITS)) - 1
    positive, negative = (
        struct.pack(">ihhHh", 8 + 2 * count, count, exponent, sign, scale) for sign in (0x0000, 0x4000)
    )
    below = pc.less(unscaled, pa.scalar(0, kind))
    head: Piece = _chosen(below, negative, positive) if pc.any(below).as_py() else positive
    return [head, *map(_word, words)]


def _limbs(magnitudes: pa.Array) -> list[pa.Array]:
    """Whole decimals as one column of 64-bit integers if they fit, else as some of 32 bits, the greatest first."""
    try:
        return [magnitudes.cast(pa.int64())]
    except pa.ArrowInvalid:
        pass
    count = magnitudes.type.byte_width // 8
    lanes = pa.Array.from_buffers(pa.uint64(), len(magnitudes) * count, [None, magnitudes.buffers()[1]])
    records = pa.FixedSizeListArray.from_arrays(lanes, count)
    low = pa.scalar(0xFFFF_FFFF, pa.uint64())
    limbs = []
    for number in reversed(range(count)):
        lane = pc.list_element(records, number)
        limbs += [pc.shift_right(lane, pa.scalar(32, pa.uint64())), pc.bit_wise_and(lane, low)]
    return [one.cast(pa.int64()) for one in limbs]


def _words(limbs: list[pa.Array], scale: int) -> list[pa.Array]:
    """Numbers of eight digits, the first ones first, the point between two of them: as many as the greatest needs."""
    found = []
    behind, odd = divmod(scale, _WORD_DIGITS)
    if odd:
        limbs, rest = _divided(limbs, 10**odd)
        found.append(pc.multiply(rest, 10 ** (_WORD_DIGITS - odd)))
    while behind or any(pc.max(one).as_py() for one in limbs):
        limbs, rest = _divided(limbs, _WORD)
        found.append(rest)
        behind = max(behind - 1, 0)
    return [_halved(one) for one in reversed(found)]


def _divided(limbs: list[pa.Array], divisor: int) -> tuple[list[pa.Array], pa.Array]:
    """Quotients and remainders, by long division."""
    quotients: list[pa.Array] = []
    rest: pa.Array | None = None
    for limb in limbs:
        whole = limb if rest is None else pc.add(pc.shift_left(rest, 32), limb)
        quotient = pc.divide(whole, divisor)
        rest = pc.subtract(whole, pc.multiply(quotient, divisor))
        quotients.append(quotient)
    while len(quotients) > 1 and not pc.max(quotients[0]).as_py():
        del quotients[0]
    return quotients, rest


def _halved(word: pa.Array) -> pa.Array:
    """Eight digits as two numbers of four, in the upper and the lower half of 32 bits."""
    upper = pc.divide(word, _HALF)
    return pc.add(word, pc.multiply(upper, (1 << 16) - _HALF)).cast(pa.int32())
