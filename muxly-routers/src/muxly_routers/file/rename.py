"""Renames that never overwrite: an entry gets a new name, or two entries change places, in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly_routers.file.folder import Folder

__all__ = ["exchange", "give_name"]

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
