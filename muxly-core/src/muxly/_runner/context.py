"""A run that is under way: what its threads share."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.component import Notice, Run
from muxly.errors import FencedError, MuxlyError
from muxly.retry import RETRY_AFTER_LIMIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pluggy

    from muxly._runner.options import RunOptions
    from muxly.pipeline import Pipeline
    from muxly.spool import FolderSpool
    from muxly.store.ledger import Ledger
    from muxly.store.rows import StoredSegment
    from muxly.stream import Stream


@frozen
class Waiting:
    """Something that failed, and is tried again.

    Args:
        error: Why it failed.
        until: When it is tried again, as Unix time.
        seconds: How long that was when it began to wait.
    """

    error: Exception
    until: float
    seconds: float


class ActiveRun:
    """What the reading, sealing and delivering threads of one run share.

    Args:
        pipeline: What runs.
        ledger: The right to write its rows.
        spool: Where its segments are.
        hooks: The observers.
        options: How this run differs from others.
    """

    def __init__(
        self, pipeline: Pipeline, ledger: Ledger, spool: FolderSpool, hooks: pluggy.PluginManager, options: RunOptions
    ) -> None:
        self.pipeline, self.ledger, self.spool, self.hooks = pipeline, ledger, spool, hooks
        self.stop = options.stop or threading.Event()
        self.run = Run(
            ledger.run,
            pipeline.name,
            token=ledger.token,
            params=options.params,
            guarded=options.guarded,
            stop=self.stop,
            on_notice=self._keep_notice,
            on_measure=self._keep_measure,
        )
        self.changed = threading.Condition()
        self.reading_done = False
        self.heads: dict[str, int] = {}
        self.streams: dict[str, Stream] = {}
        self.failed: dict[tuple[str, str], BaseException] = {}
        self.unread: dict[str, BaseException] = {}
        """Why streams could not be read; "" = why none could."""
        self.waiting: dict[tuple[str, str], Waiting] = {}
        """What was last tried in vain, by route and stream; route "" = reading, stream "" = learning the streams."""
        self.notices: list[Notice] = []
        self.measures: dict[str, float] = {}
        self.sealed_here: set[str] = set()
        self.sealed_bytes = 0
        self.fenced: FencedError | None = None
        self._on_change = options.on_change
        self._serving: dict[str, object] = {}
        self._crowd = 0
        self._pending_bytes: int | None = None

    def _keep_notice(self, notice: Notice) -> None:
        with self.changed:
            self.notices.append(notice)
        self.tell("muxly_notice", notice=notice)
        self.show()

    def _keep_measure(self, name: str, value: float, stream: str | None) -> None:
        key = name if stream is None else f"{name}[{stream}]"
        with self.changed:
            self.measures[key] = self.measures.get(key, 0) + value

    def tell(self, hook: str, **facts: Any) -> None:
        """Call an observers' hook; an observer that raises never breaks a run."""
        for implementation in getattr(self.hooks.hook, hook).get_hookimpls():
            known = {"run": self.run, **facts}
            wanted = {name: known[name] for name in implementation.argnames}
            try:
                implementation.function(**wanted)
            except Exception as error:  # noqa: BLE001 - whatever an observer raises stays its own affair
                message = f"the observer {implementation.plugin_name} raised {type(error).__name__}: {error}"
                with self.changed:
                    self.notices.append(Notice("observer_failed", message))

    def show(self) -> None:
        """Tell whoever watches that there is progress; one that raises is not told any more."""
        try:
            self._on_change(self)
        except Exception as error:  # noqa: BLE001 - whatever a watcher raises stays its own affair
            self._on_change = lambda active: None
            message = f"showing progress raised {type(error).__name__}: {error}; no more is shown"
            with self.changed:
                self.notices.append(Notice("observer_failed", message))

    def sealed(self, found: list[StoredSegment]) -> None:
        """Make sealed segments known to the routes."""
        with self.changed:
            for one in found:
                self.heads[one.stream] = max(self.heads.get(one.stream, 0), one.position)
                self.sealed_here.add(one.key)
                self.sealed_bytes += one.length
                if self._pending_bytes is not None:
                    self._pending_bytes += one.length
            self.changed.notify_all()
        self.show()

    def acknowledged(self) -> None:
        """Make progress of a route known to a reader that waits for room."""
        with self.changed:
            self.changed.notify_all()
        self.show()

    def waits(self, route: str, stream: str, error: Exception, seconds: float) -> None:
        """Something failed and is tried again; whoever watches may say what is waited for."""
        self.waiting[route, stream] = Waiting(error, time.time() + seconds, seconds)
        self.show()

    def serves(self, route: str, worker: object) -> None:
        """A route's worker has begun."""
        with self.changed:
            self._serving[route] = worker

    def leaves(self, route: str, worker: object) -> None:
        """A route's worker delivers nothing more in this run."""
        with self.changed:
            if self._serving.get(route) is worker:
                del self._serving[route]
            self.changed.notify_all()

    def hopeless(self, pair: tuple[str, str]) -> bool:
        """Whether a route delivers nothing more of a stream in this run."""
        return pair in self.failed or pair[0] not in self._serving

    def finish_reading(self) -> None:
        """Nothing more will be sealed in this run."""
        with self.changed:
            self.reading_done = True
            self.changed.notify_all()

    def fence(self, error: FencedError) -> None:
        """The lease is lost: everything stops, and nothing more is written."""
        with self.changed:
            self.fenced = self.fenced or error
            self.stop.set()
            self.changed.notify_all()

    @contextmanager
    def fencing(self) -> Iterator[None]:
        """Write to the ledger as long as it is ours; once the lease is lost that is remembered, not raised."""
        try:
            yield
        except FencedError as error:
            self.fence(error)

    @property
    def crowded(self) -> bool:
        """Whether reading waits for room in the spool."""
        return self._crowd > 0

    @contextmanager
    def crowding(self) -> Iterator[None]:
        """Let routes know, while the block lasts, that reading waits for them."""
        with self.changed:
            self._crowd += 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self._crowd -= 1

    def is_full(self) -> bool:
        """Whether routes still need as many bytes of the spool as its budget, or more.

        The ledger is asked only when the bytes known then and all that was sealed since reach
        the budget: its answer costs time for each pending segment.
        """
        if self._pending_bytes is not None and self._pending_bytes < self.pipeline.spool_bytes:
            return False
        return self.pending_bytes() >= self.pipeline.spool_bytes

    def pending_bytes(self) -> int:
        """Bytes of the spool that routes still need."""
        from muxly.store import accounts

        with self.changed:  # what is sealed while the ledger answers must not be forgotten
            self._pending_bytes = found = accounts.pending_bytes(self.ledger)
        return found

    def was_asked_for(self, seconds: float) -> bool:
        """Whether a component that waits so long was asked to by the other side.

        A loop that polls waits for shorter times; if nothing else happens, it is a stall.
        """
        return self.pipeline.stall_seconds / 2 <= seconds <= RETRY_AFTER_LIMIT_SECONDS

    def wait(self, seconds: float) -> None:
        """Wait for a change, but not longer."""
        with self.changed:
            self.changed.wait(seconds)


def sentence(error: BaseException) -> str:
    """An error as one sentence for results: an unexpected one also says what it is."""
    if isinstance(error, MuxlyError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
