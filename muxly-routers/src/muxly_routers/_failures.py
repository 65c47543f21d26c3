"""Failures of packages, connections and files as errors of a router, each with the next step."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import muxly

__all__ = ["check_folder", "failures_at", "needs", "with_next_step"]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import a vendor's library inside, so that one that is missing names the extra that brings it.

    Args:
        extra: A name of ``[project.optional-dependencies]`` of ``muxly-routers``.

    Raises:
        muxly.PluginError: A module is not installed; the message is the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f'needs the package {error.name}, which is not installed; run: pip install "muxly-routers[{extra}]"'
        raise muxly.PluginError(missing) from error


# In the words of systems, of drivers and of our own; the first that fits.
_CONNECTION_STEPS = (
    (
        re.compile(r"has no address|resolve|name resolution|name of a host|translate host|not known"),
        "is the name right, and can this machine look it up?",
    ),
    (
        re.compile(
            r"refused|unreachable|No route|Connection timed out|onnect timeout|onnection timeout|take the connection|"
            r"timeout expired|cannot be reached|Could not connect"
        ),
        "is the server running there, and does a firewall let this machine through?",
    ),
    (
        re.compile(r"in time\b|within total_seconds|timed out|[Rr]ead timeout"),
        "is the server stuck or busy? If it needs longer, raise the limit of seconds in the route's options",
    ),
)


def with_next_step(text: str) -> str:
    """A message about a connection, followed by the next step where one is known.

    Args:
        text: By a system, a driver or a router, in a line.
    """
    step = next((step for pattern, step in _CONNECTION_STEPS if pattern.search(text)), None)
    return text if step is None else f"{text}; {step}"


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
    errno.ENOENT: "the folder disappeared while it was written to; the next run makes it again",
    errno.EEXIST: "something else stands where a folder is needed; remove it or choose another folder",
    errno.ENOTDIR: "a file or a symbolic link stands where a folder is needed; remove it or choose another folder",
    errno.ELOOP: "a symbolic link stands where a folder is needed; remove it or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed; remove it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter path, or shorter templates where the route has some",
    errno.ENOLCK: "the file system does not support locks; mount it with them, or choose another folder",
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
            nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
            problem, space = _unwritable(nearest), os.statvfs(nearest)
    except muxly.MuxlyError as error:
        yield muxly.Notice("not_writable", str(error), level="error")
        return
    if problem:
        yield muxly.Notice("not_writable", f"cannot write {path}: {problem}", level="error")
    elif space.f_bavail * space.f_frsize < _LEAST_FREE_BYTES:
        yield muxly.Notice("little_space", f"less than 64 MiB are free at {path}; make room there")


def _unwritable(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{folder} is not a folder; remove it or choose another folder"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"the file system of {folder} is read-only; mount it for writing or choose another folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write to {folder}; give it the right or choose another folder"
    return None
