"""The context of one run: what its threads share, and the few objects in it that change.

A run has one thread that reads the source's partitions together with a pool, one that commits, and some
for each route. They share a ``RunContext``, which never changes itself. What does change has one owner:

- ``SealedLog``: what is sealed, by stream. The committer adds, routes look.
- ``SpoolBudget``: the bytes that routes still need. The reader asks, and waits.
- ``Failures``: what failed, and what is tried again. Everybody reports, the result looks.
- ``Observers``: notices, measures and the observers' hooks.

``ProgressSignal`` is the one condition that all of them wait on and wake.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.component import Notice, Run
from muxly.errors import FencedError, MuxlyError
from muxly.pipeline import Pipeline
from muxly.retry import RETRY_AFTER_LIMIT_SECONDS
from muxly.spool import FolderSpool
from muxly.store.ledger import Ledger
from muxly.store.rows import StoredSegment
from muxly.stream import Stream

if TYPE_CHECKING:
    import pluggy


@frozen(eq=False, kw_only=True)
class RunContext:
    """The objects that the threads of one run share; no attribute is ever replaced.

    Args:
        pipeline: What runs.
        ledger: The right to write its rows.
        spool: Where its segments are.
        run: What components are given.
        stop: Set when the run was asked to stop, or has lost its lease.
        progress: Wakes threads that wait for each other.
        observers: Notices, measures, and who is told.
        log: The sealed segments.
        budget: How much of the spool routes still need.
        failures: Failures, pending retries, and the routes that still deliver.
    """

    pipeline: Pipeline
    ledger: Ledger
    spool: FolderSpool
    run: Run
    stop: threading.Event
    progress: ProgressSignal
    observers: Observers
    log: SealedLog
    budget: SpoolBudget
    failures: Failures

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        ledger: Ledger,
        spool: FolderSpool,
        hooks: pluggy.PluginManager,
        *,
        params: Mapping[str, Any] | None = None,
        guarded: bool = False,
        stop: threading.Event | None = None,
        on_change: Callable[[RunContext], None] = lambda context: None,
    ) -> RunContext:
        """The context of a run that begins.

        Args:
            pipeline: What runs.
            ledger: The right to write its rows.
            spool: Where its segments are.
            hooks: The observers.
            params: What the trigger passed.
            guarded: As ``Run.guarded``.
            stop: Set from outside to stop the run.
            on_change: Called with the context when there is progress to show.
        """
        stop = stop or threading.Event()
        progress = ProgressSignal()
        observers = Observers(hooks, progress)
        run = Run(
            ledger.run,
            pipeline.name,
            token=ledger.token,
            params=params,
            guarded=guarded,
            stop=stop,
            on_notice=observers.keep_notice,
            on_measure=observers.keep_measure,
        )
        budget = SpoolBudget(pipeline, ledger, progress)
        context = cls(
            pipeline=pipeline,
            ledger=ledger,
            spool=spool,
            run=run,
            stop=stop,
            progress=progress,
            observers=observers,
            log=SealedLog(budget, progress),
            budget=budget,
            failures=Failures(stop, progress),
        )
        observers.begin(run, lambda: on_change(context))
        return context

    def was_asked_for(self, seconds: float) -> bool:
        """Whether a component that waits so long was asked to by the other side.

        A loop that polls waits for shorter times; if nothing else happens, it is a stall.
        """
        return self.pipeline.stall_seconds / 2 <= seconds <= RETRY_AFTER_LIMIT_SECONDS


class ProgressSignal:
    """The condition that the threads of a run wait on, and the callback that shows progress."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.show: Callable[[], None] = lambda: None

    def notify(self) -> None:
        """Wake whoever waits, and show that there is progress."""
        with self.changed:
            self.changed.notify_all()
        self.show()

    def wait(self, seconds: float) -> None:
        """Wait for a change, but not longer."""
        with self.changed:
            self.changed.wait(seconds)


