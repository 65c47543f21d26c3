"""Extraction: reads the partitions of all streams on several threads, and waits for room in the spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from muxly._runner.context import RunContext, sentence
from muxly._runner.extract.committer import Committer
from muxly._runner.extract.intake import Intakes
from muxly._runner.extract.planning import Planning
from muxly._runner.streams import is_pattern
from muxly._runner.threads import DaemonThreads
from muxly.component import Notice
from muxly.connector import Connector, Partition
from muxly.errors import (
    FencedError,
    QuotaError,
    RetryableError,
    StaleCursorError,
    StoppedError,
    StreamError,
    StreamUnavailableError,
)
from muxly.pipeline import StreamResult
from muxly.retry import Retry
from muxly.store import accounts, positions, retention
from muxly.store.rows import StoredPartition, StoredPlan
from muxly.stream import Stream

if TYPE_CHECKING:
    from muxly._runner.extract.partition import PartitionReader


class Extraction:
    """Reads all chosen streams of one run.

    Args:
        context: The run.
        connector: Opened.
        streams: The streams to take in, by name.
        committer: Seals the groups.
        limit: So many records of each stream at most; None = all.
        known: Streams that earlier runs have had, by name; others are new.
    """

    def __init__(
        self,
        context: RunContext,
        connector: Connector,
        streams: Mapping[str, Stream],
        committer: Committer,
        *,
        limit: int | None = None,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self._context, self._connector, self._committer = context, connector, committer
        self._streams, self._limit = dict(streams), limit
        self._planning = Planning(context, connector, streams, sleep=self._sleep, on_progress=self._progress)
        self._intakes = Intakes(context, streams, known, self._planning.schema)
        self.outcomes = Outcomes(context)
        self._lock = threading.Lock()
        self._pool = DaemonThreads(context.pipeline.parallel, "muxly-read")
        self._readings = 0
        self._left: dict[str, int] = {}
        self._ended = threading.Condition()
        self._running = 0
        self._again: list[Stream] = []
        self._granted: dict[str, int] = {}
        self._progress_at = time.monotonic()
        self._waiting_for_room = 0
        self.abandoned = False

    def stalled_seconds(self) -> float:
        """How long no batch has come, while somebody waits for one."""
        busy = self._planning.asking is not None or (self._readings and not self._waiting_for_room)
        return time.monotonic() - self._progress_at if busy else 0.0

    def abandon(self, why: str) -> None:
        """Leave its threads to themselves: whatever they still read is not sealed."""
        self.abandoned = True
        self._committer.refuse(StoppedError(f"reading {why}"))
        open_streams = [name for name, left in [*self._left.items()] if left]
        for name in dict.fromkeys([*open_streams, self._planning.asking]):
            if name is not None:
                self.outcomes.fail(name, StreamError(f"stream {name!r} {why}"))

    def readers(self) -> int:
        """How many partitions are being read now."""
        return self._readings

    def run(self) -> None:
        """Read everything; returns when nothing more can be read in this run."""
        try:
            for stream in self._roots():
                if self._may_go_on(stream):
                    self.outcomes.guard(stream.name, lambda stream=stream: self._begin(stream))  # type: ignore[misc]
            self._wait_for_readings()
        finally:
            self._pool.shutdown(wait=False)

    def _roots(self) -> list[Stream]:
        """Streams to be read themselves: children come with their parents."""
        names = self._streams.keys()
        return [stream for stream in self._streams.values() if stream.parent is None or stream.parent not in names]

    def _may_go_on(self, stream: Stream) -> bool:
        """Whether more is done for a stream; if not it is behind."""
        if self._context.stop.is_set() or self.abandoned or stream.name in self.outcomes.errors:
            self.outcomes.leave_behind(stream.name)
            return False
        return True

    def _wait_for_readings(self) -> None:
        while True:
            with self._ended:
                self._ended.wait_for(lambda: not self._running or self._again)
                again, self._again = self._again, []
                if not again and not self._running:
                    return
            for stream in again:
                if self._may_go_on(stream):
                    self.outcomes.guard(stream.name, lambda stream=stream: self._begin_anew(stream))  # type: ignore[misc]

    def _begin(self, stream: Stream) -> None:
        """Finish the stream's unfinished plan, or make a new one."""
        unfinished = self._planning.unfinished(stream)
        if unfinished is None:
            self._begin_anew(stream)
            return
        incremental = self._planning.rules(stream.name).read == "incremental"
        if incremental and all(partition.done for partition in unfinished.partitions):
            self._begin_anew(stream)
        else:
            self._submit(stream, unfinished, then_again=incremental)

    def _begin_anew(self, stream: Stream) -> None:
        self._submit(stream, self._planning.new(stream), then_again=False)

    def _submit(self, stream: Stream, plan: StoredPlan, *, then_again: bool) -> None:
        waiting = [partition for partition in plan.partitions if not partition.done]
        with self._ended:
            self._running += len(waiting)
            self._left[stream.name] = len(waiting)
        for partition in waiting:
            self._pool.submit(self._read_partition, stream, plan, partition, then_again)

    def _read_partition(self, stream: Stream, plan: StoredPlan, partition: StoredPartition, then_again: bool) -> None:
        try:
            if self._may_go_on(stream):
                self.outcomes.guard(stream.name, lambda: self._read(stream, plan, partition))
        finally:
            with self._ended:
                self._running -= 1
                self._left[stream.name] -= 1
                if not self._left[stream.name] and self._wants_another_plan(stream.name, then_again):
                    self._again.append(stream)
                self._ended.notify_all()

    def _wants_another_plan(self, name: str, then_again: bool) -> bool:
        """Whether a stream is planned once more: its unfinished plan is done, or its cursor was stale."""
        if self._context.stop.is_set() or name in self.outcomes.behind:
            return False
        return then_again or name in self._planning.stale

    def _read(self, stream: Stream, plan: StoredPlan, partition: StoredPartition) -> None:
        """Read one partition to its end, beginning again after retryable errors."""
        on_retry = partial(self._context.failures.retry, None, stream.name)
        retry = Retry(self._context.pipeline.retry, self._sleep, on_retry=on_retry)
        with self._counted():
            while True:
                reader = self._reader(stream, plan, partition)
                try:
                    self._take_all(reader, stream, partition)
                    return
                except RetryableError as error:
                    _interrupt(reader)
                    if reader.cursor != partition.cursor:
                        retry.start_over()
                    partition = evolve(partition, cursor=reader.cursor)
                    retry.wait(error)
                except (QuotaError, StoppedError):
                    reader.interrupt()
                    raise
                except StaleCursorError as error:
                    reader.discard()
                    self._planning.restart(stream, error)
                    return
                except BaseException:
                    reader.discard()
                    raise

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a partition as being read while the block lasts."""
        with self._lock:
            self._readings += 1
            self._progress()
        try:
            yield
        finally:
            with self._lock:
                self._readings -= 1

    def _reader(self, stream: Stream, plan: StoredPlan, partition: StoredPartition) -> PartitionReader:
        from muxly._runner.extract.partition import PartitionReader
        from muxly._runner.extract.splitter import (
            BatchSplitter,  # loads pyarrow, which a run with nothing new does not need
        )

        intake_of = self._intakes.of
        splitter = BatchSplitter(
            self._context.ledger,
            intake_of,
            stream=stream,
            plan=plan,
            partition=partition,
            allowed=self._allowed,
            on_count=self.outcomes.count,
        )
        return PartitionReader(
            self._context, self._committer, intake_of, splitter, stream=stream, plan=plan, partition=partition
        )

    def _take_all(self, reader: PartitionReader, stream: Stream, partition: StoredPartition) -> None:
        planned = Partition(partition.id, partition.start, payload=partition.payload, records=partition.records)
        batches = self._connector.read(stream, planned, partition.cursor)
        try:
            for batch in batches:
                if stream.name in self._planning.stale:
                    reader.discard()
                    return
                self._progress()
                reader.add(batch)
                self._wait_for_room()
                if self._limit is not None and self._granted.get(stream.name, 0) >= self._limit:
                    break
        finally:
            if (close := getattr(batches, "close", None)) is not None:
                close()
        reader.finish()

    def _wait_for_room(self) -> None:
        with self._lock:
            self._waiting_for_room += 1
        try:
            wait_for_room(self._context)
        finally:
            with self._lock:
                self._waiting_for_room -= 1
                self._progress()

    def _allowed(self, name: str, records: int) -> int:
        """How many of so many more records the limit allows, over all partitions."""
        if self._limit is None:
            return records
        with self._lock:
            granted = min(records, self._limit - self._granted.get(name, 0))
            self._granted[name] = self._granted.get(name, 0) + granted
            return granted

    def _progress(self, ahead_seconds: float = 0.0) -> None:
        self._progress_at = max(self._progress_at, time.monotonic() + ahead_seconds)

    def _sleep(self, seconds: float) -> None:
        """Wait before another try; that is no stall."""
        self._progress(seconds)
        self._context.run.sleep(seconds)

    def waits(self, seconds: float) -> None:
        """The connector waits, for so long that the source must have asked for it; that is no stall either."""
        self._progress(seconds)


def _interrupt(reader: PartitionReader) -> None:
    """Seal up to the last cursor; what the store does not take now is read again like all that follows."""
    try:
        reader.interrupt()
    except RetryableError:
        reader.discard()


class Outcomes:
    """The outcome of each stream; thread-safe.

    Args:
        context: The run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self.results: dict[str, StreamResult] = {}
        self.errors: dict[str, BaseException] = {}
        self.behind: set[str] = set()
        self.resume_at: datetime | None = None

    def guard(self, name: str, work: Callable[[], None]) -> None:
        """Do some work of a stream; an error becomes the stream's, and others go on."""
        try:
            work()
        except StoppedError:
            self.leave_behind(name)
        except QuotaError as error:
            self.leave_behind(name)
            self._resume(error)
            self._context.run.notice(Notice("quota", str(error), stream=name))
        except StreamUnavailableError as error:
            self._unavailable(name, error)
        except FencedError as error:
            self._context.failures.fence(error)
            self.fail(name, error)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            self.fail(name, error)

    def leave_behind(self, name: str) -> None:
        """A stream is not read to its end in this run."""
        with self._lock:
            self.behind.add(name)

    def fail(self, name: str, error: BaseException) -> None:
        """A stream cannot be read on; the first error counts."""
        with self._lock:
            self.behind.add(name)
            self.errors.setdefault(name, error)
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(before, error=before.error or sentence(error))
            self._context.failures.streams.setdefault(name, error)
        self._context.progress.show()

    def _resume(self, error: QuotaError) -> None:
        with self._lock:
            times = [time for time in (self.resume_at, error.resume_at) if time is not None]
            self.resume_at = max(times, default=None)

    def _unavailable(self, name: str, error: StreamUnavailableError) -> None:
        """A stream that is not there: an error if the user named it, else only a notice."""
        named = name in self._context.pipeline.streams and not is_pattern(name)
        if named:
            self.fail(name, error)
        else:
            self._context.run.notice(Notice("stream_unavailable", str(error), stream=name))

    def count(self, name: str, records: int, repeated: int, rejected: int) -> None:
        """Add what a batch brought."""
        with self._lock:
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(
                before,
                sealed=before.sealed + records,
                repeated=before.repeated + repeated,
                rejected=before.rejected + rejected,
            )
        self._context.progress.show()


