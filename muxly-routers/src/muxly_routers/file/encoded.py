"""Finished files of this process, so that routes that want the same bytes encode them once."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["EncodedFile", "EncodedFiles"]

_KEPT = 16
# A route that waits for another's file loses at most this; then it encodes for itself.
_WAIT_SECONDS = 5.0


@frozen
class EncodedFile:
    """A whole, durable file that can be copied.

    Args:
        fd: For reading; it stays readable when the file is renamed or removed.
        size: Its bytes.
        modified: Its time of change in nanoseconds; another one means another content.
        nonfinite: How many values were written as null in it.
    """

    fd: int
    size: int
    modified: int
    nonfinite: int

    @classmethod
    def of(cls, fd: int, nonfinite: int) -> EncodedFile:
        """The file as it is now."""
        found = os.fstat(fd)
        return cls(fd, found.st_size, found.st_mtime_ns, nonfinite)

    def is_intact(self) -> bool:
        """Whether nobody has written to it since."""
        found = os.fstat(self.fd)
        return (found.st_size, found.st_mtime_ns) == (self.size, self.modified)


class EncodedFiles:
    """The files that were encoded last, by content and encoding; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._files: dict[Hashable, EncodedFile] = {}
        self._being_made: set[Hashable] = set()

    def find(self, key: Hashable) -> EncodedFile | None:
        """A copy to read from, which the caller closes; or None: encode, then ``keep`` or ``abandon``.

        While another route encodes the same, waits for it a little.
        """
        until = time.monotonic() + _WAIT_SECONDS
        with self._changed:
            while key in self._being_made:
                if not self._changed.wait(until - time.monotonic()):
                    return None
            file = self._files.get(key)
            if file is None or not file.is_intact():
                self._being_made.add(key)
                return None
            return EncodedFile(os.dup(file.fd), file.size, file.modified, file.nonfinite)

    def add(self, key: Hashable, file: EncodedFile) -> None:
        """Offer a file to the others; its descriptor is ours from now on."""
        with self._changed:
            self._being_made.discard(key)
            previous = self._files.pop(key, None)
            self._files[key] = file
            over = [previous] if previous else []
            if len(self._files) > _KEPT:
                over.append(self._files.pop(next(iter(self._files))))
            self._changed.notify_all()
        for one in over:
            os.close(one.fd)

    def abandon(self, key: Hashable) -> None:
        """Tell those who wait that no file will come; may be called at any time."""
        with self._changed:
            self._being_made.discard(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of all files."""
        with self._changed:
            files, self._files = list(self._files.values()), {}
        for file in files:
            os.close(file.fd)
