"""Whole folders that take the place of others, so that readers see the old or the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._files.failures import failures_at
from muxly_routers._formats.encoding import has_ending
from muxly_routers.file import rename
from muxly_routers.file.draft import same_bytes
from muxly_routers.file.staging import STAGED

if TYPE_CHECKING:
    from muxly_routers.file.folder import Folder
    from muxly_routers.file.staging import WorkFolder

__all__ = ["check_ours", "reveal", "take_away", "take_place"]


def reveal(folder: Folder) -> None:
    """Give the staged files in a folder their final names, durably."""
    for way, name in list(folder.files()):
        if not name.endswith(STAGED):
            continue
        with folder.walk(way) as inner:
            _reveal_file(inner, name, name.removesuffix(STAGED))
            inner.sync()


def _reveal_file(folder: Folder, staged: str, name: str) -> None:
    with failures_at(folder.path_of(name), "publish"):
        try:
            rename.give_name(folder, staged, folder, name)
        except FileExistsError:
            # An earlier attempt ended here, and the delivery was repeated since.
            if not same_bytes(folder, staged, folder, name):
                raise muxly.ConflictError(f"{folder.path_of(name)} is there already with other content") from None
            folder.remove(staged)


def check_ours(folder: Folder) -> None:
    """Make sure that a folder which is to be replaced holds nothing but files of records.

    Raises:
        RouteError: It holds something else, which would be lost.
    """
    for way, name in folder.files():
        if not has_ending(name):
            path_of = "/".join((folder.path, *way, name))
            raise muxly.RouteError(
                f"{folder.path} is to be replaced, but {path_of} is not a file of this router; "
                "move it away, or give the route a path of its own"
            )


def take_place(work: WorkFolder, staged_in: Folder, staged: str, parent: Folder, name: str) -> None:
    """Let a staged folder take the place of a visible one, or its free place.

    Afterwards the old folder, if there was one, lies where the staged one lay.
    """
    path_of = parent.path_of(name)
    with staged_in.child(staged) as folder:
        reveal(folder)
    if parent.kind(name) is None:
        with failures_at(path_of, "publish"):
            rename.move_folder(staged_in, staged, parent, name)
    else:
        with parent.child(name) as old:
            check_ours(old)
        with failures_at(path_of, "replace"):
            rename.exchange(staged_in, staged, parent, name, work.swap_name())
    staged_in.sync()
    parent.sync()


def take_away(work: WorkFolder, parent: Folder, name: str) -> None:
    """Empty a visible folder in one step; nothing there is fine."""
    if parent.kind(name) is None:
        return
    with parent.child(name) as old:
        check_ours(old)
    aside = work.swap_name()
    with failures_at(parent.path_of(name), "empty"):
        rename.move_folder(parent, name, work.folder, aside)
    parent.sync()
    work.folder.remove(aside)
