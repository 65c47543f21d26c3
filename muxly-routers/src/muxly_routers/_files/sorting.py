"""The records of one delivery, encoded folder by folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from attrs import define, field, frozen

import muxly
from muxly_routers._files.layout import PartitionKey, rendered
from muxly_routers._files.options import FileLayout
from muxly_routers._files.partitions import FolderPath, Partitions
from muxly_routers._formats import Sink

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly_routers._formats import Encoder, Encoding

__all__ = ["DraftStore", "FileShape", "PartitionEncoder"]

# Each open draft holds records that wait and perhaps a file; more folders are written in further passes.
_OPEN_DRAFTS = 48
_WAITING_BYTES = 16 * 1024 * 1024

D = TypeVar("D", bound=Sink)


@frozen
class FileShape:
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

    @classmethod
    def of(cls, files: FileLayout, keys: tuple[PartitionKey, ...], names: Mapping[str, str], ending: str = "") -> Self:
        """The shape of one delivery's files.

        Args:
            files: The options of the route.
            keys: The levels of folders, outermost first.
            names: The delivery's id, stream and pipeline, by placeholder.
            ending: Follows the usual ending of the name.
        """
        name = rendered(files.file_name, names) + files.encoding.suffix + ending
        return cls(files.encoding, Partitions(keys, files.keep_columns), name, files.most_folders)


class DraftStore(Protocol[D]):
    """Where encoded bytes go, a draft for each folder; who gives drafts also discards them."""

    def is_published(self, folders: FolderPath) -> bool:
        """Whether an earlier attempt has published this folder's file; asked once for each."""

    def draft(self, folders: FolderPath) -> D:
        """A new, empty draft for a folder's file."""

    def settle(self, folders: FolderPath, draft: D, nonfinite: int) -> None:
        """Take back a draft that is whole; ``nonfinite`` of its values were written as null."""


@frozen
class _OpenDraft(Generic[D]):
    draft: D
    encoder: Encoder


@define
class PartitionEncoder(Generic[D]):
    """Sorts records into folders, and encodes each folder's into its own draft.

    Args:
        shape: What the files look like.
        delivery: The records.
        drafts: Where the bytes go.
    """

    shape: FileShape
    delivery: muxly.Delivery
    drafts: DraftStore[D]
    published: set[FolderPath] = field(factory=set, init=False)
    settled: set[FolderPath] = field(factory=set, init=False)
    _absent: set[FolderPath] = field(factory=set, init=False)
    _open: dict[FolderPath, _OpenDraft[D]] = field(factory=dict, init=False)

    def run(self, schema: pa.Schema) -> None:
        """Encode everything, in as many passes as it takes.

        Args:
            schema: Of the files.
        """
        while self._one_pass(schema):
            pass

    def _one_pass(self, schema: pa.Schema) -> bool:
        """Write as many folders as may be open; whether there are more."""
        left_out = False
        for batch in self.delivery.batches():
            for folders, rows in self.shape.partitions.split(batch):
                if not rows.num_rows or folders in self.settled or self.is_published(folders):
                    continue
                if folders not in self._open and len(self._open) >= _OPEN_DRAFTS:
                    left_out = True
                    continue
                self.write(folders, rows, schema)
        for folders in list(self._open):
            self.finish(folders)
        return left_out

    def is_published(self, folders: FolderPath) -> bool:
        """Whether the file of these folders was published before."""
        if folders in self.published:
            return True
        if folders in self._absent:
            return False
        published = self.drafts.is_published(folders)
        (self.published if published else self._absent).add(folders)
        return published

    def write(self, folders: FolderPath, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        """Encode records into the draft of their folders."""
        if folders not in self._open:
            self._check_count()
            draft = self.drafts.draft(folders)
            encoder = self.shape.encoding.open(schema, draft, digest=self.delivery.digest)
            self._open[folders] = _OpenDraft(draft, encoder)
        self._open[folders].encoder.write(batch)
        if sum(one.encoder.pending_bytes for one in self._open.values()) > _WAITING_BYTES:
            max(self._open.values(), key=lambda one: one.encoder.pending_bytes).encoder.flush()

    def _check_count(self) -> None:
        if len(self._open) + len(self.settled) + len(self.published) >= self.shape.most_folders:
            raise muxly.RouteError(
                f"partition_by makes more than {self.shape.most_folders} folders of one delivery; "
                "choose a coarser key, such as month(column), or raise max_folders"
            )

    def finish(self, folders: FolderPath) -> None:
        """End the file of these folders, and give its draft back."""
        one = self._open[folders]
        one.encoder.finish()
        self.drafts.settle(folders, one.draft, one.encoder.nonfinite)
        del self._open[folders]
        self.settled.add(folders)