class Observers:
    """The notices and measures of a run, and the observers that are told of what happens.

    Args:
        hooks: The observers.
        progress: The run's.
    """

    def __init__(self, hooks: pluggy.PluginManager, progress: ProgressSignal) -> None:
        self._hooks, self._progress = hooks, progress
        self._run: Run | None = None
        self._on_change: Callable[[], None] = lambda: None
        self.notices: list[Notice] = []
        self.measures: dict[str, float] = {}

    def begin(self, run: Run, on_change: Callable[[], None]) -> None:
        """Begin to observe.

        Args:
            run: What observers are given as ``run``.
            on_change: Called when there is progress.
        """
        self._run, self._on_change = run, on_change
        self._progress.show = self._show

    def keep_notice(self, notice: Notice) -> None:
        """Keep a notice, and tell observers of it."""
        self._add(notice)
        self.call("muxly_notice", notice=notice)
        self._show()

    def keep_measure(self, name: str, value: float, stream: str | None) -> None:
        """Add to a measure."""
        key = name if stream is None else f"{name}[{stream}]"
        with self._progress.changed:
            self.measures[key] = self.measures.get(key, 0) + value

    def call(self, hook: str, **facts: Any) -> None:
        """Call an observers' hook; an observer that raises never breaks a run."""
        for implementation in getattr(self._hooks.hook, hook).get_hookimpls():
            known = {"run": self._run, **facts}
            wanted = {name: known[name] for name in implementation.argnames}
            try:
                implementation.function(**wanted)
            except Exception as error:  # noqa: BLE001 - whatever an observer raises stays its own affair
                message = f"the observer {implementation.plugin_name} raised {type(error).__name__}: {error}"
                self._add(Notice("observer_failed", message))

    def _show(self) -> None:
        """Call whoever watches; one that raises is not called any more."""
        try:
            self._on_change()
        except Exception as error:  # noqa: BLE001 - whatever a watcher raises stays its own affair
            self._on_change = lambda: None
            message = f"showing progress raised {type(error).__name__}: {error}; progress is no longer shown"
            self._add(Notice("observer_failed", message))

    def _add(self, notice: Notice) -> None:
        with self._progress.changed:
            self.notices.append(notice)


class SealedLog:
    """The sealed segments of a run: each stream, and the position of its newest segment.

    Args:
        budget: Grows with what is sealed.
        progress: The run's.
    """

    def __init__(self, budget: SpoolBudget, progress: ProgressSignal) -> None:
        self._budget, self._progress = budget, progress
        self.streams: dict[str, Stream] = {}
        """All streams that this run or an earlier one has had, by name."""
        self.heads: dict[str, int] = {}
        """The newest position of each stream that the ledger has positions of."""
        self.complete = False
        """Whether nothing more will be sealed in this run."""
        self.bytes = 0
        self._keys: set[str] = set()

    def add(self, segments: list[StoredSegment]) -> None:
        """Make sealed segments known to the routes."""
        with self._progress.changed:
            for segment in segments:
                self.heads[segment.stream] = max(self.heads.get(segment.stream, 0), segment.position)
                self._keys.add(segment.key)
                self.bytes += segment.length
                self._budget.add(segment.length)
        self._progress.notify()

    def head(self, stream: str) -> int:
        """The newest position of a stream; 0 = none."""
        return self.heads.get(stream, 0)

    def is_from_here(self, key: str) -> bool:
        """Whether this process has sealed the segment, and so knows its bytes to be right."""
        return key in self._keys

    def finish(self) -> None:
        """Nothing more will be sealed in this run."""
        with self._progress.changed:
            self.complete = True
            self._progress.changed.notify_all()

    def reopen(self) -> None:
        """More will be sealed after all: the backlog came first, now reading begins."""
        self.complete = False


