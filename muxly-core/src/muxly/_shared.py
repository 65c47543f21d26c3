"""Objects that all runs of this process share, closed when the last run lets go."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
        self._lock = threading.Lock()

    def take(self, key: str, make: Callable[[], T]) -> T:
        """The object of that key, made now if nobody holds it yet."""
        entry = self._entry(key)
        with entry.lock:
            if not entry.made:
                entry.value = make()
                entry.made = True
            return cast("T", entry.value)

    def _entry(self, key: str) -> _Entry:
        with self._lock:
            if key not in self._held:
                with _entries_lock:
                    entry = _entries.setdefault(key, _Entry())
                    entry.holders += 1
                self._held[key] = entry
            return self._held[key]

    def give_back(self) -> None:
        """Let go of all of them; those that no other run holds are closed."""
        with self._lock:
            held, self._held = self._held, {}
        for key, entry in held.items():
            with _entries_lock:
                entry.holders -= 1
                last = entry.holders == 0
                if last:
                    del _entries[key]
            if last and entry.made and callable(close := getattr(entry.value, "close", None)):
                close()
