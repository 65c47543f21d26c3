"""The place below which an opened router writes: what each mode does there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._claims import ReplacementClaims
from muxly_routers._files.partitions import overwrite_keys, value_folders
from muxly_routers._files.sorting import FileShape
from muxly_routers._formats.encoding import has_ending
from muxly_routers._nonfinite import NonfiniteNotices
from muxly_routers.s3.manifest import S3Generations
from muxly_routers.s3.metadata import RouteJournal
from muxly_routers.s3.publish import Publisher
from muxly_routers.s3.upload_slots import UploadSlots
from muxly_routers.s3.writing import S3DeliveryWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers._files.layout import PartitionKey
    from muxly_routers._files.partitions import FolderPath
    from muxly_routers.s3.bucket import Bucket
    from muxly_routers.s3.publish import ConditionalSupport

__all__ = ["S3Output"]

_CURRENT = "current"


class S3Output:
    """An open place in a bucket.

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
            units = {one[:depth] for one in writing.folders}
            units |= {value_folders(one, keys[:depth], delivery.schema) for one in delivery.replaces}
            stale = self._stale(folder, sorted(units), {writing.key(one) for one in writing.folders})
            writing.publish()
            self._bucket.delete_all(stale)

    def _stale(self, folder: str, units: Iterable[FolderPath], supported: set[str]) -> list[str]:
        """The objects of some values that are not to stay.

        Raises:
            RouteError: Something is there that this router did not write.
        """
        keys = [one.key for unit in units for one in self._bucket.list_below(f"{folder}{'/'.join(unit)}/")]
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
