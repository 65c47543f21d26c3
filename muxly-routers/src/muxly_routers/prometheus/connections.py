"""The open connections of a server: the one that has been at its step longest makes room for a new one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from attrs import frozen

__all__ = ["ScrapeConnections"]


@frozen
class _ConnectionStep:
    """Since when a connection asks, or is answered."""

    since: float
    answered: bool = False


class ScrapeConnections:
    """Bounds their number, and the time of each step: to ask, and to be answered; thread-safe.

    Args:
        most: So many at once.
        step_seconds: A connection that takes longer is cut, however often it sends a byte.
    """

    def __init__(self, most: int, step_seconds: float) -> None:
        self._most, self._step_seconds = most, step_seconds
        self._open: dict[socket.socket, _ConnectionStep] = {}  # the one that has been at its step longest comes first
        self._closed = False
        self._lock = threading.Lock()

    def enter(self, one: socket.socket) -> None:
        """It has come, and will ask."""
        with self._lock:
            if len(self._open) >= self._most:
                self._cut(next(iter(self._open)))
            self._open[one] = _ConnectionStep(time.monotonic())

    def asks(self, one: socket.socket) -> bool:
        """Its next request is read from now on; False if there is to be none."""
        return self._turn(one, answered=False)

    def is_answered(self, one: socket.socket) -> None:
        """Its request is there, and is answered from now on."""
        self._turn(one, answered=True)

    def _turn(self, one: socket.socket, *, answered: bool) -> bool:
        with self._lock:
            known = self._open.pop(one, None)
            if known is not None:
                self._open[one] = _ConnectionStep(time.monotonic(), answered)
            return known is not None and not self._closed

    def leave(self, one: socket.socket) -> None:
        """It is about to be closed; afterwards nobody touches it."""
        with self._lock:
            self._open.pop(one, None)

    def expire(self) -> None:
        """Cut those whose step takes too long."""
        with self._lock:
            late = time.monotonic() - self._step_seconds
            for one in [one for one, step in self._open.items() if step.since < late]:
                self._cut(one)

    def close(self) -> None:
        """Cut those that are not being answered; the others end with their answer."""
        with self._lock:
            self._closed = True
            for one in [one for one, step in self._open.items() if not step.answered]:
                self._cut(one)

    def _cut(self, one: socket.socket) -> None:
        """Wake whoever reads from it or writes to it, who then closes it."""
        del self._open[one]
        with contextlib.suppress(OSError):  # it went away by itself
            one.shutdown(socket.SHUT_RDWR)
