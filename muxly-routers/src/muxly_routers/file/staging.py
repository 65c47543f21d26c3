"""The folder ``.muxly`` beside the streams: what is being written, under names that say by whom."""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING

import muxly
from muxly_routers._files import layout
from muxly_routers._files.failures import failures_at
from muxly_routers.file.draft import FileDraft

if TYPE_CHECKING:
    from muxly_routers.file.folder import Folder

__all__ = ["STAGED", "WorkFolder"]

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
        """Let go of the folder."""
        self.folder.close()
