"""The prefix below which an opened router writes: its modes, and the writing of a delivery."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import wait
from types import TracebackType
from typing import Self

from attrs import define, field

import muxly
from muxly_routers._deliveries import NonfiniteNotices, ReplacementClaims
from muxly_routers._files import layout
from muxly_routers._files.layout import PartitionKey
from muxly_routers._files.partitions import FileShape, FolderPath, PartitionEncoder, overwrite_keys, value_folders
from muxly_routers._formats.encoding import has_ending
from muxly_routers.s3.bucket import Bucket
from muxly_routers.s3.drafts import ObjectBuffer, ObjectDraft, TemporarySpool, UploadSlots
from muxly_routers.s3.publishing import ConditionalSupport, Publisher, RouteJournal, S3Generations

__all__ = ["S3DeliveryWriter", "S3Output"]

_CURRENT = "current"


class S3Output:
    """An open prefix in a bucket.

    Args:
        bucket: The bucket.
        conditions: What is known about its store.
    """

    def __init__(self, bucket: Bucket, conditions: ConditionalSupport) -> None:
        self._bucket, self._run = bucket, bucket.run
        self._settings = bucket.settings
        self._publisher = Publisher(bucket, conditions)
        self._slots = UploadSlots(self._settings.uploads)
        self._journal = RouteJournal(bucket)
        self._journal.sweep()
        self._claims = self._run.shared(f"muxly_routers.s3.claims.{self._run.id}", ReplacementClaims)
        self._nonfinite = NonfiniteNotices(self._run)
        self._begun: set[tuple[str, int]] = set()

    def deliver(self, delivery: muxly.Delivery) -> None:
        """Write a delivery as its mode wants it."""
        folder = self._folder(delivery.stream)
        if delivery.mode == "append":
            self._writing(delivery, folder, self._settings.files.keys).run()
        elif delivery.mode == "replace":
            self._grow(delivery, folder)
        else:
            self._overwrite(delivery, folder)

    def begin(self, stream: muxly.Stream, generation: int) -> None:
        """Make room for a generation of a stream."""
        folder = self._folder(stream)
        self._claim(folder)
        self._generations(stream).begin(generation)

    def complete(self, stream: muxly.Stream, generation: int) -> None:
        """Show a generation of a stream."""
        self._generations(stream).complete(generation)

    def close(self) -> None:
        """Wait for what is on its way."""
        self._slots.close()

    def _generations(self, stream: muxly.Stream) -> S3Generations:
        return S3Generations(self._bucket, self._publisher, self._folder(stream), stream.name)

    def _grow(self, delivery: muxly.Delivery, folder: str) -> None:
        assert delivery.generation is not None, "a delivery in mode replace has a generation"
        generations = self._generations(delivery.stream)
        seen = (folder, delivery.generation)
        if seen not in self._begun:
            self._claim(folder)
            generations.check_begun(delivery.generation)
            self._begun.add(seen)
        self._writing(delivery, generations.folder(delivery.generation), self._settings.files.keys).run()

    def _overwrite(self, delivery: muxly.Delivery, folder: str) -> None:
        """Write the objects of each value in place of those before, then delete what is no more."""
        keys = overwrite_keys(delivery.stream, self._settings.files.keys)
        depth = len(delivery.stream.overwrite_key)
        self._claim(folder)
        writing = self._writing(delivery, folder, keys)
        with writing:
            writing.encode()
            units = {folders[:depth] for folders in writing.folders}
            units |= {value_folders(values, keys[:depth], delivery.schema) for values in delivery.replaces}
            stale = self._stale(folder, sorted(units), {writing.key(folders) for folders in writing.folders})
            writing.publish()
            self._bucket.delete_all(stale)

    def _stale(self, folder: str, units: Iterable[FolderPath], supported: set[str]) -> list[str]:
        """The objects of some values that are not to stay.

        Raises:
            RouteError: Something is there that this router did not write.
        """
        keys = [stored.key for unit in units for stored in self._bucket.list_below(f"{folder}{'/'.join(unit)}/")]
        for key in keys:
            if not has_ending(key):
                raise muxly.RouteError(
                    f"{self._bucket.uri(key.rpartition('/')[0])} is to be replaced, but {self._bucket.uri(key)} is "
                    "not a file of this router; move it away, or give the route another prefix"
                )
        return [key for key in keys if key not in supported]

    def _writing(self, delivery: muxly.Delivery, folder: str, keys: tuple[PartitionKey, ...]) -> S3DeliveryWriter:
        settings = self._settings
        replacing = delivery.mode == "overwrite"
        # A value has one object, always under the same key, so that one request replaces it.
        name = _CURRENT if replacing else delivery.id
        names = {"delivery": name, "stream": delivery.stream.name, "pipeline": self._run.pipeline}
        shape = FileShape.of(settings.files, keys, names)
        return S3DeliveryWriter(
            self._bucket,
            self._publisher,
            self._journal,
            self._slots,
            self._nonfinite,
            shape,
            delivery,
            folder,
            replacing=replacing,
        )

    def _folder(self, stream: muxly.Stream) -> str:
        folders = self._settings.files.stream_folder(stream.name, self._run.pipeline)
        return f"{self._settings.prefix}{'/'.join(folders)}/"

    def _claim(self, folder: str) -> None:
        if not self._claims.take(self._bucket.uri(folder), self._settings):
            raise muxly.RouteError(
                f"{self._bucket.uri(folder)} is replaced by another route of this pipeline too; give each route a "
                "prefix of its own"
            )


_LONGEST_KEY_BYTES = 1024
_MEMORY_BYTES = 16 * 1024 * 1024
_FOLDER_MEMORY_BYTES = 256 * 1024


@define(eq=False)
class S3DeliveryWriter:
    """Writes one delivery below one folder; a context manager that leaves nothing half done behind.

    Everything is encoded, and large objects are sent in parts, before the first object is published; nobody sees any
    of it until then. An upload is noted in the journal before it begins, so that a later run finds and aborts it if
    this process dies. Publishing is one conditional request for each object. A crash between two of them leaves some
    objects published; the repeat finds them by their keys and what is kept with them.

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
        key = f"{self.folder}{''.join(f'{name}/' for name in folders)}{self.shape.name}"
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
        self.nonfinite.report(self.delivery.stream.name, self._nonfinite_count)

    def publish(self) -> None:
        """Publish all objects, several at a time."""
        if len(self._drafts) == 1:
            for draft in self._drafts.values():
                self._publish(draft)
            return
        sending = [self.slots.send(self._publish, draft) for draft in self._drafts.values()]
        wait(sending)
        for request in sending:
            request.result()

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
