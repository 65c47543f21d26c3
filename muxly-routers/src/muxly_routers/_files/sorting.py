"""The records of one delivery, encoded folder by folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from attrs import define, field, frozen

import muxly
from muxly_routers._formats import Sink

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly_routers._files.partitions import Folders, Partitions
    from muxly_routers._formats import Encoder, Encoding

__all__ = ["Drafts", "Shape", "Sorting"]

# Each open draft holds records that wait and perhaps a file; more folders are written in further passes.
_OPEN_DRAFTS = 48
_WAITING_BYTES = 16 * 1024 * 1024

D = TypeVar("D", bound=Sink)


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


class Drafts(Protocol[D]):
    """Where encoded bytes go, a draft for each folder; who gives drafts also discards them."""

    def is_there(self, folders: Folders) -> bool:
        """Whether an earlier attempt has published this folder's file; asked once for each."""

    def draft(self, folders: Folders) -> D:
        """A new, empty draft for a folder's file."""

    def settle(self, folders: Folders, draft: D, nonfinite: int) -> None:
        """Take back a draft that is whole; ``nonfinite`` of its values were written as null."""


@frozen
class _Open(Generic[D]):
    draft: D
    encoder: Encoder


@define
class Sorting(Generic[D]):
    """Sorts records into folders, and encodes each folder's into its own draft.

    Args:
        shape: What the files look like.
        delivery: The records.
        drafts: Where the bytes go.
    """

    shape: Shape
    delivery: muxly.Delivery
    drafts: Drafts[D]
    there: set[Folders] = field(factory=set, init=False)
    settled: set[Folders] = field(factory=set, init=False)
    _absent: set[Folders] = field(factory=set, init=False)
    _open: dict[Folders, _Open[D]] = field(factory=dict, init=False)

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
                if not rows.num_rows or folders in self.settled or self.is_there(folders):
                    continue
                if folders not in self._open and len(self._open) >= _OPEN_DRAFTS:
                    left_out = True
                    continue
                self.write(folders, rows, schema)
        for folders in list(self._open):
            self.finish(folders)
        return left_out

    def is_there(self, folders: Folders) -> bool:
        """Whether the file of these folders was published before."""
        if folders in self.there:
            return True
        if folders in self._absent:
            return False
        there = self.drafts.is_there(folders)
        (self.there if there else self._absent).add(folders)
        return there

    def write(self, folders: Folders, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        """Encode records into the draft of their folders."""
        if folders not in self._open:
            self._check_count()
            draft = self.drafts.draft(folders)
            encoder = self.shape.encoding.open(schema, draft, digest=self.delivery.digest)
            self._open[folders] = _Open(draft, encoder)
        self._open[folders].encoder.write(batch)
        if sum(one.encoder.pending_bytes for one in self._open.values()) > _WAITING_BYTES:
            max(self._open.values(), key=lambda one: one.encoder.pending_bytes).encoder.flush()

    def _check_count(self) -> None:
        if len(self._open) + len(self.settled) + len(self.there) >= self.shape.most_folders:
            raise muxly.RouteError(
                f"partition_by makes more than {self.shape.most_folders} folders of one delivery; "
                "choose a coarser key, such as month(column), or raise max_folders"
            )

    def finish(self, folders: Folders) -> None:
        """End the file of these folders, and give its draft back."""
        one = self._open[folders]
        one.encoder.finish()
        self.drafts.settle(folders, one.draft, one.encoder.nonfinite)
        del self._open[folders]
        self.settled.add(folders)