class SpoolBudget:
    """The bytes of the spool that routes still need, against the pipeline's ``spool_bytes``.

    Args:
        pipeline: Sets the budget.
        ledger: Knows what is pending.
        progress: The run's.
    """

    def __init__(self, pipeline: Pipeline, ledger: Ledger, progress: ProgressSignal) -> None:
        self._limit_bytes, self._ledger, self._progress = pipeline.spool_bytes, ledger, progress
        self._pending_bytes: int | None = None
        self._waiting = 0

    def add(self, length: int) -> None:
        """Count what was sealed; the caller holds the condition."""
        if self._pending_bytes is not None:
            self._pending_bytes += length

    def is_full(self) -> bool:
        """Whether routes still need as many bytes of the spool as its budget, or more.

        The ledger is asked only when the bytes known then and all that was sealed since reach
        the budget: its answer costs time for each pending segment.
        """
        if self._pending_bytes is not None and self._pending_bytes < self._limit_bytes:
            return False
        return self.pending_bytes() >= self._limit_bytes

    def pending_bytes(self) -> int:
        """Bytes of the spool that routes still need, from the ledger."""
        from muxly.store import accounts

        with self._progress.changed:  # what is sealed while the ledger answers must not be forgotten
            self._pending_bytes = pending = accounts.pending_bytes(self._ledger)
        return pending

    @property
    def is_waited_for(self) -> bool:
        """Whether reading waits for room in the spool."""
        return self._waiting > 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let routes know, while the block lasts, that reading waits for them."""
        with self._progress.changed:
            self._waiting += 1
            self._progress.changed.notify_all()
        try:
            yield
        finally:
            with self._progress.changed:
                self._waiting -= 1


@frozen
class PendingRetry:
    """Something that failed, and is tried again.

    Args:
        error: Why it failed.
        until: When it is tried again, as Unix time.
        seconds: How long that was when it began to wait.
    """

    error: Exception
    until: float
    seconds: float


class Failures:
    """The failures of a run, its pending retries, and the routes that still deliver.

    Args:
        stop: Set when the lease is lost.
        progress: The run's.
    """

    def __init__(self, stop: threading.Event, progress: ProgressSignal) -> None:
        self._stop, self._progress = stop, progress
        self.fenced: FencedError | None = None
        """Why nothing may be written any more."""
        self.source: BaseException | None = None
        """Why no stream could be read."""
        self.streams: dict[str, BaseException] = {}
        """Why a stream could not be read to its end."""
        self.deliveries: dict[tuple[str, str], BaseException] = {}
        """Why a route delivers nothing more of a stream, by route and stream."""
        self.retries: dict[tuple[str | None, str | None], PendingRetry] = {}
        """What was last tried in vain, by route and stream; no route = reading, no stream = listing the streams."""
        self._serving: dict[str, object] = {}

    def fence(self, error: FencedError) -> None:
        """The lease is lost: everything stops, and nothing more is written."""
        with self._progress.changed:
            self.fenced = self.fenced or error
            self._stop.set()
            self._progress.changed.notify_all()

    @contextmanager
    def fencing(self) -> Iterator[None]:
        """Write to the ledger as long as it is ours; once the lease is lost that is remembered, not raised."""
        try:
            yield
        except FencedError as error:
            self.fence(error)

    def retry(self, route: str | None, stream: str | None, error: Exception, seconds: float) -> None:
        """Something failed and is tried again after that many seconds."""
        self.retries[route, stream] = PendingRetry(error, time.time() + seconds, seconds)
        self._progress.show()

    def route_begins(self, route: str, worker: object) -> None:
        """A route's worker begins to deliver."""
        with self._progress.changed:
            self._serving[route] = worker

    def route_ends(self, route: str, worker: object) -> None:
        """A route's worker delivers nothing more in this run."""
        with self._progress.changed:
            if self._serving.get(route) is worker:
                del self._serving[route]
            self._progress.changed.notify_all()

    def all_errors(self) -> list[BaseException]:
        """Why streams were not read and deliveries not made; the source's own error first."""
        source = [] if self.source is None else [self.source]
        return [*source, *self.streams.values(), *self.deliveries.values()]

    def are_final(self, route: str, stream: str) -> bool:
        """Whether a route delivers nothing more of a stream in this run."""
        return (route, stream) in self.deliveries or route not in self._serving


def sentence(error: BaseException) -> str:
    """An error as one sentence for results: an unexpected one also says what it is."""
    if isinstance(error, MuxlyError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
