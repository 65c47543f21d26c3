"""One delivery as objects: encoded into drafts, and published when all of them are whole."""

from __future__ import annotations

import contextlib
from concurrent.futures import wait
from typing import TYPE_CHECKING, Self

from attrs import define, field

import muxly
from muxly_routers._files import layout
from muxly_routers._files.sorting import PartitionEncoder
from muxly_routers.s3.buffers import ObjectBuffer, TemporarySpool
from muxly_routers.s3.draft import ObjectDraft

if TYPE_CHECKING:
    from types import TracebackType

    from muxly_routers._files.partitions import FolderPath
    from muxly_routers._files.sorting import FileShape
    from muxly_routers._nonfinite import NonfiniteNotices
    from muxly_routers.s3.bucket import Bucket
    from muxly_routers.s3.metadata import RouteJournal
    from muxly_routers.s3.publish import Publisher
    from muxly_routers.s3.upload_slots import UploadSlots

__all__ = ["S3DeliveryWriter"]

_LONGEST_KEY_BYTES = 1024
_MEMORY_BYTES = 16 * 1024 * 1024
_FOLDER_MEMORY_BYTES = 256 * 1024


@define(eq=False)
class S3DeliveryWriter:
    """Writes one delivery below one folder; a context manager that leaves nothing half done behind.

    Args:
        bucket: Where the objects go.
        publisher: Of that bucket.
        journal: Of that route.
        slots: Send several objects and parts at a time.
        nonfinite: Is told what became null.
        shape: What the objects look like.
        delivery: The records.
        folder: What all keys begin with, up to a slash.
        replacing: Whether its objects take the place of others of the same keys.
    """

    bucket: Bucket
    publisher: Publisher
    journal: RouteJournal
    slots: UploadSlots
    nonfinite: NonfiniteNotices
    shape: FileShape
    delivery: muxly.Delivery
    folder: str
    replacing: bool = False
    _spool: TemporarySpool = field(factory=TemporarySpool, init=False)
    _drafts: dict[FolderPath, ObjectDraft] = field(factory=dict, init=False)
    _there: set[FolderPath] = field(factory=set, init=False)
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
    def folders(self) -> set[FolderPath]:
        """The folders that hold records of the delivery."""
        return {*self._drafts, *self._there}

    @property
    def facts(self) -> dict[str, str]:
        """What is kept with each object of the delivery."""
        return {
            "muxly-delivery": layout.slug(self.delivery.id),
            "muxly-digest": layout.slug(self.delivery.digest),
        }

    def key(self, folders: FolderPath) -> str:
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
            self._begun_before = self.journal.record_delivery(self.delivery.stream.name, self.delivery)
        sorting: PartitionEncoder[ObjectDraft] = PartitionEncoder(self.shape, self.delivery, self)
        sorting.run(schema)
        self._there = sorting.published
        self.nonfinite.tell(self.delivery.stream.name, self._nonfinite_count)

    def publish(self) -> None:
        """Publish all objects, several at a time."""
        if len(self._drafts) == 1:
            for draft in self._drafts.values():
                self._publish(draft)
            return
        sending = [self.slots.send(self._publish, draft) for draft in self._drafts.values()]
        wait(sending)
        for one in sending:
            one.result()

    def _publish(self, draft: ObjectDraft) -> None:
        publish = self.publisher.replace if self.replacing else self.publisher.create
        publish(draft.key, self.facts, draft.publish)

    def draft(self, folders: FolderPath) -> ObjectDraft:
        """A new draft for an object."""
        memory = _FOLDER_MEMORY_BYTES if self.shape.partitions.keys else _MEMORY_BYTES
        buffer = ObjectBuffer(self._spool, memory, self.bucket.settings.checksum)
        self._drafts[folders] = ObjectDraft(
            self.bucket, self.key(folders), self.facts, buffer, self.journal, self.slots
        )
        return self._drafts[folders]

    def settle(self, folders: FolderPath, draft: ObjectDraft, nonfinite: int) -> None:
        """Take back a whole draft; it is published with the others."""
        self._nonfinite_count += nonfinite
        draft.settle()

    def is_published(self, folders: FolderPath) -> bool:
        """Whether an earlier attempt has published this object.

        A delivery that was not begun before is not looked for: its request to publish finds out.
        """
        if not self._begun_before:
            return False
        is_published = self.publisher.has if self.replacing else self.publisher.is_published
        return is_published(self.key(folders), self.facts)
