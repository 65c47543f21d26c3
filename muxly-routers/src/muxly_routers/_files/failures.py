"""What the operating system says when a file cannot be used, as errors of the route."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_folder", "failures_at"]

_LEAST_FREE_BYTES = 64 * 1024 * 1024
# These pass by themselves, or with another file descriptor, so that the same delivery is tried again.
_PASSING = {
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
}
_NEXT_STEP = {
    errno.ENOSPC: "make room there; the next run delivers what is pending",
    errno.EDQUOT: "the quota is used up: make room; the next run delivers what is pending",
    errno.EFBIG: "the file would be larger than this process may write; raise the limit or the route's batch",
    errno.EROFS: "the file system is read-only; mount it for writing or choose another folder",
    errno.EACCES: "give this user the right to write there, or choose another folder",
    errno.EPERM: "give this user the right to write there, or choose another folder",
    errno.ENOENT: "the folder has gone while it was written to; the next run makes it anew",
    errno.EEXIST: "something else stands where a folder is needed; remove it or choose another folder",
    errno.ENOTDIR: "a file or a symbolic link stands where a folder is needed; remove it or choose another folder",
    errno.ELOOP: "a symbolic link stands where a folder is needed; remove it or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed; remove it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter path, or shorter templates where the route has some",
    errno.ENOLCK: "the file system knows no locks; mount it with them, or choose another folder",
    errno.ENOTSUP: "the file system lacks something that this router needs; choose another folder",
    errno.EXDEV: "folders of this route lie on different file systems; give each a route of its own",
}


@contextmanager
def failures_at(place: str | Path, doing: str = "write", *, step: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` into the route's error, with place, cause and next step.

    Args:
        place: What is used, for people.
        doing: What is done with it, such as ``"write"`` or ``"make durable"``.
        step: What people can do; default what the cause suggests.

    Raises:
        RetryableError: It may pass by itself.
        RouteError: It will not.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        cause = f"{error.strerror or error} ({errno.errorcode.get(number, 'no number')})"
        message = f"cannot {doing} {place}: {cause}"
        if number in _PASSING:
            raise muxly.RetryableError(message) from error
        step = step or _NEXT_STEP.get(number, "see whether the folder of this route is in order")
        raise muxly.RouteError(f"{message}; {step}") from error


def check_folder(path: Path) -> Iterator[muxly.Notice]:
    """Whether files can be put into a folder, or the folder be made; for ``Router.check``."""
    try:
        with failures_at(path, "look at"):
            nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
            problem, found = _unwritable(nearest), os.statvfs(nearest)
    except muxly.MuxlyError as error:
        yield muxly.Notice("not_writable", str(error), level="error")
        return
    if problem:
        yield muxly.Notice("not_writable", f"cannot write {path}: {problem}", level="error")
    elif found.f_bavail * found.f_frsize < _LEAST_FREE_BYTES:
        yield muxly.Notice("little_space", f"less than 64 MiB are free at {path}; make room there")


def _unwritable(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{folder} is not a folder; remove it or choose another folder"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"the file system of {folder} is read-only; mount it for writing or choose another folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write to {folder}; give it the right or choose another folder"
    return None
