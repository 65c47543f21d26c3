"""The folder ``.muxly`` beside the streams, in which files and folders grow out of sight.

What lies there is named after the pipeline and run that write it. A full read of a stream, a generation, grows
there as a whole folder. When it is complete, the stream's folder, with ``generation-000007`` in it, takes the place
of the one before in one step. Readers see the old or the new one.
"""

from __future__ import annotations

import fcntl
import os
import secrets

import muxly
from muxly_routers._failures import failures_at
from muxly_routers._files import layout
from muxly_routers._formats.encoding import has_ending
from muxly_routers.file.folder import FileDraft, Folder, exchange, give_name, move_folder, same_bytes

__all__ = [
    "STAGED",
    "WorkFolder",
    "begin_generation",
    "check_replaceable",
    "complete_generation",
    "is_visible",
    "open_generation",
    "publish_staged",
    "empty_folder",
    "replace_folder",
    "visible_generation",
]

STAGED = ".staged"
"""Ends the name of a file whose folder is not shown yet, so that no ``**/*.parquet`` finds it."""

_FOLDER = ".muxly"
_DRAFT, _SWAP, _LAST = ".tmp", ".swap", ".last"


class WorkFolder:
    """The temporary files and folders of one run of a pipeline in one output folder.

    A name is ``<pipeline>.<run>.<random>.tmp``. A pipeline has one run at a time, so that what an
    older run of the same pipeline left behind, and nobody holds locked, belongs to nobody.

    Args:
        root: The output folder.
        pipeline: The pipeline's name.
        run: The run's id; ids grow with time.
    """

    def __init__(self, root: Folder, pipeline: str, run: str) -> None:
        self.folder = root.child(_FOLDER, make=True)
        self._pipeline = layout.text_hash(pipeline)
        self._run = layout.slug(run)

    def draft(self) -> FileDraft:
        """A new, empty draft."""
        return FileDraft(self.folder, self.free_name(_DRAFT))

    def swap_name(self) -> str:
        """A free name for a folder that is to take another's place."""
        return self.free_name(_SWAP)

    def free_name(self, ending: str) -> str:
        """A name that nobody else has."""
        return f"{self._pipeline}.{self._run}.{secrets.token_hex(6)}{ending}"

    def generation_name(self, folder: tuple[str, ...], generation: int) -> str:
        """The folder in which a generation grows; the same in every run of the pipeline."""
        return f"{self._generation_prefix(folder)}{generation:06d}"

    def older_generations(self, folder: tuple[str, ...], generation: int) -> list[str]:
        """The folders of generations before that one."""
        prefix = self._generation_prefix(folder)
        numbers = {name: name.removeprefix(prefix) for name in self.folder.names() if name.startswith(prefix)}
        return [name for name, number in numbers.items() if number.isdecimal() and int(number) < generation]

    def _generation_prefix(self, folder: tuple[str, ...]) -> str:
        return f"{self._pipeline}.{layout.slug('/'.join(folder))}.generation-"

    def record_delivery(self, writer: str, id: str, digest: str) -> None:
        """Note, durably, which delivery a writer begins; the one before is forgotten.

        A delivery may have files in any folder, so that one with another content under the same
        id would find no file in its way.

        Args:
            writer: Names a route and stream as well as can be known here.
            id: Of the delivery.
            digest: Of the delivery.

        Raises:
            ConflictError: It has begun a delivery of this id with another content.
        """
        name = f"{self._pipeline}.{layout.text_hash(writer)}{_LAST}"
        if self.folder.kind(name) == "file":
            with os.fdopen(self.folder.open_file(name), "rb") as file, failures_at(self.folder.path_of(name), "read"):
                last = file.read().decode(errors="replace").split()
            if last == [layout.text_hash(id), layout.text_hash(digest)]:
                return
            if last[:1] == [layout.text_hash(id)]:
                raise muxly.ConflictError(
                    f"delivery {id} was written with another content before; it is not written again"
                )
        draft = self.draft()
        try:
            draft.write(f"{layout.text_hash(id)} {layout.text_hash(digest)}\n".encode())
            draft.settle()
            draft.take_name(name)
        finally:
            draft.discard()

    def sweep(self) -> None:
        """Remove what older runs of this pipeline left behind; what is in use stays."""
        for name in self.folder.names():
            if self._is_older(name) and not self._in_use(name):
                self.folder.remove(name)

    def _is_older(self, name: str) -> bool:
        if not name.startswith(f"{self._pipeline}.") or not name.endswith((_DRAFT, _SWAP)):
            return False
        return name.removeprefix(f"{self._pipeline}.").rsplit(".", 2)[0] < self._run

    def _in_use(self, name: str) -> bool:
        try:
            fd = self.folder.open_file(name)
        except Exception:  # noqa: BLE001 -- a name that cannot be opened is not ours to judge
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def close(self) -> None:
        """Close the folder."""
        self.folder.close()


