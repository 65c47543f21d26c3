"""One delivery as files: encoded into drafts, and published when all of them are durable."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import define, field

import muxly
from muxly_routers._files.failures import failures_at
from muxly_routers._files.sorting import PartitionEncoder
from muxly_routers.file.draft import FileDraft
from muxly_routers.file.encoded import EncodedFile

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly_routers._files.partitions import FolderPath
    from muxly_routers._files.sorting import FileShape
    from muxly_routers.file.encoded import EncodedFiles
    from muxly_routers.file.folder import Folder
    from muxly_routers.file.staging import WorkFolder

__all__ = ["FileDeliveryWriter"]


@define
class FileDeliveryWriter:
    """Writes one delivery below one folder.

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
    path_of = folder.path_of(shape.name)
    if folder.kind(shape.name) != "file":
        raise muxly.ConflictError(f"{path_of} is not a file; move it away")
    fd = folder.open_file(shape.name)
    with os.fdopen(fd, "rb") as file, failures_at(path_of, "read"):
        try:
            found = shape.encoding.digest_in(file)
        except ValueError as error:
            raise muxly.ConflictError(f"{path_of} is there already, {error}; move it away") from error
    if found is not None and found != digest:
        raise muxly.ConflictError(
            f"{path_of} is there already with other content (digest {found}, not {digest}) and is not overwritten"
        )
    return found is not None
