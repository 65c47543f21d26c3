"""The output folder of one opened router: what each mode does in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import muxly
from muxly_routers._claims import ReplacementClaims
from muxly_routers._files.failures import failures_at
from muxly_routers._files.partitions import overwrite_keys, value_folders
from muxly_routers._files.sorting import FileShape
from muxly_routers._nonfinite import NonfiniteNotices
from muxly_routers.file import generations, replace
from muxly_routers.file.encoded import EncodedFiles
from muxly_routers.file.folder import Folder
from muxly_routers.file.staging import STAGED, WorkFolder
from muxly_routers.file.writing import FileDeliveryWriter

if TYPE_CHECKING:
    from pathlib import Path

    from muxly_routers._files.layout import PartitionKey
    from muxly_routers._files.options import FileLayout
    from muxly_routers._files.partitions import FolderPath

__all__ = ["FileOutput"]


class FileOutput:
    """An open output folder.

    Args:
        path: The folder; made if it is missing.
        layout: Folders, names and encoding of the files.
        run: The run it works for.
    """

    def __init__(self, path: Path, layout: FileLayout, run: muxly.Run) -> None:
        self._path, self._layout, self._run = path, layout, run
        self._root = Folder.root(path)
        try:
            self._work = WorkFolder(self._root, run.pipeline, run.id)
            self._work.sweep()
        except BaseException:
            self._root.close()
            raise
        self._shared = run.shared("muxly_routers.encoded", EncodedFiles)
        self._claims = run.shared(f"muxly_routers.file.claims.{run.id}", ReplacementClaims)
        self._nonfinite = NonfiniteNotices(run)
        self._durable: set[FolderPath] = set()

    def deliver(self, delivery: muxly.Delivery) -> None:
        """Write a delivery as its mode wants it."""
        self._check_place()
        if delivery.mode == "append":
            self._append(delivery)
        elif delivery.mode == "replace":
            self._stage(delivery)
        else:
            self._overwrite(delivery)
        self._check_place()

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation of a stream."""
        self._check_place()
        folder = self._folder(stream)
        self._claim(folder)
        generations.begin(self._root, self._work, folder, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show a generation of a stream."""
        self._check_place()
        generations.complete(self._root, self._work, self._folder(stream), generation)
        self._check_place()

    def close(self) -> None:
        """Let go of the folder."""
        self._work.close()
        self._root.close()

    def _append(self, delivery: muxly.Delivery) -> None:
        folder = self._folder(delivery.stream)
        with self._root.walk(folder, make=True) as base:
            self._write(delivery, base, self._layout.keys, "")
        self._sync_above(folder)

    def _sync_above(self, folder: FolderPath) -> None:
        """Make the way to a stream's folder durable, once: a run that ended early may have made it."""
        if folder not in self._durable:
            for depth in range(len(folder)):
                with self._root.walk(folder[:depth]) as above:
                    above.sync()
            self._durable.add(folder)

    def _stage(self, delivery: muxly.Delivery) -> None:
        assert delivery.generation is not None, "a delivery in mode replace has a generation"
        folder = self._folder(delivery.stream)
        self._claim(folder)
        base, ending = generations.staging(self._root, self._work, folder, delivery.generation)
        with base:
            self._write(delivery, base, self._layout.keys, ending)

    def _overwrite(self, delivery: muxly.Delivery) -> None:
        """Write aside, then let the folder of each value take the place of the one before."""
        keys = overwrite_keys(delivery.stream, self._layout.keys)
        depth = len(delivery.stream.overwrite_key)
        folder = self._folder(delivery.stream)
        self._claim(folder)
        aside = self._work.swap_name()
        try:
            with self._work.folder.child(aside, make=True) as base:
                written = self._write(delivery, base, keys, STAGED)
                replaced = {value_folders(one, keys[:depth], delivery.schema) for one in delivery.replaces}
                units = {one[:depth] for one in written}
                for unit in sorted(units | replaced):
                    self._show(folder, unit, base if unit in units else None)
        finally:
            self._work.folder.remove(aside)

    def _show(self, folder: FolderPath, unit: FolderPath, base: Folder | None) -> None:
        """Let a value's new folder take its place, or empty it where there are no records."""
        way = (*folder, *unit[:-1])
        if base is None:
            if self._root.has(way):
                with self._root.walk(way) as parent:
                    replace.take_away(self._work, parent, unit[-1])
            return
        with self._root.walk(way, make=True) as parent, base.walk(unit[:-1]) as staged_in:
            replace.take_place(self._work, staged_in, unit[-1], parent, unit[-1])

    def _write(
        self, delivery: muxly.Delivery, base: Folder, keys: tuple[PartitionKey, ...], ending: str
    ) -> set[FolderPath]:
        files = self._layout
        names = {"delivery": delivery.id, "stream": delivery.stream.name, "pipeline": self._run.pipeline}
        shape = FileShape.of(files, keys, names, ending)
        if keys:
            # The name of a file is made from this text: a route upgraded in the middle of a delivery must find
            # what it wrote down before, so neither the values nor their ``repr`` may change.
            route = (files.folder, files.file_name, delivery.stream.name, delivery.mode)
            writer = f"{files.encoding} {keys} {route}"
            self._work.record_delivery(writer, delivery.id, delivery.digest)
        writing = FileDeliveryWriter(self._work, base, shape, delivery, self._shared)
        written = writing.run()
        self._nonfinite.tell(delivery.stream.name, writing.nonfinite)
        return written

    def _folder(self, stream: muxly.Stream) -> FolderPath:
        return self._layout.stream_folder(stream.name, self._run.pipeline)

    def _claim(self, folder: FolderPath) -> None:
        if not self._claims.take(f"{self._path}/{'/'.join(folder)}", (self._path, self._layout)):
            raise muxly.RouteError(
                f"{self._root.path_of('/'.join(folder))} is replaced by another route of this pipeline too; "
                "give each route a path of its own"
            )

    def _check_place(self) -> None:
        """Make sure that the folder we hold is still the one that people find under its path."""
        path = self._path
        with failures_at(str(path)):
            found, held = path.stat(), os.fstat(self._root.fd)
        if not os.path.samestat(found, held):
            raise muxly.RouteError(
                f"{path} was replaced by another folder while it was written to; the next run uses the new one"
            )
