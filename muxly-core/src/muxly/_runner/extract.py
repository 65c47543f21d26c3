"""Extraction: plans streams, reads their partitions on several threads, and answers errors."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from muxly._runner import fingerprint
from muxly._runner.active import sentence
from muxly._runner.executors.threads import DaemonThreads
from muxly._runner.room import wait_for_room
from muxly._runner.subscriptions import check_modes, is_pattern, is_refused, rules_of
from muxly.component import Notice
from muxly.connector import Partition, Plan
from muxly.errors import (
    FencedError,
    QuotaError,
    RetryableError,
    StaleCursorError,
    StoppedError,
    StreamError,
    StreamUnavailableError,
)
from muxly.pipeline import StreamResult, StreamRules
from muxly.retry import Patience
from muxly.store import plans
from muxly.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import pyarrow as pa

    from muxly._runner.active import ActiveRun
    from muxly._runner.committer import Committer
    from muxly._runner.reading import Intake, Reading
    from muxly.batch import Cursor
    from muxly.connector import Connector
    from muxly.store.rows import StoredPartition, StoredPlan


class Extraction:
    """Reads all chosen streams of one run.

    Args:
        active: The run.
        connector: Opened.
        streams: The streams to take in, by name.
        committer: Seals the groups.
        limit: So many records of each stream at most; None = all.
        known: Streams that earlier runs have had, by name; others are new.
    """

    def __init__(
        self,
        active: ActiveRun,
        connector: Connector,
        streams: Mapping[str, Stream],
        committer: Committer,
        *,
        limit: int | None = None,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self._active, self._connector, self._committer = active, connector, committer
        self._streams, self._limit, self._known = dict(streams), limit, known
        self._intakes: dict[str, Intake] = {}
        self._lock = threading.Lock()
        self._pool = DaemonThreads(active.pipeline.parallel, "muxly-read")
        self._readings = 0
        self._left: dict[str, int] = {}
        self._ended = threading.Condition()
        self._running = 0
        self._again: list[Stream] = []
        self._stale: set[str] = set()
        self._restarted: set[str] = set()
        self._planning: str | None = None
        self._granted: dict[str, int] = {}
        self._planned_schemas: dict[str, pa.Schema] = {}
        self.results: dict[str, StreamResult] = {}
        self.errors: dict[str, BaseException] = {}
        self.behind: set[str] = set()
        self.resume_at: datetime | None = None
        self._progress_at = time.monotonic()
        self._waiting_for_room = 0
        self.abandoned = False

    def stalled_seconds(self) -> float:
        """How long no batch has come, while somebody waits for one."""
        busy = self._planning is not None or (self._readings and not self._waiting_for_room)
        return time.monotonic() - self._progress_at if busy else 0.0

    def abandon(self, why: str) -> None:
        """Leave its threads to themselves: whatever they still read is not sealed."""
        self.abandoned = True
        self._committer.refuse(StoppedError(f"reading {why}"))
        open_streams = [name for name, left in [*self._left.items()] if left]
        for name in dict.fromkeys([*open_streams, *([self._planning] if self._planning else [])]):
            self._failed(name, StreamError(f"stream {name!r} {why}"))

    def readers(self) -> int:
        """How many partitions are being read now."""
        return self._readings

    def run(self) -> None:
        """Read everything; returns when nothing more can be read in this run."""
        try:
            for stream in self._roots():
                self._guard(stream.name, lambda stream=stream: self._begin(stream))  # type: ignore[misc]
            self._wait_for_readings()
        finally:
            self._pool.shutdown(wait=False)

    def _roots(self) -> list[Stream]:
        """Streams to be read themselves: children come with their parents."""
        names = self._streams.keys()
        return [one for one in self._streams.values() if one.parent is None or one.parent not in names]

    def _wait_for_readings(self) -> None:
        while True:
            with self._ended:
                self._ended.wait_for(lambda: not self._running or self._again)
                again, self._again = self._again, []
                if not again and not self._running:
                    return
            for stream in again:
                self._guard(stream.name, lambda stream=stream: self._plan_again(stream))  # type: ignore[misc]

    def _plan_again(self, stream: Stream) -> None:
        if stream.name in self._stale:
            self._stale.discard(stream.name)
            plans.set_cursor(self._active.ledger, stream.name, None)
        self._submit(stream, self._plan(stream))

    def _begin(self, stream: Stream) -> None:
        """Finish the stream's unfinished plan, or make a new one."""
        unfinished = plans.unfinished(self._active.ledger, stream.name, self._digest_of(stream.name))
        if unfinished is None:
            self._tell_discarded(stream.name)
            self._submit(stream, self._plan(stream))
        else:
            if unfinished.schema is not None:
                from muxly._runner.schemas import schema_from_bytes

                self._planned_schemas[stream.name] = schema_from_bytes(unfinished.schema)
            incremental = self._rules(stream.name).read == "incremental"
            self._submit(stream, unfinished, then_again=incremental)

    def _tell_discarded(self, name: str) -> None:
        """Say that an unfinished plan ends because the connector's options are others now."""
        if plans.unfinished(self._active.ledger, name) is not None:
            message = (
                f"stream {name!r} was not read to its end when the connector's options changed: it is planned anew, "
                "and routes in mode append get again what was read of it"
            )
            self._active.run.notice(Notice("plan_discarded", message, stream=name))

    def _plan(self, stream: Stream) -> StoredPlan:
        ledger = self._active.ledger
        full = self._rules(stream.name).read == "full"
        cursor = None if full else plans.stream_cursor(ledger, stream.name)
        try:
            plan = self._patiently(stream, cursor)
        except StaleCursorError as error:
            self._accept_restart(stream, error)
            plans.set_cursor(ledger, stream.name, None)
            cursor = None
            plan = self._patiently(stream, None)
        _check_plan(stream, plan)
        if plan.schema is not None:
            self._planned_schemas[stream.name] = plan.schema
        return plans.store(
            ledger,
            stream.name,
            partitions_planned=plan.partitions,
            cursor=plan.cursor,
            schema=None if plan.schema is None else bytes(plan.schema.serialize()),
            options_digest=self._digest_of(stream.name),
            from_start=cursor is None,
            children=[one.name for one in self._streams.values() if one.parent == stream.name],
        )

    def _digest_of(self, name: str) -> str:
        """Names the options a plan is made under: the connector's, and whether all is read."""
        return fingerprint.of_plan(self._connector, self._rules(name).read)

    def _patiently(self, stream: Stream, cursor: Cursor) -> Plan:
        """Plan a stream; try again after retryable errors, as often as the pipeline allows."""
        return Patience(self._active.pipeline.retry, self._sleep).call(lambda: self._planned(stream, cursor))

    def _planned(self, stream: Stream, cursor: Cursor) -> Plan:
        self._planning = stream.name
        self._progress()
        try:
            return self._connector.plan(stream, cursor)
        finally:
            self._planning = None
            self._progress()

    def _progress(self, ahead_seconds: float = 0.0) -> None:
        self._progress_at = max(self._progress_at, time.monotonic() + ahead_seconds)

    def _submit(self, stream: Stream, plan: StoredPlan, *, then_again: bool = False) -> None:
        waiting = [one for one in plan.partitions if not one.done]
        if not waiting and then_again:
            self._submit(stream, self._plan(stream))
            return
        with self._ended:
            self._running += len(waiting)
            self._left[stream.name] = len(waiting)
        for partition in waiting:
            self._pool.submit(self._read_partition, stream, plan, partition, then_again)

    def _read_partition(self, stream: Stream, plan: StoredPlan, partition: StoredPartition, then_again: bool) -> None:
        try:
            self._guard(stream.name, lambda: self._read(stream, plan, partition))
        finally:
            with self._ended:
                self._running -= 1
                self._left[stream.name] -= 1
                if not self._left[stream.name] and self._wants_another_plan(stream.name, then_again):
                    self._again.append(stream)
                self._ended.notify_all()

    def _wants_another_plan(self, name: str, then_again: bool) -> bool:
        """Whether a stream is planned once more: its unfinished plan is done, or its cursor was stale."""
        if self._active.stop.is_set() or name in self.behind:
            return False
        return then_again or name in self._stale

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        """Do some work of a stream; an error becomes the stream's, and others go on."""
        if self._active.stop.is_set() or self.abandoned or name in self.errors:
            self._behind(name)
            return
        try:
            work()
        except StoppedError:
            self._behind(name)
        except QuotaError as error:
            self._behind(name)
            with self._lock:
                times = [one for one in (self.resume_at, error.resume_at) if one is not None]
                self.resume_at = max(times, default=None)
            self._active.run.notice(Notice("quota", str(error), stream=name))
        except StreamUnavailableError as error:
            self._unavailable(name, error)
        except FencedError as error:
            self._active.fence(error)
            self._failed(name, error)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            self._failed(name, error)

    def _behind(self, name: str) -> None:
        with self._lock:
            self.behind.add(name)

    def _failed(self, name: str, error: BaseException) -> None:
        with self._lock:
            self.behind.add(name)
            self.errors.setdefault(name, error)
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(before, error=before.error or sentence(error))
            self._active.unread.setdefault(name, error)
        self._active.show()

    def _unavailable(self, name: str, error: StreamUnavailableError) -> None:
        """A stream that is not there: an error if the user named it, else only a notice."""
        named = name in self._active.pipeline.streams and not is_pattern(name)
        if named:
            self._failed(name, error)
        else:
            self._active.run.notice(Notice("stream_unavailable", str(error), stream=name))

    def _read(self, stream: Stream, plan: StoredPlan, partition: StoredPartition) -> None:
        """Read one partition to its end, beginning again after retryable errors."""
        patience = Patience(self._active.pipeline.retry, self._sleep)
        with self._counted():
            while True:
                reading = self._reading(stream, plan, partition)
                try:
                    self._take_all(reading, stream, partition)
                    return
                except RetryableError as error:
                    _interrupt(reading)
                    if reading.cursor != partition.cursor:
                        patience.start_over()
                    partition = evolve(partition, cursor=reading.cursor)
                    patience.wait(error)
                except (QuotaError, StoppedError):
                    reading.interrupt()
                    raise
                except StaleCursorError as error:
                    reading.discard()
                    self._accept_restart(stream, error)
                    self._stale.add(stream.name)
                    return
                except BaseException:
                    reading.discard()
                    raise

    def _sleep(self, seconds: float) -> None:
        """Wait before another try; that is no stall."""
        self._progress(seconds)
        self._active.run.sleep(seconds)

    def waits(self, seconds: float) -> None:
        """The connector waits, for so long that the source must have asked for it; that is no stall either."""
        self._progress(seconds)

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

    def _reading(self, stream: Stream, plan: StoredPlan, partition: StoredPartition) -> Reading:
        from muxly._runner.reading import Reading  # loads pyarrow, which a run with nothing new does not need

        return Reading(
            self._active,
            self._committer,
            self.intake,
            stream=stream,
            plan=plan,
            partition=partition,
            allowed=self._allowed,
            on_count=self._count,
        )

    def _take_all(self, reading: Reading, stream: Stream, partition: StoredPartition) -> None:
        planned = Partition(partition.id, partition.start, payload=partition.payload, records=partition.records)
        batches = self._connector.read(stream, planned, partition.cursor)
        try:
            for batch in batches:
                if stream.name in self._stale:
                    reading.discard()
                    return
                self._progress()
                reading.add(batch)
                self._wait_for_room()
                if self._limit is not None and self._granted.get(stream.name, 0) >= self._limit:
                    break
        finally:
            if (close := getattr(batches, "close", None)) is not None:
                close()
        reading.finish()

    def _wait_for_room(self) -> None:
        with self._lock:
            self._waiting_for_room += 1
        try:
            wait_for_room(self._active)
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

    def _accept_restart(self, stream: Stream, error: StaleCursorError) -> None:
        """The source does not know the cursor any more: begin again, once in a run, if the user allows it."""
        with self._lock:
            if stream.name in self._stale:
                return
            again = stream.name in self._restarted
            self._restarted.add(stream.name)
        if again:
            raise StreamError(f"{error}; the stream was restarted once in this run already") from error
        if self._rules(stream.name).on_stale_cursor == "fail":
            raise StreamError(
                f"{error}; write `on_stale_cursor: restart` for stream {stream.name!r} to read it again from the start"
            ) from error
        message = f"{error}; the stream is read from the start"
        self._active.run.notice(Notice("stream_restarted", message, stream=stream.name))

    def _rules(self, name: str) -> StreamRules:
        return rules_of(self._active.pipeline, name) or StreamRules()

    def intake(self, name: str) -> Intake:
        """How a stream is taken in; made when its first batch comes."""
        with self._lock:
            if name not in self._intakes:
                self._intakes[name] = self._new_intake(name)
            return self._intakes[name]

    def _new_intake(self, name: str) -> Intake:
        from muxly._runner.growth import GrowingSchema
        from muxly._runner.reading import Intake

        rules = rules_of(self._active.pipeline, name)
        stream = self._streams.get(name) or self._active.streams.get(name) or Stream(name)
        modes = check_modes(self._active.pipeline, stream, rules or StreamRules())
        self._active.streams.setdefault(name, stream)
        return Intake(
            stream=stream,
            schema=GrowingSchema(
                self._active.ledger,
                name,
                rules or StreamRules(),
                lambda before, after: self._grew(name, before, after),
                declared=[one for one in (stream.schema, self._planned_schemas.get(name)) if one is not None],
            ),
            wanted=rules is not None,
            discarded=self._new_stream(name),
            keyed="overwrite" in modes.values(),
        )

    def _new_stream(self, name: str) -> str | None:
        """Why a stream that earlier runs did not have is not taken; None = it is."""
        contract = self._active.pipeline.new_streams
        if not is_refused(self._active.pipeline, name, self._known):
            return None
        if contract == "freeze":
            raise StreamError(
                f"stream {name!r} is new, and `new_streams: freeze` takes none; name it under `streams:` "
                "or write `new_streams: evolve`"
            )
        return f"stream {name!r} is new, and `new_streams: {contract}` discards its records"

    def _grew(self, name: str, before: pa.Schema | None, after: pa.Schema) -> None:
        self._active.tell("muxly_schema_changed", stream=name, before=before, after=after)

    def _count(self, name: str, records: int, repeated: int, rejected: int) -> None:
        with self._lock:
            before = self.results.get(name, StreamResult())
            self.results[name] = evolve(
                before,
                sealed=before.sealed + records,
                repeated=before.repeated + repeated,
                rejected=before.rejected + rejected,
            )
        self._active.show()


def _check_plan(stream: Stream, plan: object) -> None:
    """Refuse what is no plan, and one whose partitions cannot be told apart."""
    if not isinstance(plan, Plan):
        raise StreamError(f"plan() of {stream.name!r} returned {type(plan).__name__}, not a muxly.Plan")
    names = [one.id for one in plan.partitions]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise StreamError(f"plan() of {stream.name!r} has two partitions named {twice!r}; an id names one partition")


def _interrupt(reading: Reading) -> None:
    """Seal up to the last cursor; what the store does not take now is read again like all that follows."""
    try:
        reading.interrupt()
    except RetryableError:
        reading.discard()
