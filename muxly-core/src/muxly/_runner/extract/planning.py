"""Planning: an unfinished plan is finished first, a new one is stored before its first read."""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from muxly._runner import fingerprint
from muxly._runner.context import RunContext
from muxly._runner.streams import rules_of
from muxly._runner.threads import DaemonThreads
from muxly.batch import Cursor
from muxly.component import Notice
from muxly.connector import Connector, Plan
from muxly.errors import PluginError, StaleCursorError, StoppedError, StreamError
from muxly.pipeline import StreamRules
from muxly.retry import Retry
from muxly.store import plans
from muxly.store.rows import StoredPlan
from muxly.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa


class Planning:
    """Asks the connector for plans.

    Args:
        context: The run.
        connector: Opened.
        streams: The streams to take in, by name.
        sleep: Waits before another try.
        on_progress: Told when the connector is asked, and when it has answered.
    """

    def __init__(
        self,
        context: RunContext,
        connector: Connector,
        streams: Mapping[str, Stream],
        *,
        sleep: Callable[[float], None],
        on_progress: Callable[[], None],
    ) -> None:
        self._context, self._connector, self._streams = context, connector, streams
        self._sleep, self._on_progress = sleep, on_progress
        self._lock = threading.Lock()
        self._restarted: set[str] = set()
        self._schemas: dict[str, pa.Schema] = {}
        self.stale: set[str] = set()
        """Streams that are to be read from the start, because the source does not know their cursor any more."""
        self.asking: str | None = None
        """The stream that the connector is planning just now."""

    def schema(self, name: str) -> pa.Schema | None:
        """The schema that the stream's plan named."""
        return self._schemas.get(name)

    def rules(self, name: str) -> StreamRules:
        """How the runner treats the stream."""
        return rules_of(self._context.pipeline, name) or StreamRules()

    def unfinished(self, stream: Stream) -> StoredPlan | None:
        """The stream's unfinished plan, if the options are still those it was made under."""
        found = plans.unfinished(self._context.ledger, stream.name, self._digest_of(stream.name))
        if found is None:
            self._tell_discarded(stream.name)
        elif found.schema is not None:
            from muxly._runner.schema.evolution import schema_from_bytes

            self._schemas[stream.name] = schema_from_bytes(found.schema)
        return found

    def _tell_discarded(self, name: str) -> None:
        """Say that an unfinished plan ends because the connector's options are others now."""
        if plans.unfinished(self._context.ledger, name) is not None:
            message = (
                f"stream {name!r} had an unfinished read when the connector's options changed: it is planned again, "
                "and routes in mode append receive the records already read a second time"
            )
            self._context.run.notice(Notice("plan_discarded", message, stream=name))

    def new(self, stream: Stream) -> StoredPlan:
        """A new plan, stored."""
        ledger = self._context.ledger
        if stream.name in self.stale:
            self.stale.discard(stream.name)
            plans.set_cursor(ledger, stream.name, None)
        full = self.rules(stream.name).read == "full"
        cursor = None if full else plans.stream_cursor(ledger, stream.name)
        try:
            plan = self._patiently(stream, cursor)
        except StaleCursorError as error:
            self.accept_restart(stream, error)
            plans.set_cursor(ledger, stream.name, None)
            cursor = None
            plan = self._patiently(stream, None)
        _check_plan(stream, plan)
        return self._stored(stream, plan, from_start=cursor is None)

    def _stored(self, stream: Stream, plan: Plan, *, from_start: bool) -> StoredPlan:
        if plan.schema is not None:
            self._schemas[stream.name] = plan.schema
        return plans.store(
            self._context.ledger,
            stream.name,
            partitions_planned=plan.partitions,
            cursor=plan.cursor,
            schema=None if plan.schema is None else bytes(plan.schema.serialize()),
            options_digest=self._digest_of(stream.name),
            from_start=from_start,
            children=[child.name for child in self._streams.values() if child.parent == stream.name],
        )

    def _digest_of(self, name: str) -> str:
        """Names the options a plan is made under: the connector's, and whether all is read."""
        return fingerprint.of_plan(self._connector, self.rules(name).read)

    def _patiently(self, stream: Stream, cursor: Cursor) -> Plan:
        """Plan a stream; try again after retryable errors, as often as the pipeline allows."""
        on_retry = partial(self._context.failures.retry, None, stream.name)
        return Retry(self._context.pipeline.retry, self._sleep, on_retry=on_retry).call(
            lambda: self._planned(stream, cursor)
        )

    def _planned(self, stream: Stream, cursor: Cursor) -> Plan:
        self.asking = stream.name
        self._on_progress()
        try:
            return self._connector.plan(stream, cursor)
        finally:
            self.asking = None
            self._on_progress()

    def restart(self, stream: Stream, error: StaleCursorError) -> None:
        """Let the stream be planned again from the start, when what is being read of it has ended.

        Raises:
            StreamError: As ``accept_restart``.
        """
        self.accept_restart(stream, error)
        self.stale.add(stream.name)

    def accept_restart(self, stream: Stream, error: StaleCursorError) -> None:
        """The source does not know the cursor any more: begin again, once in a run, if the user allows it.

        Raises:
            StreamError: The user does not, or it was restarted before.
        """
        with self._lock:
            if stream.name in self.stale:
                return
            again = stream.name in self._restarted
            self._restarted.add(stream.name)
        if again:
            raise StreamError(f"{error}; the stream was already restarted once in this run") from error
        if self.rules(stream.name).on_stale_cursor == "fail":
            raise StreamError(
                f"{error}; set `on_stale_cursor: restart` for stream {stream.name!r} to read it again from the start"
            ) from error
        message = f"{error}; the stream is read from the start"
        self._context.run.notice(Notice("stream_restarted", message, stream=stream.name))


