"""Small files that are replaced as a whole: a reader sees the old one or the new one, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import muxly
from muxly_routers._failures import failures_at

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read", "remove", "replace"]


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
    with failures_at(path, "read"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def remove(path: Path) -> None:
    """Remove the file, if it is there; durable on return."""
    with failures_at(path, "remove"), contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)
