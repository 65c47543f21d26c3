"""What the operating system says when a write fails, as errors of the route."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["failures_at"]

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
    errno.EROFS: "the file system is read-only; mount it for writing or change path",
    errno.EACCES: "give this user the right to write there, or change path",
    errno.EPERM: "give this user the right to write there, or change path",
    errno.ENOENT: "the folder has gone while it was written to; the next run makes it anew",
    errno.ENOTDIR: "a file or a symbolic link stands where a folder is needed; remove it or change path",
    errno.ELOOP: "a symbolic link stands where a folder is needed; remove it or change path",
    errno.EISDIR: "a folder stands where a file is needed; remove it or change path",
    errno.ENAMETOOLONG: "choose a shorter path or shorter templates for folder and file_name",
    errno.EXDEV: "folders inside path lie on different file systems; give each its own route",
}


@contextmanager
def failures_at(place: str, doing: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` into the route's error, with place, cause and next step.

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
        step = _NEXT_STEP.get(number, "see whether the folder of this route is in order")
        raise muxly.RouteError(f"{message}; {step}") from error
