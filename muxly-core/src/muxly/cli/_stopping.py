"""Stopping a run from outside: the first signal asks, the second one insists; a timeout asks too."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

from muxly.cli._exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_SHOW_CURSOR = b"\x1b[?25h\n"
_SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class Stopping:
    """While its ``with`` block lasts, SIGINT and SIGTERM stop the run at the end of a group.

    Args:
        say: Told once, when the run is asked to stop; called inside the signal handler, so it
            may only note it down.
        timeout_seconds: Ask after so many seconds; None = never.
    """

    def __init__(self, say: Callable[[str], None], *, timeout_seconds: float | None = None) -> None:
        self.event = threading.Event()
        self.code: ExitCode | None = None
        """Which signal came; None = none did."""
        self._say, self._seconds = say, timeout_seconds
        self._before: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._signalled) for one in _SIGNALS}
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._timed_out)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)
        if self._timer is not None:
            self._timer.cancel()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        one = signal.Signals(number)
        if self.code is not None:
            _leave_at_once(_SIGNALS[one])
        self.code = _SIGNALS[one]
        self._say(f"{one.name}: stopping at the end of a group; once more to leave at once")
        self.event.set()

    def _timed_out(self) -> None:
        self._say(f"{self._seconds:g} s are over: stopping at the end of a group")
        self.event.set()


def _leave_at_once(code: ExitCode) -> None:
    """End the process: what was sealed and acknowledged is durable, and the next run goes on from there."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(code)
