"""What was called on a test component, remembered over copies, runs and processes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Call", "Calls"]


@frozen
class Call:
    """One call of a test component, noted before its work began.

    Args:
        method: ``"open"``, ``"deliver"``, ``"read"`` and so on.
        stream: The stream's name; empty where there is none.
        key: The delivery's id, or the partition's.
        number: The number of the batch, or of records delivered before, or the generation.
    """

    method: str
    stream: str = field(default="", kw_only=True)
    key: str = field(default="", kw_only=True)
    number: int = field(default=0, kw_only=True)


class Calls:
    """A list of calls, thread-safe; with a file it is shared by processes.

    Args:
        path: A file of JSON lines; None = in the memory of this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def note(self, call: Call) -> None:
        """Add a call."""
        with self._lock:
            if self._path is None:
                self._calls.append(call)
            else:
                _append_line(self._path, json.dumps(attrs.asdict(call)))

    def all(self) -> Sequence[Call]:
        """Every call so far."""
        with self._lock:
            return self._read()

    def _read(self) -> Sequence[Call]:
        if self._path is None:
            return tuple(self._calls)
        if not self._path.exists():
            return ()
        return tuple(Call(**json.loads(line)) for line in self._path.read_text("utf-8").splitlines())


def _append_line(path: Path, line: str) -> None:
    """One ``write`` of one line: it is whole, or it is not there, however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
