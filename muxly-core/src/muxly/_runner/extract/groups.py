"""Groups: the batches between two resumable cursors of one partition, as segments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from attrs import frozen

from muxly.spool import SegmentBytes, SegmentWriter, SpoolDraft

COALESCED_RECORDS = 65_536
BATCH_BYTES = 8 << 20
KEPT_BYTES = 16 << 20


@frozen(kw_only=True)
class FinishedSegment:
    """One finished segment of a group.

    Args:
        stream: Its stream.
        version: Of its schema.
        content: Its bytes; None = no records.
        replaces: Values of the overwrite key it replaces.
    """

    stream: str
    version: int
    content: SegmentBytes | None
    replaces: tuple[tuple[Any, ...], ...]


class _OpenSegment:
    """The segment of one stream that is being written, with small batches put together first."""

    def __init__(self, version: int, writer: SegmentWriter, batch_bytes: int) -> None:
        self.version, self.writer, self._batch_bytes = version, writer, batch_bytes
        self.waiting: list[pa.Table] = []
        self.waiting_records = self.waiting_bytes = 0
        self.replaces: dict[tuple[Any, ...], None] = {}

    @property
    def bytes(self) -> int:
        return self.writer.bytes + self.waiting_bytes

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.waiting_records += table.num_rows
        self.waiting_bytes += table.nbytes
        if self.waiting_records >= COALESCED_RECORDS or self.waiting_bytes >= self._batch_bytes:
            self.flush()

    def flush(self) -> None:
        tables, self.waiting = self.waiting, []
        self.waiting_records = self.waiting_bytes = 0
        if tables:
            for batch in _batches(tables):
                self.writer.append(batch)


def _slices(table: pa.Table, limit_bytes: int) -> list[pa.Table]:
    """The table in slices that fit a segment; a single record may be larger than that."""
    size = table.nbytes
    if size <= limit_bytes:
        return [table]
    records = max(1, table.num_rows * limit_bytes // size)
    return [table.slice(start, records) for start in range(0, table.num_rows, records)]


def _batches(tables: list[pa.Table]) -> list[pa.RecordBatch]:
    """Batches of a good size: small ones joined, large ones cut by bytes."""
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    if table.column(0).num_chunks > 1 and table.nbytes <= 2 * BATCH_BYTES:
        table = table.combine_chunks()
    records = max(1, min(2 * COALESCED_RECORDS, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
    return [batch for batch in table.to_batches(max_chunksize=records) if batch.num_rows]


class GroupBuilder:
    """Collects one group.

    Args:
        new_draft: Makes a draft in the spool.
        segment_bytes: A segment ends at this size.
        batch_bytes: Small batches are put together up to this size.
    """

    def __init__(self, new_draft: Callable[[], SpoolDraft], segment_bytes: int, batch_bytes: int = BATCH_BYTES) -> None:
        self._new_draft, self._segment_bytes, self._batch_bytes = new_draft, segment_bytes, batch_bytes
        self._open: dict[str, _OpenSegment] = {}
        self._finished: list[FinishedSegment] = []
        self._replaced: dict[str, tuple[int, dict[tuple[Any, ...], None]]] = {}
        self.bytes = self._kept_bytes = 0
        self.started_at = time.monotonic()

    @property
    def empty(self) -> bool:
        """Whether nothing has been added."""
        return not (self._open or self._finished or self._replaced)

    def add(self, stream: str, version: int, table: pa.Table, replaces: Iterable[tuple[Any, ...]]) -> None:
        """Add records, all of one schema version, and the overwrite key's values they replace."""
        replaced = dict.fromkeys(replaces)
        if not table.num_rows:
            if replaced:
                self._replaced.setdefault(stream, (version, {}))[1].update(replaced)
            return
        for part in _slices(table, self._segment_bytes):
            self._add_slice(stream, version, part, replaced)
            replaced = {}

    def _add_slice(self, stream: str, version: int, table: pa.Table, replaced: dict[tuple[Any, ...], None]) -> None:
        current = self._open.get(stream)
        if current is not None and (current.version != version or current.bytes + table.nbytes > self._segment_bytes):
            self._end(stream, more=True)
            current = None
        if current is None:
            current = self._open[stream] = _OpenSegment(
                version, SegmentWriter(table.schema, self._new_draft), self._batch_bytes
            )
        current.add(table)
        current.replaces.update(replaced)
        self.bytes += table.nbytes

    def _end(self, stream: str, *, more: bool = False) -> None:
        """End a stream's segment; where more of the group follows it waits on disk, in no open file."""
        ended = self._open.pop(stream)
        ended.flush()
        self._kept_bytes += ended.writer.bytes
        content = ended.writer.finish(spill=more and self._kept_bytes > KEPT_BYTES)
        self._finished.append(
            FinishedSegment(stream=stream, version=ended.version, content=content, replaces=tuple(ended.replaces))
        )

    def finish(self) -> list[FinishedSegment]:
        """End the group; nothing is durable yet."""
        for stream in list(self._open):
            self._end(stream)
        for stream, (version, replaced) in self._replaced.items():
            self._finished.append(
                FinishedSegment(stream=stream, version=version, content=None, replaces=tuple(replaced))
            )
        self._replaced = {}
        return self._finished

    def discard(self) -> None:
        """Forget the group and its drafts."""
        for segment in self._open.values():
            segment.writer.discard()
        for finished in self._finished:
            if finished.content is not None and finished.content.draft is not None:
                finished.content.draft.discard()
