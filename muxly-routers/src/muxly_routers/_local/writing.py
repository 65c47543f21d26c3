"""One delivery as files: encoded into drafts, and published when all of them are durable."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import define, field, frozen

import muxly
from muxly_routers._local.draft import Draft
from muxly_routers._local.encoded import EncodedFile
from muxly_routers._local.failures import failures_at

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly_routers._formats import Encoder, Encoding
    from muxly_routers._local.encoded import EncodedFiles
    from muxly_routers._local.folder import Folder
    from muxly_routers._local.work import Work
    from muxly_routers._partitions import Folders, Partitions

__all__ = ["Shape", "Writing"]

# Each open file has a descriptor and records that wait; more folders are written in further passes.
_OPEN_FILES = 48
_WAITING_BYTES = 16 * 1024 * 1024


@frozen
class Shape:
    """What the files of a delivery look like.

    Args:
        encoding: The format with its settings.
        partitions: How records are sorted into folders.
        name: The name of each file in its folder.
        most_folders: How many folders one delivery may have.
    """

    encoding: Encoding
    partitions: Partitions
    name: str
    most_folders: int


@frozen
class _OpenFile:
    draft: Draft
    encoder: Encoder


@define
class Writing:
    """Writes one delivery below one folder.

    Args:
        work: Where the drafts lie.
        base: The folder below which the files go.
        shape: What they look like.
        delivery: The records.
        shared: Files of other routes.
    """

    work: Work
    base: Folder
    shape: Shape
    delivery: muxly.Delivery
    shared: EncodedFiles
    nonfinite: int = 0
    _open: dict[Folders, _OpenFile] = field(factory=dict, init=False)
    _settled: dict[Folders, Draft] = field(factory=dict, init=False)
    _there: set[Folders] = field(factory=set, init=False)

    def run(self) -> set[Folders]:
        """Write and publish; nothing stays behind when it fails.

        Returns:
            The folders, below ``base``, that hold records of the delivery.
        """
        schema = self.shape.partitions.schema(self.delivery.schema)
        try:
            if self.shape.partitions.keys:
                self._encode_folders(schema)
            else:
                self._encode_one(schema)
            self._publish()
        finally:
            self._discard()
        return set(self._settled) | self._there

    def _encode_one(self, schema: pa.Schema) -> None:
        """All records into one file, or the same bytes from another route."""
        batches = (batch for batch in self.delivery.batches() if batch.num_rows)
        first = next(batches, None)
        if first is None or self._is_there(()):
            return
        key = (self.delivery.digest, self.delivery.delivered, self.shape.encoding, schema.serialize().to_pybytes())
        file = self.shared.find(key)
        try:
            if file is not None:
                self._copy(file)
                return
            self._write((), first, schema)
            for batch in batches:
                self._write((), batch, schema)
            before = self.nonfinite
            kept = self._settle((), keep=True)
            assert kept is not None
            self.shared.keep(key, EncodedFile.of(kept, self.nonfinite - before))
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

    def _encode_folders(self, schema: pa.Schema) -> None:
        """Each folder's records into its own file, in as many passes as it takes."""
        while self._one_pass(schema):
            pass

    def _one_pass(self, schema: pa.Schema) -> bool:
        """Write as many folders as may be open; whether there are more."""
        left_out = False
        for batch in self.delivery.batches():
            for folders, rows in self.shape.partitions.split(batch):
                if not rows.num_rows or folders in self._settled or self._is_there(folders):
                    continue
                if folders not in self._open and len(self._open) >= _OPEN_FILES:
                    left_out = True
                    continue
                self._write(folders, rows, schema)
        for folders in list(self._open):
            self._settle(folders)
        return left_out

    def _write(self, folders: Folders, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        file = self._open.get(folders)
        if file is None:
            self._check_count()
            file = self._open[folders] = self._new_file(schema)
        file.encoder.write(batch)
        if sum(one.encoder.pending_bytes for one in self._open.values()) > _WAITING_BYTES:
            max(self._open.values(), key=lambda one: one.encoder.pending_bytes).encoder.flush()

    def _new_file(self, schema: pa.Schema) -> _OpenFile:
        draft = self.work.draft()
        try:
            return _OpenFile(draft, self.shape.encoding.open(schema, draft, digest=self.delivery.digest))
        except BaseException:
            draft.discard()
            raise

    def _check_count(self) -> None:
        if len(self._open) + len(self._settled) + len(self._there) >= self.shape.most_folders:
            raise muxly.RouteError(
                f"partition_by makes more than {self.shape.most_folders} folders of one delivery; "
                "choose a coarser key, such as month(column), or raise max_folders"
            )

    def _settle(self, folders: Folders, *, keep: bool = False) -> int | None:
        file = self._open[folders]
        file.encoder.finish()
        self.nonfinite += file.encoder.nonfinite
        kept = file.draft.settle(keep=keep)
        self._settled[folders] = self._open.pop(folders).draft
        return kept

    def _is_there(self, folders: Folders) -> bool:
        """Whether an earlier attempt has published this folder's file.

        Raises:
            ConflictError: The name is taken by another content.
        """
        if folders in self._there:
            return True
        if folders in self._open or not self.base.has(folders):
            return False
        with self.base.walk(folders) as folder:
            if folder.kind(self.shape.name) is None:
                return False
            there = _has_digest(folder, self.shape, self.delivery.digest)
        if there:
            self._there.add(folders)
        return there

    def _publish(self) -> None:
        for folders, draft in self._settled.items():
            with self.base.walk(folders, make=True, sync=False) as folder:
                draft.publish(folder, self.shape.name)
        # Also those that were there: the attempt that wrote them may have ended before this.
        written = {*self._settled, *self._there}
        for way in {folders[:depth] for folders in written for depth in range(len(folders) + 1)}:
            with self.base.walk(way) as folder:
                folder.sync()

    def _discard(self) -> None:
        for draft in [*self._settled.values(), *(file.draft for file in self._open.values())]:
            with contextlib.suppress(muxly.MuxlyError):
                draft.discard()
        self._open.clear()


def _has_digest(folder: Folder, shape: Shape, digest: str) -> bool:
    """Whether a file says that it has this content; False where the format has no place for that.

    Raises:
        ConflictError: It says otherwise.
    """
    place = folder.place(shape.name)
    if folder.kind(shape.name) != "file":
        raise muxly.ConflictError(f"{place} is not a file; move it away")
    fd = folder.open_file(shape.name)
    with os.fdopen(fd, "rb") as file, failures_at(place, "read"):
        try:
            found = shape.encoding.digest_in(file)
        except ValueError as error:
            raise muxly.ConflictError(f"{place} is there already, {error}; move it away") from error
    if found is not None and found != digest:
        raise muxly.ConflictError(
            f"{place} is there already with other content (digest {found}, not {digest}) and is not overwritten"
        )
    return found is not None
