"""The opened connector of one run; one that does not answer is abandoned."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from muxly._runner.context import RunContext
from muxly._runner.threads import DaemonThreads
from muxly.component import Notice
from muxly.connector import Connector
from muxly.errors import PluginError, StoppedError
from muxly.stream import Stream

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
