"""Segments: record batches of one schema as an Arrow IPC stream with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.errors import CorruptSegmentError
from muxly.spool.folder import MappedSegment, SpoolDraft

if TYPE_CHECKING:
    import pyarrow as pa


SPILL_BYTES = 1 << 20
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
ALIGNMENT = 64


@frozen(kw_only=True)
class SegmentBytes:
    """A finished segment, in memory or in a draft of its own.

    Args:
        records: How many it holds.
        bytes: Their size in memory.
        length: The length of its IPC stream.
        digest: SHA-256 of that stream, hex.
        chunks: The stream's bytes, if it is small.
        draft: The file that holds nothing else, if it is large.
    """

    records: int
    bytes: int
    length: int
    digest: str
    chunks: tuple[Any, ...] = ()
    draft: SpoolDraft | None = None


class SegmentWriter:
    """Writes one segment: in memory first, into a draft once it is large.

    Args:
        schema: Of all its batches.
        new_draft: Makes a draft in the spool.
    """

    def __init__(self, schema: pa.Schema, new_draft: Callable[[], SpoolDraft]) -> None:
        self.schema = schema
        self.records = 0
        self.bytes = 0
        self._new_draft = new_draft
        self._draft: SpoolDraft | None = None
        self._chunks: list[Any] = []
        self._length = 0
        self._digest = hashlib.sha256(usedforsecurity=False)
        self._add(schema.serialize())

    def append(self, batch: pa.RecordBatch) -> None:
        """Add a batch; its schema is the segment's."""
        self._add(batch.serialize())
        self.records += batch.num_rows
        self.bytes += batch.nbytes

    def _add(self, chunk: Any) -> None:
        self._digest.update(chunk)
        self._length += len(memoryview(chunk))
        if self._draft is not None:
            self._draft.write(chunk)
            return
        self._chunks.append(chunk)
        if self._length > SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        self._draft = self._new_draft()
        for chunk in self._chunks:
            self._draft.write(chunk)
        self._chunks = []

    def finish(self, *, spill: bool = False) -> SegmentBytes:
        """End the stream; nothing is durable yet, but a draft that was spilled holds no file open.

        Args:
            spill: Whether it waits long: it is moved out of memory, and its file is closed.
        """
        self._add(_END)
        if spill:
            if self._draft is None:
                self._spill()
            assert self._draft is not None
            self._draft.sync()
        return SegmentBytes(
            records=self.records,
            bytes=self.bytes,
            length=self._length,
            digest=self._digest.hexdigest(),
            chunks=tuple(self._chunks),
            draft=self._draft,
        )

    def discard(self) -> None:
        """Discard the segment and its draft; may be repeated."""
        self._chunks = []
        if self._draft is not None:
            self._draft.discard()


def verify(segment: MappedSegment, digest: str, name: str) -> None:
    """Compare a segment's bytes with the digest they were sealed under.

    Raises:
        CorruptSegmentError: They are not the same bytes; Arrow itself would return wrong
            values for most single flipped bits without noticing.
    """
    read = hashlib.sha256(segment.buffer, usedforsecurity=False).hexdigest()
    segment.forget(segment.buffer.size)
    if read != digest:
        raise CorruptSegmentError(f"the segment {name} differs from what was sealed: its digest does not match")


def read_segment(segment: MappedSegment, first: int = 0, last: int | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a segment, without copying them; the memory of each is given back after it.

    Args:
        segment: Opened.
        first: The number of the first record to read.
        last: The number of the record to stop before; None = read to the end.
    """
    import pyarrow as pa

    source = pa.BufferReader(segment.buffer)
    start = 0
    with pa.ipc.open_stream(source) as reader:
        for batch in reader:
            begin = max(first - start, 0)
            end = batch.num_rows if last is None else min(last - start, batch.num_rows)
            if begin < end:
                yield batch if end - begin == batch.num_rows else batch.slice(begin, end - begin)
            # Also what came before: whoever kept a batch may have looked at it again.
            segment.forget(source.tell())
            start += batch.num_rows
            if last is not None and start >= last:
                return