_PREFIX = "generation-"


def _generation_folder(generation: int) -> str:
    return f"{_PREFIX}{generation:06d}"


def visible_generation(root: Folder, folder: tuple[str, ...]) -> int | None:
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
    seen = visible_generation(root, folder)
    if seen is not None and seen > generation:
        raise muxly.ConflictError(
            f"{root.path_of('/'.join(folder))} shows generation {seen}, and generation {generation} is older; "
            "if the store was restored from a copy, move that folder away"
        )
    return seen == generation


def begin_generation(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> None:
    """Make room for a generation, and remove older ones that never became whole."""
    if is_visible(root, folder, generation):
        return
    for name in work.older_generations(folder, generation):
        work.folder.remove(name)
    with work.folder.walk((work.generation_name(folder, generation), _generation_folder(generation)), make=True):
        pass


def open_generation(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> tuple[Folder, str]:
    """The folder for the files of a generation, which the caller closes, and what ends their names.

    Raises:
        RouteError: It was not begun, or its folder has been removed since.
    """
    if is_visible(root, folder, generation):
        return root.walk((*folder, _generation_folder(generation))), ""
    if not _is_staged(work, folder, generation):
        raise _gone(work, folder, generation)
    return work.folder.walk((work.generation_name(folder, generation), _generation_folder(generation))), STAGED


def complete_generation(root: Folder, work: WorkFolder, folder: tuple[str, ...], generation: int) -> None:
    """Show a generation in place of the one before."""
    outer = work.generation_name(folder, generation)
    staged = _is_staged(work, folder, generation)
    if not is_visible(root, folder, generation):
        if not staged:
            raise _gone(work, folder, generation)
        with root.walk(folder[:-1], make=True) as parent:
            replace_folder(work, work.folder, outer, parent, folder[-1])
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
        return inner.kind(_generation_folder(generation)) is not None


def _gone(work: WorkFolder, folder: tuple[str, ...], generation: int) -> muxly.RouteError:
    path = work.folder.path_of(work.generation_name(folder, generation))
    return muxly.RouteError(
        f"{path}, in which generation {generation} of {'/'.join(folder)} grew, is not there; "
        "read the stream again with --full-refresh"
    )


def publish_staged(folder: Folder) -> None:
    """Give the staged files in a folder their final names, durably."""
    for way, name in list(folder.files()):
        if not name.endswith(STAGED):
            continue
        with folder.walk(way) as inner:
            _publish_staged_file(inner, name, name.removesuffix(STAGED))
            inner.sync()


def _publish_staged_file(folder: Folder, staged: str, name: str) -> None:
    with failures_at(folder.path_of(name), "publish"):
        try:
            give_name(folder, staged, folder, name)
        except FileExistsError:
            # An earlier attempt ended here, and the delivery was repeated since.
            if not same_bytes(folder, staged, folder, name):
                raise muxly.ConflictError(f"{folder.path_of(name)} is there already with other content") from None
            folder.remove(staged)


def check_replaceable(folder: Folder) -> None:
    """Make sure that a folder which is to be replaced holds nothing but files of records.

    Raises:
        RouteError: It holds something else, which would be lost.
    """
    for way, name in folder.files():
        if not has_ending(name):
            path = "/".join((folder.path, *way, name))
            raise muxly.RouteError(
                f"{folder.path} is to be replaced, but {path} is not a file of this router; "
                "move it away, or give the route a path of its own"
            )


def replace_folder(work: WorkFolder, staged_in: Folder, staged: str, parent: Folder, name: str) -> None:
    """Let a staged folder take the place of a visible one, or its free place.

    Until here the files of the staged folder end in ``.staged``, so that no pattern of a reader finds them. They get
    their final names first; a crash in the middle of that is made good by the repeat. Then the two folders change
    places in one step, and both parents are synced. A crash after the exchange leaves the old folder out of sight.

    Afterwards the old folder, if there was one, lies where the staged one lay.
    """
    path = parent.path_of(name)
    with staged_in.child(staged) as folder:
        publish_staged(folder)
    if parent.kind(name) is None:
        with failures_at(path, "publish"):
            move_folder(staged_in, staged, parent, name)
    else:
        with parent.child(name) as old:
            check_replaceable(old)
        with failures_at(path, "replace"):
            exchange(staged_in, staged, parent, name, work.swap_name())
    staged_in.sync()
    parent.sync()


def empty_folder(work: WorkFolder, parent: Folder, name: str) -> None:
    """Empty a visible folder in one step; nothing there is fine."""
    if parent.kind(name) is None:
        return
    with parent.child(name) as old:
        check_replaceable(old)
    aside = work.swap_name()
    with failures_at(parent.path_of(name), "empty"):
        move_folder(parent, name, work.folder, aside)
    parent.sync()
    work.folder.remove(aside)