_LOOK_SECONDS = 1.0


def wait_for_room(context: RunContext) -> None:
    """Wait until pending segments take less than the spool's budget.

    Raises:
        QuotaError: The routes that hold the spool cannot deliver; reading ends at the last
            cursor, and the run is ``partial``.
        StoppedError: The run stops.
    """
    if not context.budget.is_full():
        return
    with context.budget.waiting():
        while context.budget.is_full():
            if context.stop.is_set():
                raise StoppedError("the run was asked to stop")
            holding = {pair for pair, count in accounts.pending(context.ledger).items() if count}
            # Nobody holds it any more: the last one let go between the two looks.
            if holding and all(context.failures.are_final(*pair) for pair in holding):
                _give_way(context, holding)
                continue
            context.progress.wait(_LOOK_SECONDS)


def _give_way(context: RunContext, holding: set[tuple[str, str]]) -> None:
    """Detach the routes that may be detached, or end reading."""
    detachable = {route.name for route in context.pipeline.routes if route.backlog == "detach"}
    leaving = {(route, stream) for route, stream in holding if route in detachable}
    if not leaving:
        names = ", ".join(sorted({route for route, _stream in holding}))
        raise QuotaError(
            f"the spool holds {context.budget.pending_bytes()} bytes, its budget is {context.pipeline.spool_bytes}, "
            f"and the routes that have not delivered it cannot deliver ({names}); fix them, or set `backlog: detach`"
        )
    for route, stream in sorted(leaving):
        positions.detach(context.ledger, route, [stream])
        context.run.notice(
            Notice(
                "route_detached",
                f"route {route!r} cannot deliver stream {stream!r} and the spool is full, so it was detached; "
                f"`muxly replay --route {route}` attaches it again",
                stream=stream,
            )
        )
    context.progress.notify()
    context.spool.delete(
        retention.prune(
            context.ledger,
            keep_seconds=context.pipeline.retention_seconds,
            keep_bytes=max(0, context.pipeline.spool_bytes // 2),
        )
    )
