"""A file while it is written: under a temporary name, locked, and gone when anything fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers._files.failures import failures_at
from muxly_routers.file import rename

if TYPE_CHECKING:
    from muxly_routers.file.folder import Folder

__all__ = ["FileDraft", "same_bytes"]

_BUFFER_BYTES = 256 * 1024
_COPY_BYTES = 8 * 1024 * 1024


class FileDraft:
    """A new file in the work folder; a sink for an encoder until it is settled.

    Args:
        work: The folder of temporary files.
        name: A name that is free there.
    """

    closed = False

    def __init__(self, work: Folder, name: str) -> None:
        self._work, self._name = work, name
        self._waiting = bytearray()
        self._size = 0
        self._fd = work.create_file(name)
        try:
            # The lock ends with the process, however it ends: only then may the file be swept.
            with failures_at(self._path(), "lock"):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.discard()
            raise

    def write(self, buffer: Any, /) -> int:
        """Take bytes; dropped once the draft is discarded, so that writers can be closed quietly."""
        view = memoryview(buffer).cast("B")
        if self._fd < 0:
            return len(view)
        self._size += len(view)
        if len(view) < _BUFFER_BYTES - len(self._waiting):
            self._waiting += view
            return len(view)
        self._pass_on()
        if len(view) < _BUFFER_BYTES:
            self._waiting += view
        else:
            self._write_all(view)
        return len(view)

    def _pass_on(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._write_all(memoryview(waiting))

    def _write_all(self, view: memoryview) -> None:
        with failures_at(self._path()):
            while view:
                view = view[os.write(self._fd, view) :]

    def _path(self) -> str:
        return self._work.path_of(self._name)

    def tell(self) -> int:
        """How many bytes were taken."""
        return self._size

    def flush(self) -> None:
        """Part of being a file; bytes are passed on when there are enough, or at the end."""

    def close(self) -> None:
        """Part of being a file; only ``settle`` and ``discard`` end a draft."""

    def copy(self, source: int, size: int) -> None:
        """Take the bytes of another file.

        Args:
            source: A descriptor that it can be read from.
            size: How many bytes it has.
        """
        with failures_at(self._path()):
            done = 0
            while done < size:
                count = _copy_some(source, self._fd, done, min(_COPY_BYTES, size - done))
                if count == 0:
                    raise muxly.RetryableError(f"the file copied to {self._path()} was cut while it was read")
                done += count
        self._size = size

    def settle(self) -> None:
        """Make the bytes durable, and let go of the file."""
        self._pass_on()
        with failures_at(self._path(), "make durable"):
            # A failed fsync may have lost bytes that a second one would call durable: never again.
            os.fsync(self._fd)
        self._close()

    def opened(self) -> int:
        """A descriptor for reading the settled file, which is the caller's to close."""
        # One of its own: a duplicate would hold the lock for as long as it is kept.
        return self._work.open_file(self._name)

    def publish(self, target: Folder, name: str) -> None:
        """Give the settled file its final name; its folder is not synced yet.

        Raises:
            ConflictError: The name is taken by other bytes.
        """
        with failures_at(target.path_of(name), "publish"):
            try:
                rename.give_name(self._work, self._name, target, name)
            except FileExistsError:
                if not same_bytes(self._work, self._name, target, name):
                    raise muxly.ConflictError(
                        f"{target.path_of(name)} is there already with other content and is not overwritten; "
                        "move it away if it is not needed"
                    ) from None
                self.discard()
        self._name = ""

    def take_name(self, name: str) -> None:
        """Give the settled file a name in the work folder, in place of what has it; durable on return."""
        with failures_at(self._work.path_of(name), "publish"):
            os.rename(self._name, name, src_dir_fd=self._work.fd, dst_dir_fd=self._work.fd)
        self._name = ""
        self._work.sync()

    def discard(self) -> None:
        """Remove it, unless it was published; may be called more than once."""
        name, self._name = self._name, ""
        self._close()
        if name:
            self._work.remove(name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._waiting = bytearray()
        if fd >= 0:
            os.close(fd)


def _copy_some(source: int, target: int, start: int, count: int) -> int:
    # Not on this system, or not between these two file systems: the bytes go through memory.
    # A full disk is met again by the write, and named there.
    with contextlib.suppress(AttributeError, OSError):
        return os.copy_file_range(source, target, count, offset_src=start)
    return os.write(target, os.pread(source, count, start))


def same_bytes(folder: Folder, name: str, other: Folder, other_name: str) -> bool:
    """Whether two files have the same content; a link or folder is never the same."""
    if other.kind(other_name) != "file":
        return False
    one = folder.open_file(name)
    try:
        two = other.open_file(other_name)
        try:
            return os.fstat(one).st_size == os.fstat(two).st_size and _equal(one, two)
        finally:
            os.close(two)
    finally:
        os.close(one)


def _equal(one: int, two: int) -> bool:
    start = 0
    while True:
        left, right = os.pread(one, _BUFFER_BYTES, start), os.pread(two, _BUFFER_BYTES, start)
        if left != right:
            return False
        if not left:
            return True
        start += len(left)
