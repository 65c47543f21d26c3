"""One delivery as objects: encoded into drafts, and published when all of them are whole."""

from __future__ import annotations

import contextlib
from concurrent.futures import wait
from typing import TYPE_CHECKING, Self

from attrs import define, field

import muxly
from muxly_routers._files import layout
from muxly_routers._files.sorting import Sorting
from muxly_routers.s3.buffers import Buffer, Spool
from muxly_routers.s3.draft import Draft

if TYPE_CHECKING:
    from types import TracebackType

    from muxly_routers._files.partitions import Folders
    from muxly_routers._files.sorting import Shape
    from muxly_routers._nonfinite import Nonfinite
    from muxly_routers.s3.bucket import Bucket
    from muxly_routers.s3.metadata import Notes
    from muxly_routers.s3.publish import Publishing
    from muxly_routers.s3.upload_slots import Lanes

__all__ = ["Writing"]

_LONGEST_KEY_BYTES = 1024
_MEMORY_BYTES = 16 * 1024 * 1024
_FOLDER_MEMORY_BYTES = 256 * 1024


@define(eq=False)
class Writing:
    """Writes one delivery below one folder; a context manager that leaves nothing half done behind.

    Args:
        bucket: Where the objects go.
        publishing: Of that bucket.
        notes: Of that route.
        lanes: Send several objects and parts at a time.
        nonfinite: Is told what became null.
        shape: What the objects look like.
        delivery: The records.
        folder: What all keys begin with, up to a slash.
        replacing: Whether its objects take the place of others of the same keys.
    """

    bucket: Bucket
    publishing: Publishing
    notes: Notes
    lanes: Lanes
    nonfinite: Nonfinite
    shape: Shape
    delivery: muxly.Delivery
    folder: str
    replacing: bool = False
    _spool: Spool = field(factory=Spool, init=False)
    _drafts: dict[Folders, Draft] = field(factory=dict, init=False)
    _there: set[Folders] = field(factory=set, init=False)
    _begun_before: bool = field(default=False, init=False)
    _nonfinite_count: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for draft in self._drafts.values():
            with contextlib.suppress(muxly.MuxlyError):
                draft.discard()
        self._spool.close()

    def run(self) -> None:
        """Encode everything, then publish it."""
        with self:
            self.encode()
            self.publish()

    @property
    def folders(self) -> set[Folders]:
        """The folders that hold records of the delivery."""
        return {*self._drafts, *self._there}

    @property
    def facts(self) -> dict[str, str]:
        """What is kept with each object of the delivery."""
        return {
            "muxly-delivery": layout.slug(self.delivery.id),
            "muxly-digest": layout.slug(self.delivery.digest),
        }

    def key(self, folders: Folders) -> str:
        """The key of the object of some folders.

        Raises:
            RouteError: It would be longer than S3 allows.
        """
        key = f"{self.folder}{''.join(f'{one}/' for one in folders)}{self.shape.name}"
        if len(key.encode()) > _LONGEST_KEY_BYTES:
            raise muxly.RouteError(
                f"the key {key[:80]}... would be longer than {_LONGEST_KEY_BYTES} bytes; use fewer levels in "
                "partition_by, or a shorter prefix"
            )
        return key

    def encode(self) -> None:
        """Encode all records; nobody sees any of them yet."""
        schema = self.shape.partitions.schema(self.delivery.schema)
        if self.shape.partitions.keys:
            self._begun_before = self.notes.remember(self.delivery.stream.name, self.delivery)
        sorting: Sorting[Draft] = Sorting(self.shape, self.delivery, self)
        sorting.run(schema)
        self._there = sorting.there
        self.nonfinite.tell(self.delivery.stream.name, self._nonfinite_count)

    def publish(self) -> None:
        """Publish all objects, several at a time."""
        if len(self._drafts) == 1:
            for draft in self._drafts.values():
                self._publish(draft)
            return
        sending = [self.lanes.send(self._publish, draft) for draft in self._drafts.values()]
        wait(sending)
        for one in sending:
            one.result()

    def _publish(self, draft: Draft) -> None:
        publish = self.publishing.replace if self.replacing else self.publishing.create
        publish(draft.key, self.facts, draft.publish)

    def draft(self, folders: Folders) -> Draft:
        """A new draft for an object."""
        memory = _FOLDER_MEMORY_BYTES if self.shape.partitions.keys else _MEMORY_BYTES
        buffer = Buffer(self._spool, memory, self.bucket.settings.checksum)
        self._drafts[folders] = Draft(self.bucket, self.key(folders), self.facts, buffer, self.notes, self.lanes)
        return self._drafts[folders]

    def settle(self, folders: Folders, draft: Draft, nonfinite: int) -> None:
        """Take back a whole draft; it is published with the others."""
        self._nonfinite_count += nonfinite
        draft.settle()

    def is_there(self, folders: Folders) -> bool:
        """Whether an earlier attempt has published this object.

        A delivery that was not begun before is not looked for: its request to publish finds out.
        """
        if not self._begun_before:
            return False
        is_there = self.publishing.has if self.replacing else self.publishing.is_there
        return is_there(self.key(folders), self.facts)
