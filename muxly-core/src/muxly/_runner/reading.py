"""A reading: one opening of ``read`` on one partition, cut into groups and sealed."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attrs import field, frozen

from muxly._ids import new_id
from muxly._runner import repeats, schemas
from muxly._runner.committer import FinishedGroup
from muxly._runner.groups import BATCH_BYTES, GroupBuilder
from muxly.batch import Batch
from muxly.component import Notice
from muxly.errors import PluginError, StoppedError
from muxly.store import plans
from muxly.store.rows import Letter, WrittenGroup, WrittenSegment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import pyarrow as pa

    from muxly._runner.active import ActiveRun
    from muxly._runner.committer import Committer
    from muxly._runner.growth import GrowingSchema
    from muxly.batch import Cursor, Rejected
    from muxly.store.rows import StoredPartition, StoredPlan
    from muxly.stream import Stream

_KEY_BYTES = 100


@frozen(eq=False, kw_only=True)
class Intake:
    """One stream as it is taken in: its definition, schema and repeats.

    Args:
        stream: The stream.
        schema: Its schema, shared by all partitions.
        wanted: Whether its records are kept; False for a child nobody asked for.
        discarded: Why all its records become dead letters, if the contract says so.
        keyed: Whether some route replaces records by the overwrite key.
    """

    stream: Stream
    schema: GrowingSchema
    wanted: bool = True
    discarded: str | None = None
    keyed: bool = False


@frozen(kw_only=True)
class _Piece:
    """Records of one batch, ready to be added to a group."""

    stream: str
    version: int
    table: pa.Table
    replaces: tuple[tuple[Any, ...], ...]
    letters: list[Letter] = field(factory=list)


class Reading:
    """Takes the batches of one partition, and seals a group whenever reading could resume there.

    What follows the last cursor is held apart until the next cursor comes, so that an
    interrupted reading seals exactly up to its last cursor.

    Args:
        active: The run.
        committer: Seals the groups.
        intake_of: How a stream is taken in, by its name.
        stream: The stream being read.
        plan: The plan.
        partition: The partition.
        allowed: How many of so many more records of a stream are taken.
        on_count: Told stream, records, repeats and rejected records of each batch.
    """

    def __init__(
        self,
        active: ActiveRun,
        committer: Committer,
        intake_of: Callable[[str], Intake],
        *,
        stream: Stream,
        plan: StoredPlan,
        partition: StoredPartition,
        allowed: Callable[[str, int], int],
        on_count: Callable[[str, int, int, int], None],
    ) -> None:
        self._active, self._committer, self._intake_of = active, committer, intake_of
        self._stream, self._plan, self._partition = stream, plan, partition
        self._allowed, self._on_count = allowed, on_count
        self.id = new_id()
        self.cursor: Cursor = partition.cursor
        self._reached: Cursor = None
        self._sequence = 0
        self._sealing: Future[None] | None = None
        self._sealing_to: Cursor = None
        self._broken = False
        pipeline = active.pipeline
        self._held_bytes = min(BATCH_BYTES, pipeline.memory_bytes // (2 * pipeline.parallel))
        self._group = self._new_group()
        self._letters: list[Letter] = []
        self._versions: dict[str, set[int]] = {}
        self._boundaries: dict[str, tuple[Stream, repeats.Boundary]] = {}
        self._expected: dict[str, list[repeats.Boundary]] = {}
        self._told: set[str] = set()
        self._tail: list[_Piece] = []
        self._tail_bytes = 0
        self._returnable = True

    def _new_group(self) -> GroupBuilder:
        token = self._active.ledger.token
        return GroupBuilder(
            lambda: self._active.spool.draft(token), self._active.pipeline.segment_bytes, self._held_bytes
        )

    def add(self, batch: Batch) -> None:
        """Take one batch; seals a group if one ends here.

        Raises:
            StoppedError: The run stops; everything up to the last cursor is sealed.
            StreamError: The batch does not keep the stream's contract.
        """
        pieces = list(self._pieces(batch))
        self._tail += pieces
        self._tail_bytes += sum(piece.table.nbytes for piece in pieces)
        if batch.cursor is not None:
            self._reached = batch.cursor
            if self._stream.sorted:
                pieces_bytes = self._tail_bytes
                self._keep_tail()
                self._returnable = True
                if self._due(pieces_bytes):
                    self._seal(done=False)
        elif self._tail_bytes > self._held_bytes:
            self._keep_tail()
            self._returnable = False
        if self._active.stop.is_set():
            raise StoppedError("the run was asked to stop")

    def _due(self, step_bytes: int) -> bool:
        """Whether the group ends here: it is old, or one more step would make its segment too big."""
        pipeline = self._active.pipeline
        old = time.monotonic() - self._group.started_at >= pipeline.segment_seconds
        full = self._group.bytes + step_bytes > pipeline.segment_bytes
        return not self._group.empty and (old or full)

    def finish(self) -> None:
        """The partition ended: seal the rest, and wait until it is sealed."""
        self._keep_tail()
        self._seal(done=True)
        self.wait()

    def interrupt(self) -> None:
        """Reading broke off: seal up to the last cursor, and forget what follows."""
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

    def _pieces(self, batch: Batch) -> Iterator[_Piece]:
        """The batch as records of one schema each, nearly always in one piece."""
        name = batch.stream or self._stream.name
        intake = self._intake_of(name)
        table, unfit = batch.to_arrow(intake.schema.schema)
        if not intake.wanted:
            return
        letters = [_letter_of(name, one) for one in batch.rejected]
        if intake.discarded:
            letters += [_letter(name, intake.discarded, record=one) for one in table.to_pylist()]
            letters += [_letter_of(name, one) for one in unfit]
            self._on_count(name, 0, 0, len(letters))
            yield _Piece(stream=name, version=0, table=table.slice(0, 0), replaces=(), letters=letters)
            return
        others, unreadable = _by_type(unfit)
        letters += [_letter_of(name, one) for one in unreadable]
        yield self._piece(intake, table, named=batch.replaces, letters=letters)
        for other in others:
            yield self._piece(intake, other, named=(), letters=[])

    def _piece(self, intake: Intake, table: pa.Table, *, named: Sequence[Any], letters: list[Letter]) -> _Piece:
        """Records in the stream's schema, without repeats; what the contract discards joins the letters."""
        name = intake.stream.name
        table, version, refused = intake.schema.conform(table)
        kept, dropped = self._without_repeats(intake, table)
        table = kept.slice(0, self._allowed(name, kept.num_rows))
        letters = [*letters, *(_letter_of(name, one) for one in refused)]
        self._on_count(name, table.num_rows, dropped, len(letters))
        return _Piece(
            stream=name, version=version, table=table, replaces=_replaces(named, intake, table), letters=letters
        )

    def _without_repeats(self, intake: Intake, table: pa.Table) -> tuple[pa.Table, int]:
        """What was not sealed before, and how much was; all of it where values are replaced as a whole."""
        if intake.keyed:
            return table, 0
        records, expected = table.num_rows, self._expected_of(intake.stream)
        for number, boundary in enumerate(expected):
            kept = repeats.drop_repeats(table, intake.stream, boundary)
            table, expected[number] = kept.table, kept.expected
        return table, records - table.num_rows

    def _expected_of(self, stream: Stream) -> list[repeats.Boundary]:
        """What this reading may see again: what was sealed before its plan, and what its own partition has sealed.

        Not what other partitions of the plan have sealed: an equal record of theirs is another one.
        """
        if stream.name not in self._expected:
            states = []
            if stream.cursor_field is not None:
                own = plans.own_boundaries(self._active.ledger, self._plan.id, self._partition.ordinal)
                states = [self._plan.boundaries.get(stream.name), own.get(stream.name)]
            self._expected[stream.name] = [repeats.Boundary.from_state(state) for state in states if state]
        return self._expected[stream.name]

    def _keep_tail(self) -> None:
        """What was held apart becomes part of the group."""
        pieces, self._tail, self._tail_bytes = self._tail, [], 0
        for piece in pieces:
            self._letters += piece.letters
            if piece.version == 0:
                continue
            self._group.add(piece.stream, piece.version, piece.table, piece.replaces)
            self._versions.setdefault(piece.stream, set()).add(piece.version)
            self._remember(piece)

    def _remember(self, piece: _Piece) -> None:
        stream = self._intake_of(piece.stream).stream
        if stream.cursor_field is not None and piece.table.num_rows:
            before = self._boundaries.get(piece.stream, (stream, repeats.Boundary()))[1]
            reached = repeats.advance(before, piece.table, stream, now=datetime.now(UTC))
            self._boundaries[piece.stream] = (stream, reached)
            self._tell(stream, reached)

    def _tell(self, stream: Stream, reached: repeats.Boundary) -> None:
        """Say, once per reading, what is odd about a stream's cursor field."""
        if reached.clamped is not None:
            message = f"stream {stream.name!r} has {stream.cursor_field} {reached.clamped}, which is in the future"
            self._notice_once("cursor_in_the_future", f"{message}; it counts as now", stream)
        if reached.forgotten:
            message = f"stream {stream.name!r} has more records within its lookback than can be remembered"
            self._notice_once("lookback_too_wide", f"{message}; some may be delivered again", stream)

    def _notice_once(self, code: str, message: str, stream: Stream) -> None:
        if code not in self._told:
            self._told.add(code)
            self._active.run.notice(Notice(code, message, stream=stream.name))

    def _seal(self, *, done: bool) -> None:
        """Hand the group to the committer; the one before must be sealed first."""
        self.wait()
        finished = self._group.finish()
        segments = [self._segment(one) for one in finished]
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
        contents = tuple(one.content for one in finished)
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
                    yield name, version, schemas.schema_to_bytes(schema)

    def _segment(self, one: Any) -> WrittenSegment:
        self._sequence += 1
        content = one.content
        return WrittenSegment(
            key=segment_key(one.stream, self._partition.id, self.id, self._sequence),
            stream=one.stream,
            parent=self._stream.name if one.stream != self._stream.name else None,
            schema_version=one.version,
            records=content.records if content else 0,
            bytes=content.bytes if content else 0,
            file=None,
            offset=0,
            length=0,
            digest="",
            replaces=one.replaces,
        )


