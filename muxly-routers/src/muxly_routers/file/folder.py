"""Open folders and the drafts of files: all that is done in a folder goes through its descriptor, never a path.

So no link that appears in a path later can lead a write anywhere else. And a name is never overwritten: a draft gets
its final name in one step, which fails where the name is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import muxly
from muxly_routers._failures import failures_at

__all__ = ["FileDraft", "Folder", "exchange", "give_name", "same_bytes"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A folder that is held open.

    Args:
        fd: Its descriptor, closed with the folder.
        path: Where it was found, for messages.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    @classmethod
    def root(cls, path: Path) -> Self:
        """Open the folder at a path, which may itself lead through links; made if it is missing."""
        with failures_at(str(path), "open the folder"):
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            for folder in missing:
                _sync_path(folder.parent)
            return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(path))

    def path_of(self, name: str) -> str:
        """The path of something in it, for messages."""
        return f"{self.path}/{name}"

    def child(self, name: str, *, make: bool = False, sync: bool = True) -> Folder:
        """A folder in it, never through a link.

        Args:
            name: One component.
            make: Whether to make it if it is missing.
            sync: Whether a folder that was made is durable at once; else by a later ``sync``.
        """
        with failures_at(self.path_of(name), "open the folder"):
            if make and self._make(name) and sync:
                os.fsync(self.fd)
            return Folder(os.open(name, _FOLDER, dir_fd=self.fd), self.path_of(name))

    def _make(self, name: str) -> bool:
        try:
            os.mkdir(name, dir_fd=self.fd)
        except FileExistsError:
            return False
        return True

    def walk(self, names: Iterable[str], *, make: bool = False, sync: bool = True) -> Folder:
        """The folder at the end of that way; the caller closes it."""
        here = Folder(os.dup(self.fd), self.path)
        for name in names:
            with here:
                deeper = here.child(name, make=make, sync=sync)
            here = deeper
        return here

    def has(self, names: Iterable[str]) -> bool:
        """Whether there is something at the end of that way."""
        here = self.walk(())
        for name in names:
            with here:
                if here.kind(name) is None:
                    return False
                deeper = here.child(name)
            here = deeper
        here.close()
        return True

    def kind(self, name: str) -> str | None:
        """``"file"``, ``"folder"`` or ``"other"``; None if there is nothing of that name."""
        with failures_at(self.path_of(name), "look at"):
            try:
                mode = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return None
        if stat.S_ISDIR(mode):
            return "folder"
        return "file" if stat.S_ISREG(mode) else "other"

    def names(self) -> list[str]:
        """What is in it, sorted."""
        with failures_at(self.path, "list the folder"):
            return sorted(os.listdir(self.fd))  # noqa: PTH208 -- a path would follow links

    def open_file(self, name: str) -> int:
        """A descriptor of a file in it, for reading, never through a link."""
        with failures_at(self.path_of(name), "open"):
            return os.open(name, os.O_RDONLY | _FILE, dir_fd=self.fd)

    def create_file(self, name: str) -> int:
        """A descriptor of a new file in it, for writing and reading."""
        with failures_at(self.path_of(name), "create"):
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=self.fd)

    def sync(self) -> None:
        """Make its entries durable."""
        with failures_at(self.path, "make durable"):
            os.fsync(self.fd)

    def remove(self, name: str) -> None:
        """Remove a file, link or whole folder in it; nothing there is fine."""
        with failures_at(self.path_of(name), "remove"):
            self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            # unlink(2) of a folder: EISDIR on Linux, EPERM by POSIX.
            with self.child(name) as folder:
                for inner in folder.names():
                    folder._remove(inner)
            os.rmdir(name, dir_fd=self.fd)

    def files(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """All files below it: the way to the folder, and the name; links count as files."""
        for name in self.names():
            if self.kind(name) == "folder":
                with self.child(name) as folder:
                    for way, inner in folder.files():
                        yield (name, *way), inner
            else:
                yield (), name

    def close(self) -> None:
        """Close it; may be called more than once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
        """Make the bytes durable, and close the file."""
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
                give_name(self._work, self._name, target, name)
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
    left = folder.open_file(name)
    try:
        right = other.open_file(other_name)
        try:
            return os.fstat(left).st_size == os.fstat(right).st_size and _equal(left, right)
        finally:
            os.close(right)
    finally:
        os.close(left)


def _equal(left: int, right: int) -> bool:
    start = 0
    while True:
        mine, theirs = os.pread(left, _BUFFER_BYTES, start), os.pread(right, _BUFFER_BYTES, start)
        if mine != theirs:
            return False
        if not mine:
            return True
        start += len(mine)


# linux/fs.h; the call is renameat2(2), since Linux 3.15.
_NOREPLACE = 1
_EXCHANGE = 2
# What a kernel or file system answers that does not know the call or the flag.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


@cache
def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


def _rename(source: Folder, name: str, target: Folder, new_name: str, flag: int) -> bool:
    """Rename with the flag; False where that is not known here."""
    call = _renameat2()
    if call is None:
        return False
    if call(source.fd, os.fsencode(name), target.fd, os.fsencode(new_name), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), target.path_of(new_name))


def give_name(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Move an entry to a name that is free.

    Raises:
        FileExistsError: The name is taken; nothing was changed.
    """
    if _rename(source, name, target, new_name, _NOREPLACE):
        return
    # A second name for the same file is refused where the name is taken, as the rename would be.
    os.link(name, new_name, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
    os.unlink(name, dir_fd=source.fd)


def exchange(source: Folder, name: str, target: Folder, new_name: str, aside: str) -> None:
    """Let two folders change places, so that readers see the one or the other, whole.

    Where the system cannot do it in one step, readers find neither for an instant.

    Args:
        source: Where the new folder lies.
        name: The new folder's name there.
        target: Where the old folder lies.
        new_name: The old folder's name there.
        aside: A free name in ``source``, used between the steps where one step is not possible.
    """
    if _rename(source, name, target, new_name, _EXCHANGE):
        return
    os.rename(new_name, aside, src_dir_fd=target.fd, dst_dir_fd=source.fd)
    os.rename(name, new_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
    os.rename(aside, name, src_dir_fd=source.fd, dst_dir_fd=source.fd)


def move_folder(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Move a folder to a name that is free; the one run of a pipeline is the only one to use it."""
    if not _rename(source, name, target, new_name, _NOREPLACE):
        os.rename(name, new_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
