"""Objects that all runs of this process share, closed when the last run releases them.

Two locks keep them right. One guards the table of all objects and is held for a moment only. Each object has another,
held while it is made or closed, which may take long: whoever asks for that object meanwhile waits, and nobody else
does. An object whose last holder has gone stays in the table until it is closed, so that it is never made again, on
the same port for example, while the old one is still closing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from muxly.errors import StoppedError

T = TypeVar("T")


class _SharedObject:
    """A shared object and how many runs hold it; its lock makes it once without blocking others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.made = False
        self.value: Any = None


# The one process-wide table: sharing between runs of one process is its purpose.
_entries: dict[str, _SharedObject] = {}
_entries_lock = threading.Lock()


class SharedObjects:
    """The shared objects that one run holds."""

    def __init__(self) -> None:
        self._held: dict[str, _SharedObject] = {}
        self._ended = False
        self._lock = threading.Lock()

    def take(self, key: str, make: Callable[[], T]) -> T:
        """The object of that key, made now if nobody holds it yet.

        Raises:
            StoppedError: The run has ended: nobody would give the object back.
        """
        entry = self._entry(key)
        with entry.lock:
            if not entry.made:
                entry.value = make()
                entry.made = True
            return cast("T", entry.value)

    def _entry(self, key: str) -> _SharedObject:
        with self._lock:
            if self._ended:
                raise StoppedError("the run has ended")
            if key not in self._held:
                with _entries_lock:
                    entry = _entries.setdefault(key, _SharedObject())
                    entry.holders += 1
                self._held[key] = entry
            return self._held[key]

    def give_back(self) -> None:
        """Release all of them; those that no other run holds are closed, each whatever the others do.

        Raises:
            Exception: The first error of a ``close``.
        """
        with self._lock:
            held, self._held, self._ended = self._held, {}, True
        errors: list[Exception] = []
        for key, entry in held.items():
            try:
                _release(key, entry)
            except Exception as error:  # noqa: BLE001 (raised when all are given back)
                errors.append(error)
        if errors:
            raise errors[0]


def _release(key: str, entry: _SharedObject) -> None:
    """Close the object if nobody else holds it; who asks for it meanwhile waits, and gets a new one."""
    with entry.lock:
        with _entries_lock:
            entry.holders -= 1
            last = entry.holders == 0
        try:
            if last and entry.made:
                entry.made, value, entry.value = False, entry.value, None
                _close(value)
        finally:
            with _entries_lock:
                if entry.holders == 0:
                    _entries.pop(key, None)


def _close(value: Any) -> None:
    if callable(close := getattr(value, "close", None)):
        close()
