"""The request of remote write 1.0, made of columns: protobuf without an object for each sample.

https://prometheus.io/docs/specs/prw/remote_write_spec/ and ``prompb/remote.proto``: a ``WriteRequest`` is
a sequence of ``TimeSeries`` (field 1), each with ``Label`` (field 1: name 1, value 2), sorted by name, and
``Sample`` (field 2: double value 1, int64 milliseconds 2). A length or a number is written once for all
records that share it, so the work in Python grows with the different ones and not with the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from muxly_routers.prometheus.exposition import content

__all__ = ["label_bytes", "requests", "varint"]

_EMPTY = pa.scalar(b"", pa.binary())
_NAME = "__name__"


def varint(number: int) -> bytes:
    """A number as protobuf writes it; negative ones as their two's complement of 64 bits."""
    number &= (1 << 64) - 1
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _each(numbers: pa.Array, write: Callable[[int], bytes]) -> pa.Array:
    """What a function makes of each number, called once for those that are equal."""
    encoded = numbers.dictionary_encode()
    written = pa.array([write(number) for number in encoded.dictionary.to_pylist()], pa.binary())
    return written.take(encoded.indices)


def label_bytes(name: str, columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    """The labels of each record's series, as the fields of a ``TimeSeries``.

    Args:
        name: The sample's name.
        columns: Pairs of label and its values as text, or one value for all.
        count: How many records there are.
    """
    pairs = sorted([(_NAME, name), *columns], key=lambda pair: pair[0])
    parts = [_label(label, values) for label, values in pairs]
    joined = pc.binary_join_element_wise(*parts, _EMPTY)
    return joined if isinstance(joined, pa.Array) else pa.repeat(joined, count)


def _label(label: str, values: pa.Array | str) -> pa.Array | pa.Scalar:
    """One label; nothing where its value is missing or empty."""
    start = b"\x0a" + varint(len(label.encode())) + label.encode() + b"\x12"

    def head(size: int) -> bytes:
        inner = start + varint(size)
        return b"\x0a" + varint(len(inner) + size) + inner if size else b""

    if isinstance(values, str):
        written = values.encode()
        return pa.scalar(head(len(written)) + written, pa.binary())
    present = pc.fill_null(values, "").cast(pa.binary())
    return pc.binary_join_element_wise(_each(pc.binary_length(present), head), present, _EMPTY)


def requests(samples: pa.Table) -> bytes:
    """A ``WriteRequest`` of samples, in their order; compress it with snappy's block format.

    Args:
        samples: Columns ``labels`` (of ``label_bytes``), ``value`` and ``time`` (ms since 1970).
    """
    whole = samples.combine_chunks()
    return b"".join(content(_series(batch)) for batch in whole.to_batches())


def _series(batch: pa.RecordBatch) -> pa.Array:
    labels = batch.column("labels")
    value = batch.column("value").cast(pa.float64(), safe=False)
    # Arrow keeps floats as the eight bytes that protobuf wants.
    eight = pa.Array.from_buffers(pa.binary(8), len(value), [None, value.buffers()[1]], offset=value.offset)
    time = _each(batch.column("time"), _time_field)
    sample_size = pc.add(pc.binary_length(time), 9)
    sample_head = _each(sample_size, lambda size: b"\x12" + varint(size) + b"\x09")
    size = pc.add(pc.add(pc.binary_length(labels), pc.binary_length(sample_head)), pc.add(sample_size, -1))
    head = _each(size, lambda number: b"\x0a" + varint(number))
    return pc.binary_join_element_wise(head, labels, sample_head, eight.cast(pa.binary()), time, _EMPTY)


def _time_field(milliseconds: int) -> bytes:
    return b"\x10" + varint(milliseconds)
