"""The output folder of one opened router: its modes, the writing of a delivery, and files shared between routes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Hashable
from pathlib import Path

import pyarrow as pa
from attrs import define, field, frozen

import muxly
from muxly_routers._deliveries import NonfiniteNotices, ReplacementClaims
from muxly_routers._failures import failures_at
from muxly_routers._files.layout import FileLayout, PartitionKey
from muxly_routers._files.partitions import FileShape, FolderPath, PartitionEncoder, overwrite_keys, value_folders
from muxly_routers._formats import read_digest
from muxly_routers.file import staging
from muxly_routers.file.folder import FileDraft, Folder
from muxly_routers.file.staging import STAGED, WorkFolder

__all__ = ["EncodedFile", "EncodedFiles", "FileDeliveryWriter", "FileOutput"]


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
        self._check_folder()
        if delivery.mode == "append":
            self._append(delivery)
        elif delivery.mode == "replace":
            self._stage(delivery)
        else:
            self._overwrite(delivery)
        self._check_folder()

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation of a stream."""
        self._check_folder()
        folder = self._folder(stream)
        self._claim(folder)
        staging.begin_generation(self._root, self._work, folder, generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show a generation of a stream."""
        self._check_folder()
        staging.complete_generation(self._root, self._work, self._folder(stream), generation)
        self._check_folder()

    def close(self) -> None:
        """Close the folder."""
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
        base, ending = staging.open_generation(self._root, self._work, folder, delivery.generation)
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
                replaced = {value_folders(values, keys[:depth], delivery.schema) for values in delivery.replaces}
                units = {folders[:depth] for folders in written}
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
                    staging.empty_folder(self._work, parent, unit[-1])
            return
        with self._root.walk(way, make=True) as parent, base.walk(unit[:-1]) as staged_in:
            staging.replace_folder(self._work, staged_in, unit[-1], parent, unit[-1])

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
        self._nonfinite.report(delivery.stream.name, writing.nonfinite)
        return written

    def _folder(self, stream: muxly.Stream) -> FolderPath:
        return self._layout.stream_folder(stream.name, self._run.pipeline)

    def _claim(self, folder: FolderPath) -> None:
        if not self._claims.take(f"{self._path}/{'/'.join(folder)}", (self._path, self._layout)):
            raise muxly.RouteError(
                f"{self._root.path_of('/'.join(folder))} is replaced by another route of this pipeline too; "
                "give each route a path of its own"
            )

    def _check_folder(self) -> None:
        """Make sure that the folder we hold is still the one that people find under its path."""
        path = self._path
        with failures_at(str(path)):
            current, held = path.stat(), os.fstat(self._root.fd)
        if not os.path.samestat(current, held):
            raise muxly.RouteError(
                f"{path} was replaced by another folder while it was written to; the next run uses the new one"
            )


_KEPT = 16
# A route that waits for another's file loses at most this; then it encodes for itself.
_WAIT_SECONDS = 5.0


@frozen
class EncodedFile:
    """A whole, durable file that can be copied.

    Args:
        fd: For reading; it stays readable when the file is renamed or removed.
        size: Its bytes.
        modified: Its time of change in nanoseconds; another one means another content.
        nonfinite: How many values were written as null in it.
    """

    fd: int
    size: int
    modified: int
    nonfinite: int

    @classmethod
    def of(cls, fd: int, nonfinite: int) -> EncodedFile:
        """The file as it is now."""
        status = os.fstat(fd)
        return cls(fd, status.st_size, status.st_mtime_ns, nonfinite)

    def is_intact(self) -> bool:
        """Whether nobody has written to it since."""
        status = os.fstat(self.fd)
        return (status.st_size, status.st_mtime_ns) == (self.size, self.modified)


class EncodedFiles:
    """The files that were encoded last, by content and encoding; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._files: dict[Hashable, EncodedFile] = {}
        self._being_made: set[Hashable] = set()

    def find(self, key: Hashable) -> EncodedFile | None:
        """A copy to read from, which the caller closes; or None: encode, then ``keep`` or ``abandon``.

        While another route encodes the same, waits for it a little.
        """
        until = time.monotonic() + _WAIT_SECONDS
        with self._changed:
            while key in self._being_made:
                if not self._changed.wait(until - time.monotonic()):
                    return None
            file = self._files.get(key)
            if file is None or not file.is_intact():
                self._being_made.add(key)
                return None
            return EncodedFile(os.dup(file.fd), file.size, file.modified, file.nonfinite)

    def add(self, key: Hashable, file: EncodedFile) -> None:
        """Offer a file to the others; its descriptor is ours from now on."""
        with self._changed:
            self._being_made.discard(key)
            previous = self._files.pop(key, None)
            self._files[key] = file
            over = [previous] if previous else []
            if len(self._files) > _KEPT:
                over.append(self._files.pop(next(iter(self._files))))
            self._changed.notify_all()
        for dropped in over:
            os.close(dropped.fd)

    def abandon(self, key: Hashable) -> None:
        """Tell those who wait that no file will come; may be called at any time."""
        with self._changed:
            self._being_made.discard(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Close all files."""
        with self._changed:
            files, self._files = list(self._files.values()), {}
        for file in files:
            os.close(file.fd)


@define
class FileDeliveryWriter:
    """Writes one delivery below one folder.

    The order of steps decides what a crash can leave behind. All files are encoded as drafts and made durable before
    the first of them is published: a crash until then leaves drafts only, which a later run sweeps. Then each draft
    gets its final name, and after the last one the folders are synced. A crash between two names leaves some files
    published; the repeat of the delivery recognizes them by their digest, or by their bytes where the format stores
    no digest, writes those that are missing, and syncs the folders of both.

    Args:
        work: Where the drafts lie.
        base: The folder below which the files go.
        shape: What they look like.
        delivery: The records.
        shared: Files of other routes.
    """

    work: WorkFolder
    base: Folder
    shape: FileShape
    delivery: muxly.Delivery
    shared: EncodedFiles
    nonfinite: int = 0
    _open: dict[FolderPath, FileDraft] = field(factory=dict, init=False)
    _settled: dict[FolderPath, FileDraft] = field(factory=dict, init=False)

    def run(self) -> set[FolderPath]:
        """Write and publish; nothing stays behind when it fails.

        Returns:
            The folders, below ``base``, that hold records of the delivery.
        """
        schema = self.shape.partitions.schema(self.delivery.schema)
        sorting: PartitionEncoder[FileDraft] = PartitionEncoder(self.shape, self.delivery, self)
        try:
            if self.shape.partitions.keys:
                sorting.run(schema)
            else:
                self._encode_one(sorting, schema)
            self._publish(sorting.published)
        finally:
            self._discard()
        return set(self._settled) | sorting.published

    def _encode_one(self, sorting: PartitionEncoder[FileDraft], schema: pa.Schema) -> None:
        """All records into one file, or the same bytes from another route."""
        batches = (batch for batch in self.delivery.batches() if batch.num_rows)
        first = next(batches, None)
        if first is None or sorting.is_published(()):
            return
        key = (self.delivery.digest, self.delivery.delivered, self.shape.encoding, schema.serialize().to_pybytes())
        file = self.shared.find(key)
        try:
            if file is not None:
                self._copy(file)
                return
            sorting.write((), first, schema)
            for batch in batches:
                sorting.write((), batch, schema)
            before = self.nonfinite
            sorting.finish(())
            kept = self._settled[()].opened()
            self.shared.add(key, EncodedFile.of(kept, self.nonfinite - before))
        finally:
            self.shared.abandon(key)

    def _copy(self, file: EncodedFile) -> None:
        draft = self.work.draft()
        self._settled[()] = draft
        try:
            draft.copy(file.fd, file.size)
        finally:
            os.close(file.fd)
        draft.settle()
        self.nonfinite += file.nonfinite

    def draft(self, folders: FolderPath) -> FileDraft:
        """A new draft in the work folder."""
        self._open[folders] = self.work.draft()
        return self._open[folders]

    def settle(self, folders: FolderPath, draft: FileDraft, nonfinite: int) -> None:
        """Make a whole draft durable."""
        self.nonfinite += nonfinite
        draft.settle()
        self._settled[folders] = self._open.pop(folders)

    def is_published(self, folders: FolderPath) -> bool:
        """Whether an earlier attempt has published this folder's file.

        Raises:
            ConflictError: The name is taken by another content.
        """
        if not self.base.has(folders):
            return False
        with self.base.walk(folders) as folder:
            if folder.kind(self.shape.name) is None:
                return False
            return _has_digest(folder, self.shape, self.delivery.digest)

    def _publish(self, published: set[FolderPath]) -> None:
        for folders, draft in self._settled.items():
            with self.base.walk(folders, make=True, sync=False) as folder:
                draft.publish(folder, self.shape.name)
        # Also those that were there: the attempt that wrote them may have ended before this.
        written = {*self._settled, *published}
        for way in {folders[:depth] for folders in written for depth in range(len(folders) + 1)}:
            with self.base.walk(way) as folder:
                folder.sync()

    def _discard(self) -> None:
        for draft in [*self._settled.values(), *self._open.values()]:
            with contextlib.suppress(muxly.MuxlyError):
                draft.discard()
        self._open.clear()


def _has_digest(folder: Folder, shape: FileShape, digest: str) -> bool:
    """Whether a file says that it has this content; False where the format has no place for that.

    Raises:
        ConflictError: It says otherwise.
    """
    path = folder.path_of(shape.name)
    if folder.kind(shape.name) != "file":
        raise muxly.ConflictError(f"{path} is not a file; move it away")
    fd = folder.open_file(shape.name)
    with os.fdopen(fd, "rb") as file, failures_at(path, "read"):
        try:
            stored = read_digest(shape.encoding, file)
        except ValueError as error:
            raise muxly.ConflictError(f"{path} is there already, {error}; move it away") from error
    if stored is not None and stored != digest:
        raise muxly.ConflictError(
            f"{path} is there already with other content (digest {stored}, not {digest}) and is not overwritten"
        )
    return stored is not None
