"""Steps of a router that can be counted, and died before.

A step is a line of the router's own package that is about to run, or a call that others can see:
opening, writing, syncing, linking, renaming, sending.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muxly_testing.faults import die

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Steps"]

_VISIBLE = ("open", "os.", "shutil.", "socket.", "sqlite3.", "urllib.", "http.")
_WRAPPED = ("fsync", "fdatasync", "write", "writev", "pwrite", "sendfile", "copy_file_range", "close")


class Steps:
    """Counts steps, and dies before the chosen one.

    Args:
        kind: The router's class; lines of its package are steps.
        die_before: The number of the step that is not reached; None = it lives.
    """

    def __init__(self, kind: type, die_before: int | None) -> None:
        self._folder, self._die_before = _package_folder(kind), die_before
        self.count, self.visible, self._watching = 0, dict[int, str](), False

    def step(self, what: str = "") -> None:
        """One more step is about to be made.

        Args:
            what: What it does, if others can see it.
        """
        if not self._watching:
            return
        if self.count == self._die_before:
            self._watching = False  # dying is no step
            die()
        if what:
            self.visible[self.count] = f"{what} in line {self._own_line()}"
        self.count += 1

    def _own_line(self) -> str:
        """The line of the router's own package that is being run, if one is."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(self._folder):
            frame = frame.f_back
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count all steps inside."""
        sys.addaudithook(self._audit)
        for name in _WRAPPED:
            if hasattr(os, name):
                self._wrap(name)
        self._watching = True
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        yield
        sys.settrace(None)
        threading.settrace(None)
        self._watching = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watching and event.startswith(_VISIBLE) and not _is_import(event, arguments):
            self.step(event)

    def _wrap(self, name: str) -> None:
        call = getattr(os, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.step(name)
            return call(*arguments, **more)

        setattr(os, name, counted)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._folder):
            return None
        if event == "line":
            self.step()
        return self._trace


def _package_folder(kind: type) -> str:
    """The folder of the package that the class is in, or its file if it is in none."""
    file = Path(sys.modules[kind.__module__].__file__ or "")
    return f"{file.parent}{os.sep}" if "." in kind.__module__ or file.name == "__init__.py" else str(file)


def _is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and str(arguments[0]).endswith((".py", ".pyc"))
