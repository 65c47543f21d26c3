"""Small files that are replaced as a whole: a reader sees the old one or the new one, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check", "failures_at", "read", "remove", "replace"]

_PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@contextmanager
def failures_at(place: Path) -> Iterator[None]:
    """Turn an ``OSError`` into the route's error, with place and cause.

    Raises:
        RetryableError: It may pass by itself.
        RouteError: It will not.
    """
    try:
        yield
    except OSError as error:
        message = (
            f"cannot use {place}: {error.strerror or error} ({errno.errorcode.get(error.errno or 0, 'no number')})"
        )
        if error.errno in _PASSING:
            raise muxly.RetryableError(message) from error
        raise muxly.RouteError(f"{message}; see that the folder is there, has room, and may be written to") from error


def replace(path: Path, content: bytes, *, mode: int, token: int) -> None:
    """Put a new file in the place of another; durable on return.

    Args:
        path: Its name; folders are made. Something there that is no file is refused.
        content: All of it.
        mode: Its permissions.
        token: The run's, for the name of the draft: no two runs write to one draft.

    Raises:
        RetryableError: It may work later.
        RouteError: It will not.
    """
    with failures_at(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_others(path)
        draft = path.with_name(f".{path.name}.{token}.draft")
        draft.unlink(missing_ok=True)
        try:
            _write(draft, content, mode)
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        _sweep(path, token)


def _refuse_others(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise muxly.RouteError(f"{path} is no file and is not replaced; move it away or choose another folder")


def _write(draft: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(draft, flags, mode), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask is: another user reads it
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path, token: int) -> None:
    """Remove what killed runs left of their drafts of this file."""
    start, end = f".{path.name}.", ".draft"
    for one in path.parent.iterdir():
        number = one.name.removeprefix(start).removesuffix(end)
        if one.name == f"{start}{number}{end}" and number.isdigit() and int(number) < token:
            one.unlink(missing_ok=True)


def read(path: Path) -> bytes | None:
    """The file's content; None if it is not there."""
    with failures_at(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def remove(path: Path) -> None:
    """Remove the file, if it is there; durable on return."""
    with failures_at(path), contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


def check(folder: Path) -> Iterator[muxly.Notice]:
    """Whether files can be put into the folder, or it can be made."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        message = f"{nearest} is no folder that this user may write to; give it the right, or choose another folder"
        yield muxly.Notice("not_writable", message, level="error")
