"""Parts of delivering that several routers share: times of ids, claims on what is replaced, and notices."""

from __future__ import annotations

import threading
from collections.abc import Hashable

import muxly

__all__ = ["NonfiniteNotices", "ReplacementClaims", "ulid_time_ms"]

_LETTERS = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_LENGTH, _OF_TIME = 26, 10


def ulid_time_ms(id: str) -> int:
    """The time in a delivery's id, in milliseconds since 1970; 0 for an id that is no ULID.

    The first ten letters of a ULID are the time (github.com/ulid/spec).
    """
    if len(id) != _LENGTH or not _LETTERS.keys() >= set(id):
        return 0
    time = 0
    for letter in id[:_OF_TIME]:
        time = time << 5 | _LETTERS[letter]
    return time


class ReplacementClaims:
    """Destinations that routes of a run replace as a whole; two with different settings would undo each other.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, Hashable] = {}

    def take(self, destination: str, settings: Hashable) -> bool:
        """Whether the destination is free, or was claimed with these settings."""
        with self._lock:
            return self._owners.setdefault(destination, settings) == settings


class NonfiniteNotices:
    """Counts values that became null because a format has no text for them, with one notice for each stream.

    Args:
        run: The run.
        hint: What can be done about it.
    """

    def __init__(self, run: muxly.Run, *, hint: str = "; format parquet or arrow keeps them") -> None:
        self._run, self._hint = run, hint
        self._reported: set[str] = set()

    def report(self, stream: str, count: int) -> None:
        """Count so many NaN and infinite values of a stream that were written as null."""
        if not count:
            return
        self._run.measure("nonfinite_as_null", count, stream=stream)
        if stream in self._reported:
            return
        self._reported.add(stream)
        self._run.notice(
            muxly.Notice(
                "nonfinite_as_null",
                f"{stream}: {count} values NaN or infinite were written as null, since JSON has no text for "
                f"them{self._hint}",
                stream=stream,
                facts={"count": count},
            )
        )