def _check_plan(stream: Stream, plan: object) -> None:
    """Refuse what is no plan, and one whose partitions cannot be told apart."""
    if not isinstance(plan, Plan):
        raise StreamError(f"plan() of {stream.name!r} returned {type(plan).__name__}, not a muxly.Plan")
    names = [partition.id for partition in plan.partitions]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise StreamError(f"plan() of {stream.name!r} has two partitions named {twice!r}; partition ids must be unique")


_LOOK_SECONDS = 0.2

T = TypeVar("T")


class OpenedConnector:
    """A private copy of the pipeline's connector, opened when its streams are asked for.

    Args:
        context: The run.
        on_wait: Told of a wait that the source must have asked for, in seconds.
    """

    def __init__(self, context: RunContext, on_wait: Callable[[float], None]) -> None:
        self._context, self._on_wait = context, on_wait
        self._until = 0.0
        self.connector: Connector = copy.deepcopy(context.pipeline.connector)
        self._opened = self._left = False

    def streams(self) -> list[Stream]:
        """Open the connector, and ask it for its streams.

        Raises:
            PluginError: It did not answer for as long as the pipeline's ``stall_seconds``.
            StoppedError: The run stops, and it did not answer within the grace time.
        """
        self._opened = True
        self._answer("open", lambda: self.connector.open(self._context.run.on_route(None, self._waits)))
        return self._answer("streams", lambda: list(self.connector.streams()))

    def close(self) -> None:
        """Close the connector if it was opened; may be repeated, and whatever it raises is a notice."""
        if not self._opened or self._left:
            return
        self._opened = False
        try:
            self._answer("close", self.connector.close)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            message = f"closing the connector raised {type(error).__name__}: {error}"
            self._context.run.notice(Notice("close_failed", message))

    def _answer(self, method: str, call: Callable[[], T]) -> T:
        self._until = time.monotonic() + self._context.pipeline.stall_seconds
        pool = DaemonThreads(1, "muxly-source")
        future = pool.submit(call)
        pool.shutdown(wait=False)
        stopping = False
        while not wait([future], _LOOK_SECONDS).done:
            if self._context.stop.is_set() and not stopping:
                stopping, self._until = True, min(self._until, time.monotonic() + self._context.pipeline.grace_seconds)
            if time.monotonic() > self._until:
                self._left = True
                kind = StoppedError if stopping else PluginError
                raise kind(
                    f"the connector {type(self.connector).__name__} is stalled: {method}() did not return, and it "
                    "was abandoned; check that the source responds, then run again"
                )
        answer: T = future.result()
        return answer

    def _waits(self, seconds: float) -> None:
        if self._context.was_asked_for(seconds):
            self._until = max(self._until, time.monotonic() + seconds + self._context.pipeline.stall_seconds)
            self._on_wait(seconds)
