"""Watching a run: whoever makes no progress is abandoned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from muxly._runner.context import RunContext
from muxly._runner.deliver.route_worker import RouteWorker
from muxly._runner.extract.extraction import Extraction
from muxly.errors import RouteError

_LOOK_SECONDS = 0.2


class StallWatch:
    """Waits for the reading and the routes of one run.

    Args:
        context: The run.
        meanwhile: Called again and again while it waits.
    """

    def __init__(self, context: RunContext, meanwhile: Callable[[], None]) -> None:
        self._context, self._pipeline, self._meanwhile = context, context.pipeline, meanwhile
        self.workers: dict[str, RouteWorker] = {}
        self.extraction: Extraction | None = None

    def wait(self, reader: threading.Thread | None) -> None:
        """Wait until all is done, or is left behind.

        Args:
            reader: The thread that reads; None = nothing is read.
        """
        until: float | None = None
        while (reader is not None and reader.is_alive()) or any(worker.alive for worker in self.workers.values()):
            self._context.progress.wait(_LOOK_SECONDS)
            if self._context.stop.is_set() and until is None:
                until = time.monotonic() + self._pipeline.grace_seconds
            if until is not None and time.monotonic() > until:
                self.leave_behind("did not end within the grace time")
                return
            self._leave_stalled_routes()
            self._meanwhile()
            if reader is not None and self.extraction is not None:
                reader = self._leave_stalled_reading(reader, self.extraction)

    def _leave_stalled_routes(self) -> None:
        for name, worker in self.workers.items():
            if worker.alive and worker.stalled_seconds() > self._pipeline.stall_seconds:
                worker.abandon(RouteError(f"route {name!r} {self._stalled('its destination')}"), stalled=True)

    def _leave_stalled_reading(self, reader: threading.Thread, extraction: Extraction) -> threading.Thread | None:
        if extraction.stalled_seconds() <= self._pipeline.stall_seconds:
            return reader
        extraction.abandon(self._stalled("the source"))
        self._context.log.finish()
        return None

    def _stalled(self, other_side: str) -> str:
        return (
            f"is stalled: it made no progress for {self._pipeline.stall_seconds:g} s, and was abandoned; check that "
            f"{other_side} responds and run again, or allow more time with `stall_seconds:`"
        )

    def leave_behind(self, why: str) -> None:
        """Leave to themselves all who are still busy."""
        for name, worker in self.workers.items():
            if worker.alive:
                worker.abandon(RouteError(f"route {name!r} {why}"))
        if self.extraction is not None and not self._context.log.complete:
            self.extraction.abandon(why)
