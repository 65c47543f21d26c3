"""A run that is under way: what its threads share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from muxly.component import Notice, Run
from muxly.errors import FencedError, MuxlyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pluggy

    from muxly.pipeline import Pipeline
    from muxly.spool import FolderSpool
    from muxly.store.ledger import Ledger
    from muxly.store.rows import StoredSegment
    from muxly.stream import Stream


class ActiveRun:
    """What the reading, sealing and delivering threads of one run share.

    Args:
        pipeline: What runs.
        ledger: The right to write its rows.
        spool: Where its segments are.
        hooks: The observers.
        run_id: The run's ULID.
        params: What the trigger passed.
        stop: Set from outside when the run is to stop.
        on_change: Called, often and from any thread, when there is progress to show.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ledger: Ledger,
        spool: FolderSpool,
        hooks: pluggy.PluginManager,
        *,
        run_id: str,
        params: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
        on_change: Callable[[ActiveRun], None] = lambda active: None,
    ) -> None:
        self.pipeline, self.ledger, self.spool, self.hooks = pipeline, ledger, spool, hooks
        self.stop = stop or threading.Event()
        self.run = Run(
            run_id,
            pipeline.name,
            token=ledger.token,
            params=params,
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
        self.notices: list[Notice] = []
        self.measures: dict[str, float] = {}
        self.sealed_here: set[str] = set()
        self.fenced: FencedError | None = None
        self._on_change = on_change
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
        """Tell whoever watches that there is progress."""
        self._on_change(self)

    def sealed(self, found: list[StoredSegment]) -> None:
        """Make sealed segments known to the routes."""
        with self.changed:
            for one in found:
                self.heads[one.stream] = max(self.heads.get(one.stream, 0), one.position)
                self.sealed_here.add(one.key)
            self._pending_bytes = None
            self.changed.notify_all()
        self.show()

    def acknowledged(self) -> None:
        """Make progress of a route known to a reader that waits for room."""
        with self.changed:
            self._pending_bytes = None
            self.changed.notify_all()
        self.show()

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

    def pending_bytes(self) -> int:
        """Bytes of the spool that routes still need; looked up again after each change."""
        from muxly.store import positions

        if self._pending_bytes is None:
            self._pending_bytes = positions.pending_bytes(self.ledger)
        return self._pending_bytes

    def wait(self, seconds: float) -> None:
        """Wait for a change, but not longer."""
        with self.changed:
            self.changed.wait(seconds)


def sentence(error: BaseException) -> str:
    """An error as one sentence for results: an unexpected one also says what it is."""
    if isinstance(error, MuxlyError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
