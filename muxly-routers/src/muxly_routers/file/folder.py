"""An open folder: all that is done in it goes through its descriptor and never through a path.

So no link that appears in a path later can lead a write anywhere else.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from muxly_routers._files.failures import failures_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Folder"]

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
            made = [one for one in (path, *path.parents) if not one.exists()]
            path.mkdir(parents=True, exist_ok=True)
            for one in made:
                _sync_path(one.parent)
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
        """Let go of it; may be called more than once."""
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