def segment_key(stream: str, partition: str, reading: str, sequence: int) -> str:
    """Names a segment for ever: a reading's ULID and number are never used twice."""
    return f"{_safe(stream)}/{_safe(partition)}/{reading}/{sequence}"


def _safe(name: str) -> str:
    """A percent-encoded name of at most 100 bytes; a longer one ends with its hash."""
    import hashlib

    text = quote(name, safe="", errors="surrogatepass")
    if len(text) <= _KEY_BYTES:
        return text
    digest = hashlib.sha256(text.encode(), usedforsecurity=False).hexdigest()[:16]
    return f"{text[: _KEY_BYTES - 17]}-{digest}"


def _by_type(unfit: list[Rejected]) -> tuple[list[pa.Table], list[Rejected]]:
    """Records whose values have other types than their neighbours' as tables of their own types.

    The contract decides what becomes of them; what no type holds stays rejected.
    """
    tables: list[pa.Table] = []
    while unfit:
        table, left = Batch([one.record for one in unfit]).to_arrow()
        if not table.num_rows:
            break
        tables.append(table)
        unfit = left
    return tables, unfit


def _replaces(named: Sequence[Any], intake: Intake, table: pa.Table) -> tuple[tuple[Any, ...], ...]:
    """The overwrite key's values that a batch replaces: those it names, and those of its records."""
    key = intake.stream.overwrite_key
    if not key:
        if named:
            raise PluginError(f"a batch of {intake.stream.name!r} replaces values, but the stream has no overwrite_key")
        return ()
    found = [one if isinstance(one, tuple) else (one,) for one in named]
    if intake.keyed and table.num_rows:
        rows = table.select(list(key)).group_by(list(key)).aggregate([]).to_pylist()
        found += [tuple(row[name] for name in key) for row in rows]
    return tuple(dict.fromkeys(found))


def _letter_of(stream: str, rejected: Rejected) -> Letter:
    return _letter(stream, rejected.reason, record=rejected.record, place=rejected.place)


def _letter(stream: str, reason: str, *, record: Any, place: str | None = None) -> Letter:
    content, kind = _encoded(record)
    return Letter(stream=stream, reason=reason, place=place, record=content, format=kind)


def _encoded(record: Any) -> tuple[bytes | None, str]:
    if record is None:
        return None, "none"
    if isinstance(record, bytes):
        return record, "bytes"
    if isinstance(record, str):
        return record.encode(errors="surrogateescape"), "text"
    return json.dumps(record, default=str, ensure_ascii=True).encode(), "json"
