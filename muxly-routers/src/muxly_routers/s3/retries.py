"""Sockets that wait in steps, so that no request outlasts a run that is asked to stop."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["StopGrace", "StoppableSocket", "StoppableTlsSocket", "connecting_seconds"]

_STEP_SECONDS = 0.25
_GRACE_SECONDS = 5.0

# The connections are the process's, the requests are a run's: who asks is known by the thread.
_thread = threading.local()


class StopGrace:
    """How long the requests of a run are waited for; thread-safe.

    Args:
        stopping: Whether the run has been asked to stop.
        grace_seconds: How long an answer is waited for all the same; once one did not come, no
            other is waited for.
    """

    def __init__(self, stopping: Callable[[], bool], grace_seconds: float | None = None) -> None:
        self.stopping = stopping
        self.grace_seconds = _GRACE_SECONDS if grace_seconds is None else grace_seconds

    @contextmanager
    def request(self) -> Iterator[None]:
        """Whatever this thread waits for inside, it waits for with this patience."""
        _thread.grace = self
        try:
            yield
        finally:
            _thread.grace = _NEVER_STOPPING

    def use_up(self) -> None:
        """An answer did not come in the time that was left."""
        self.grace_seconds = 0.0


_NEVER_STOPPING = StopGrace(lambda: False)


def _current() -> StopGrace:
    grace: StopGrace = getattr(_thread, "patience", _NEVER_STOPPING)
    return grace


def connecting_seconds(usual: float) -> float:
    """How long a connection may take; less where the run that wants it is stopping."""
    grace = _current()
    return min(usual, max(_STEP_SECONDS, grace.grace_seconds)) if grace.stopping() else usual


class _StoppableOperations(socket.socket):
    """What HTTP does with a socket, in steps; a timeout stays what it is, and is one for the whole operation."""

    __slots__ = ()

    at_once: ClassVar[int] = 1024 * 1024
    """How many bytes are sent in a step."""

    def recv_into(self, *args: Any, **more: Any) -> int:
        """Receive, as soon as there is something."""
        return self._in_steps(super().recv_into, *args, **more)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._in_steps(super().send, rest[: self.at_once], flags) :]

    def _in_steps(self, operation: Callable[..., int], *args: Any, **more: Any) -> int:
        timeout = self.gettimeout()
        if timeout is None or timeout <= _STEP_SECONDS:
            return operation(*args, **more)
        self.settimeout(_STEP_SECONDS)
        try:
            return _repeated(lambda: operation(*args, **more), time.monotonic() + timeout)
        finally:
            self.settimeout(timeout)


def _repeated(step: Callable[[], int], until: float) -> int:
    grace, stopped = _current(), False
    while True:
        try:
            return step()
        except TimeoutError:
            now = time.monotonic()
            if not stopped and grace.stopping():
                stopped, until = True, min(until, now + grace.grace_seconds)
            if now >= until:
                if stopped:
                    grace.use_up()
                raise


class StoppableSocket(_StoppableOperations):
    """A connection without TLS."""


class StoppableTlsSocket(_StoppableOperations, ssl.SSLSocket):
    """A connection with TLS."""

    # A record: TLS tells of what it has sent when it has sent all that it was given.
    at_once = 16 * 1024
