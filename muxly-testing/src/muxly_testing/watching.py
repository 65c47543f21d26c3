"""What the conformance tests watch a component with: a run that remembers, deadlines, open files."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from muxly.component import Notice, Run
from muxly_testing.expectations import expect

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WatchedRun", "open_files", "package", "quietly", "within"]


class WatchedRun(Run):
    """A run that keeps its notices in ``noticed`` and stops when ``stop`` is set."""

    def __init__(self) -> None:
        self.noticed: list[Notice] = []
        self.stop = threading.Event()
        super().__init__("01JW000000MUXLYTESTRUN0000", "conformance", stop=self.stop, on_notice=self.noticed.append)


def quietly(contract: str, call: Callable[[], object]) -> None:
    """Expect that a call raises nothing."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 (any is a breach)
        expect(condition=False, contract=contract, seen=f"{type(error).__name__}: {error}")


def within(seconds: float, contract: str, call: Callable[[], object]) -> None:
    """Expect that a call ends in time; what it returns or raises does not matter."""
    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: _gather(call, errors), daemon=True)
    thread.start()
    thread.join(seconds)
    expect(not thread.is_alive(), contract, f"still busy after {seconds} s")
    if errors and isinstance(errors[0], AssertionError):
        raise errors[0]


def _gather(call: Callable[[], object], errors: list[Exception]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (the thread that waits looks at it)
        errors.append(error)


def package(kind: type) -> str:
    """The top-level package of a class."""
    return kind.__module__.partition(".")[0]


def open_files(*, at_most: int | None = None) -> int:
    """How many files and sockets this process holds; 0 where the system does not tell.

    Args:
        at_most: Wait up to two seconds until there are so few: a server that the test runs in this
            process lets go of a socket a moment after its client has.
    """
    folder, patience = Path("/proc/self/fd"), time.monotonic() + 2
    if not folder.is_dir():
        return 0
    while (held := len(list(folder.iterdir()))) > (held if at_most is None else at_most):
        if time.monotonic() > patience:
            break
        threading.Event().wait(0.02)  # time.sleep is watched in these tests
    return held
