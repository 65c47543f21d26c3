"""Encoded bytes that wait to be sent: a little of each object in memory, the rest in one temporary file."""

from __future__ import annotations

import io
import os
import tempfile
from typing import TYPE_CHECKING

from muxly_routers._files.failures import failures_at
from muxly_routers.s3.bucket import Checksum, Checksummer, Payload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


__all__ = ["ObjectBuffer", "TemporarySpool"]

_READ_BYTES = 256 * 1024
_WRITTEN_AT_ONCE = 1024 * 1024
_NEXT_STEP = "make room there, let TMPDIR name another folder, or make the route's batch smaller"

Extents = list[tuple[int, int]]


def _failures(doing: str) -> AbstractContextManager[None]:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = "any of the folders for temporary files"
    return failures_at(folder, doing, step=_NEXT_STEP)


class TemporarySpool:
    """A temporary file without a name, made at first use, which is gone with the process."""

    def __init__(self) -> None:
        self._fd = -1
        self._size = 0

    def put(self, view: memoryview) -> tuple[int, int]:
        """Append bytes; where they are."""
        start, size = self._size, len(view)
        with _failures("keep what is to be sent in"):
            if self._fd < 0:
                with tempfile.TemporaryFile(prefix="muxly-s3-") as file:
                    self._fd = os.dup(file.fileno())
            while view:
                view = view[os.pwrite(self._fd, view, start + size - len(view)) :]
        self._size = start + size
        return start, size

    def read(self, start: int, size: int) -> bytes:
        """Bytes that were put."""
        with _failures("read what is to be sent from"):
            return os.pread(self._fd, size, start)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = -1, 0


class ObjectBuffer:
    """The bytes of one object.

    Args:
        spool: Where they go when there are too many.
        memory_bytes: How many stay in memory.
        checksum: Which checksum is wanted of them.
    """

    def __init__(self, spool: TemporarySpool, memory_bytes: int, checksum: Checksum) -> None:
        self._spool, self._memory_bytes = spool, memory_bytes
        self._waiting = bytearray()
        self._extents: Extents = []
        self._checksum = checksum
        self.size = 0

    def write(self, view: memoryview) -> None:
        """Take bytes."""
        self.size += len(view)
        large = len(view) >= min(self._memory_bytes, _WRITTEN_AT_ONCE)
        if large or len(self._waiting) + len(view) > self._memory_bytes:
            self._pass_on()  # what came before must stand before
        if large:
            self._extents.append(self._spool.put(view))
        else:
            self._waiting += view

    def _pass_on(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._extents.append(self._spool.put(memoryview(waiting)))

    def payload(self) -> Payload:
        """All of it, to be sent; nothing is written any more."""
        digest = Checksummer(self._checksum)
        for block in self.blocks():
            digest.add(block)
        if not self._extents:
            whole = self._waiting
            return Payload(lambda: whole, self.size, digest.value())
        spool, extents, size = self._spool, self._extents, self.size
        return Payload(lambda: _SpoolReader(spool, extents, size), size, digest.value())

    def blocks(self) -> Iterator[bytes | bytearray]:
        """All of it, a block at a time; nothing is written any more."""
        if not self._extents:
            yield self._waiting
            return
        self._pass_on()
        for start, size in self._extents:
            for offset in range(start, start + size, _READ_BYTES):
                yield self._spool.read(offset, min(_READ_BYTES, start + size - offset))


class _SpoolReader(io.RawIOBase):
    """A file to read from, put together from extents of a spool."""

    def __init__(self, spool: TemporarySpool, extents: Extents, size: int) -> None:
        self._spool, self._extents, self._size = spool, extents, size
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        More than asked for where little is asked: an HTTP connection asks for 16 KiB at a time, and sends
        whatever it is given, so that a large object would take ten times the calls.
        """
        wanted = self._size if size is None or size < 0 else max(size, _READ_BYTES)
        found: list[bytes] = []
        while wanted > 0 and (some := self._some(wanted)):
            found.append(some)
            self._at += len(some)
            wanted -= len(some)
        return found[0] if len(found) == 1 else b"".join(found)

    def _some(self, most: int) -> bytes:
        before = 0
        for start, size in self._extents:
            if self._at < before + size:
                offset = self._at - before
                return self._spool.read(start + offset, min(most, size - offset))
            before += size
        return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def __len__(self) -> int:
        return self._size
