"""Reading one partition: its batches are collected into groups, and each group is sealed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from attrs import frozen

from muxly._ids import new_id
from muxly._runner.context import RunContext
from muxly._runner.extract import deduplication
from muxly._runner.extract.committer import Committer, FinishedGroup
from muxly._runner.extract.intake import Intake
from muxly._runner.extract.splitter import BatchSplitter, ConformedBatch
from muxly._runner.schema import evolution
from muxly.batch import Batch, Cursor
from muxly.component import Notice
from muxly.errors import StoppedError
from muxly.spool import SegmentBytes, SegmentWriter, SpoolDraft
from muxly.store.rows import Letter, StoredPartition, StoredPlan, WrittenGroup, WrittenSegment
from muxly.stream import Stream

_MOST_LETTERS = 10_000  # they wait in memory, other than records


class PartitionReader:
    """Takes the batches of one partition, and seals a group whenever reading could resume there.

    What follows the last cursor is held apart until the next cursor comes, so that an
    interrupted reading seals exactly up to its last cursor.

    Args:
        context: The run.
        committer: Seals the groups.
        intake_of: How a stream is taken in, by its name.
        splitter: Splits the batches.
        stream: The stream being read.
        plan: The plan.
        partition: The partition.
    """

    def __init__(
        self,
        context: RunContext,
        committer: Committer,
        intake_of: Callable[[str], Intake],
        splitter: BatchSplitter,
        *,
        stream: Stream,
        plan: StoredPlan,
        partition: StoredPartition,
    ) -> None:
        self._context, self._committer, self._intake_of, self._splitter = context, committer, intake_of, splitter
        self._stream, self._plan, self._partition = stream, plan, partition
        self.id = new_id()
        self.cursor: Cursor = partition.cursor
        self._reached: Cursor = None
        self._sequence = 0
        self._sealing: Future[None] | None = None
        self._sealing_to: Cursor = None
        self._broken = False
        pipeline = context.pipeline
        self._held_bytes = min(BATCH_BYTES, pipeline.memory_bytes // (2 * pipeline.parallel))
        self._group = self._new_group()
        self._letters: list[Letter] = []
        self._versions: dict[str, set[int]] = {}
        self._boundaries: dict[str, tuple[Stream, deduplication.Boundary]] = {}
        self._noticed: set[str] = set()
        self._tail: list[ConformedBatch] = []
        self._tail_bytes = 0
        self._returnable = True

    def _new_group(self) -> GroupBuilder:
        token = self._context.ledger.token
        return GroupBuilder(
            lambda: self._context.spool.draft(token), self._context.pipeline.segment_bytes, self._held_bytes
        )

    def add(self, batch: Batch) -> None:
        """Take one batch; seals a group if one ends here.

        Raises:
            StoppedError: The run stops; everything up to the last cursor is sealed.
            StreamError: The batch does not keep the stream's contract.
        """
        conformed = self._splitter.split(batch)
        self._tail += conformed
        self._tail_bytes += sum(part.table.nbytes for part in conformed)
        if batch.cursor is not None:
            self._reached = batch.cursor
            if self._stream.sorted:
                step_bytes = self._tail_bytes
                self._keep_tail()
                self._returnable = True
                if self._due(step_bytes):
                    self._seal(done=False)
        elif self._tail_bytes > self._held_bytes:
            self._keep_tail()
            self._returnable = False
        if self._context.stop.is_set():
            raise StoppedError("the run was asked to stop")

    def _due(self, step_bytes: int) -> bool:
        """Whether the group ends here: it is old, has many letters, or one more step makes its segment too big."""
        pipeline = self._context.pipeline
        old = time.monotonic() - self._group.started_at >= pipeline.segment_seconds
        full = self._group.bytes + step_bytes > pipeline.segment_bytes or len(self._letters) >= _MOST_LETTERS
        return bool(self._letters or not self._group.empty) and (old or full)

    def finish(self) -> None:
        """The partition ended: seal the rest, and wait until it is sealed."""
        self._keep_tail()
        self._seal(done=True)
        self.wait()

    def interrupt(self) -> None:
        """PartitionReader broke off: seal up to the last cursor, and forget what follows."""
        self._tail = []
        if self._stream.sorted and self._returnable and self._reached is not None and not self._broken:
            self._seal(done=False)
        self._group.discard()
        self.wait()

    def discard(self) -> None:
        """Forget everything that is not sealed."""
        self._tail = []
        self._group.discard()

    def wait(self) -> None:
        """Wait for the group that is being sealed; raises why it was not."""
        sealing, self._sealing = self._sealing, None
        if sealing is None:
            return
        try:
            sealing.result()
        except BaseException:
            self._broken = True  # what follows the group that was not sealed must not be sealed either
            raise
        if self._sealing_to is not None:
            self.cursor = self._sealing_to

    def _keep_tail(self) -> None:
        """What was held apart becomes part of the group."""
        tail, self._tail, self._tail_bytes = self._tail, [], 0
        for part in tail:
            self._letters += part.letters
            if part.version == 0:
                continue
            self._group.add(part.stream, part.version, part.table, part.replaces)
            self._versions.setdefault(part.stream, set()).add(part.version)
            self._remember(part)

    def _remember(self, part: ConformedBatch) -> None:
        stream = self._intake_of(part.stream).stream
        if stream.cursor_field is not None and part.table.num_rows:
            before = self._boundaries.get(part.stream, (stream, deduplication.Boundary()))[1]
            reached = deduplication.advance(before, part.table, stream, now=datetime.now(UTC))
            self._boundaries[part.stream] = (stream, reached)
            self._report_odd_cursor(stream, reached)

    def _report_odd_cursor(self, stream: Stream, reached: deduplication.Boundary) -> None:
        """Say, once per reading, what is odd about a stream's cursor field."""
        if reached.clamped is not None:
            message = f"stream {stream.name!r} has {stream.cursor_field} {reached.clamped}, which is in the future"
            self._notice_once("cursor_in_the_future", f"{message}; the current time is used instead", stream)
        if reached.forgotten:
            message = f"stream {stream.name!r} has more records within its lookback than can be tracked"
            self._notice_once("lookback_too_wide", f"{message}; some may be delivered again", stream)

    def _notice_once(self, code: str, message: str, stream: Stream) -> None:
        if code not in self._noticed:
            self._noticed.add(code)
            self._context.run.notice(Notice(code, message, stream=stream.name))

    def _seal(self, *, done: bool) -> None:
        """Hand the group to the committer; the one before must be sealed first."""
        self.wait()
        finished = self._group.finish()
        segments = [self._segment(segment) for segment in finished]
        group = WrittenGroup(
            plan=self._plan.id,
            ordinal=self._partition.ordinal,
            partition=self._partition.id,
            cursor_before=self.cursor,
            cursor_after=self._reached,
            done=done,
            segments=tuple(segments),
            letters=tuple(self._letters),
            schemas=tuple(self._unstored()),
        )
        contents = tuple(segment.content for segment in finished)
        remembered = tuple(self._boundaries.values())
        self._sealing = self._committer.submit(FinishedGroup(group=group, contents=contents, boundaries=remembered))
        self._sealing.add_done_callback(partial(self._stored, self._versions))
        self._sealing_to = self._reached
        self._group = self._new_group()
        self._letters, self._versions, self._boundaries = [], {}, {}

    def _stored(self, versions: dict[str, set[int]], future: Future[None]) -> None:
        if future.exception() is None:
            for name, numbers in versions.items():
                self._intake_of(name).schema.stored(numbers)

    def _unstored(self) -> Iterable[tuple[str, int, bytes]]:
        for name, numbers in self._versions.items():
            growing = self._intake_of(name).schema
            for version in sorted(numbers):
                if (schema := growing.unstored(version)) is not None:
                    yield name, version, evolution.schema_to_bytes(schema)

    def _segment(self, finished: Any) -> WrittenSegment:
        self._sequence += 1
        content = finished.content
        return WrittenSegment(
            key=segment_key(finished.stream, self._partition.id, self.id, self._sequence),
            stream=finished.stream,
            parent=self._stream.name if finished.stream != self._stream.name else None,
            schema_version=finished.version,
            records=content.records if content else 0,
            bytes=content.bytes if content else 0,
            file=None,
            offset=0,
            length=0,
            digest="",
            replaces=finished.replaces,
        )


_KEY_BYTES = 100


def segment_key(stream: str, partition: str, reading: str, sequence: int) -> str:
    """Names a segment for ever: a reading's ULID and number are never used twice."""
    return f"{_safe(stream)}/{_safe(partition)}/{reading}/{sequence}"


def _safe(name: str) -> str:
    """A percent-encoded name of at most 100 bytes; a longer one ends with its hash."""
    text = quote(name, safe="", errors="surrogatepass")
    if len(text) <= _KEY_BYTES:
        return text
    digest = hashlib.sha256(text.encode(), usedforsecurity=False).hexdigest()[:16]
    return f"{text[: _KEY_BYTES - 17]}-{digest}"


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
