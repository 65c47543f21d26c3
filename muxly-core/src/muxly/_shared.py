"""Objects that all runs of this process share, closed when the last run lets go."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from muxly.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Entry:
    """A shared object and how many runs hold it; its lock makes it once without blocking others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.made = False
        self.value: Any = None


# The one process-wide table: sharing between runs of one process is its purpose.
_entries: dict[str, _Entry] = {}
_entries_lock = threading.Lock()


class Leases:
    """The shared objects that one run holds."""

    def __init__(self) -> None:
        self._held: dict[str, _Entry] = {}
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

    def _entry(self, key: str) -> _Entry:
        with self._lock:
            if self._ended:
                raise StoppedError("the run has ended")
            if key not in self._held:
                with _entries_lock:
                    entry = _entries.setdefault(key, _Entry())
                    entry.holders += 1
                self._held[key] = entry
            return self._held[key]

    def give_back(self) -> None:
        """Let go of all of them; those that no other run holds are closed, each whatever the others do.

        Raises:
            Exception: The first error of a ``close``.
        """
        with self._lock:
            held, self._held, self._ended = self._held, {}, True
        errors: list[Exception] = []
        for key, entry in held.items():
            try:
                _let_go(key, entry)
            except Exception as error:  # noqa: BLE001 (raised when all are given back)
                errors.append(error)
        if errors:
            raise errors[0]


def _let_go(key: str, entry: _Entry) -> None:
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
