"""Full reads of a stream, each in a folder that is shown when it is whole.

A generation grows out of sight in ``.muxly``. When it is complete, the stream's folder, with
``generation-000007`` in it, takes the place of the one before in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers.file import replace
from muxly_routers.file.staging import STAGED

if TYPE_CHECKING:
    from muxly_routers.file.folder import Folder
    from muxly_routers.file.staging import WorkFolder

__all__ = ["begin", "complete", "is_visible", "staging", "visible"]

_PREFIX = "generation-"


def _name(generation: int) -> str:
    return f"{_PREFIX}{generation:06d}"


def visible(root: Folder, folder: tuple[str, ...]) -> int | None:
    """The generation that readers of the stream see; None if there is none."""
    if not root.has(folder):
        return None
    with root.walk(folder) as here:
        numbers = [name.removeprefix(_PREFIX) for name in here.names() if name.startswith(_PREFIX)]
    return max((int(number) for number in numbers if number.isdecimal()), default=None)


def is_visible(root: Folder, folder: tuple[str, ...], generation: int) -> bool:
    """Whether the generation is complete already.

    Raises:
        ConflictError: A newer one is.
    """
    seen = visible(root, folder)
    if seen is not None and seen > generation:
        raise muxly.ConflictError(
            f"{root.path_of('/'.join(folder))} shows generation {seen}, and generation {generation} is older; "
            "if the store was restored from a copy, move that folder away"
        )
    return seen == generation


def begin(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> None:
    """Make room for a generation, and remove older ones that never became whole."""
    if is_visible(root, folder, generation):
        return
    for name in work.older_generations(folder, generation):
        work.folder.remove(name)
    with work.folder.walk((work.generation_name(folder, generation), _name(generation)), make=True):
        pass


def staging(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> tuple[Folder, str]:
    """The folder for the files of a generation, which the caller closes, and what ends their names.

    Raises:
        RouteError: It was not begun, or its folder has been removed since.
    """
    if is_visible(root, folder, generation):
        return root.walk((*folder, _name(generation))), ""
    if not _is_staged(work, folder, generation):
        raise _gone(work, folder, generation)
    return work.folder.walk((work.generation_name(folder, generation), _name(generation))), STAGED


def complete(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> None:
    """Show a generation in place of the one before."""
    outer = work.generation_name(folder, generation)
    staged = _is_staged(work, folder, generation)
    if not is_visible(root, folder, generation):
        if not staged:
            raise _gone(work, folder, generation)
        with root.walk(folder[:-1], make=True) as parent:
            replace.take_place(work, work.folder, outer, parent, folder[-1])
    elif staged:
        raise muxly.ConflictError(
            f"{root.path_of('/'.join(folder))} shows a generation {generation} of another route; "
            "give each route a path of its own"
        )
    # What lies there now is the generation before, or nothing.
    work.folder.remove(outer)


def _is_staged(work: WorkFolder, folder: tuple[str, ...], generation: int) -> bool:
    outer = work.generation_name(folder, generation)
    if work.folder.kind(outer) is None:
        return False
    with work.folder.child(outer) as inner:
        return inner.kind(_name(generation)) is not None


def _gone(work: WorkFolder, folder: tuple[str, ...], generation: int) -> muxly.RouteError:
    path_of = work.folder.path_of(work.generation_name(folder, generation))
    return muxly.RouteError(
        f"{path_of}, in which generation {generation} of {'/'.join(folder)} grew, is not there; "
        "read the stream anew with --full-refresh"
    )
