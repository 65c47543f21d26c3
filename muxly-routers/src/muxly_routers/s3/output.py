"""The place below which an opened router writes: what each mode does there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._claims import Claims
from muxly_routers._files import layout
from muxly_routers._files.partitions import Partitions, overwrite_keys, value_folders
from muxly_routers._files.sorting import Shape
from muxly_routers._formats.encoding import has_ending
from muxly_routers._nonfinite import Nonfinite
from muxly_routers.s3.manifest import Generations
from muxly_routers.s3.metadata import Notes
from muxly_routers.s3.publish import Publishing
from muxly_routers.s3.upload_slots import Lanes
from muxly_routers.s3.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers._files.layout import PartitionKey
    from muxly_routers._files.partitions import Folders
    from muxly_routers.s3.bucket import Bucket
    from muxly_routers.s3.publish import Conditions
    from muxly_routers.s3.settings import Settings

__all__ = ["Output"]

_CURRENT = "current"


class Output:
    """An open place in a bucket.

    Args:
        bucket: The bucket.
        conditions: What is known about its store.
    """

    def __init__(self, bucket: Bucket, conditions: Conditions) -> None:
        self._bucket, self._run = bucket, bucket.run
        self._settings: Settings = bucket.settings
        self._publishing = Publishing(bucket, conditions)
        self._lanes = Lanes(self._settings.uploads)
        self._notes = Notes(bucket)
        self._notes.sweep()
        self._claims = self._run.shared(f"muxly_routers.s3.claims.{self._run.id}", Claims)
        self._nonfinite = Nonfinite(self._run)
        self._begun: set[tuple[str, int]] = set()

    def deliver(self, delivery: muxly.Delivery) -> None:
        """Write a delivery as its mode wants it."""
        folder = self._folder(delivery.stream)
        if delivery.mode == "append":
            self._writing(delivery, folder, self._settings.keys).run()
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
        self._lanes.close()

    def _generations(self, stream: muxly.Stream) -> Generations:
        return Generations(self._bucket, self._publishing, self._folder(stream), stream.name)

    def _grow(self, delivery: muxly.Delivery, folder: str) -> None:
        assert delivery.generation is not None, "a delivery in mode replace has a generation"
        generations = self._generations(delivery.stream)
        seen = (folder, delivery.generation)
        if seen not in self._begun:
            self._claim(folder)
            generations.check_begun(delivery.generation)
            self._begun.add(seen)
        self._writing(delivery, generations.folder(delivery.generation), self._settings.keys).run()

    def _overwrite(self, delivery: muxly.Delivery, folder: str) -> None:
        """Write the objects of each value in place of those before, then delete what is no more."""
        keys = overwrite_keys(delivery.stream, self._settings.keys)
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

    def _stale(self, folder: str, units: Iterable[Folders], kept: set[str]) -> list[str]:
        """The objects of some values that are not to stay.

        Raises:
            RouteError: Something is there that this router did not write.
        """
        keys = [one.key for unit in units for one in self._bucket.below(f"{folder}{'/'.join(unit)}/")]
        for key in keys:
            if not has_ending(key):
                raise muxly.RouteError(
                    f"{self._bucket.place(key.rpartition('/')[0])} is to be replaced, but {self._bucket.place(key)} is "
                    "not a file of this router; move it away, or give the route another prefix"
                )
        return [key for key in keys if key not in kept]

    def _writing(self, delivery: muxly.Delivery, folder: str, keys: tuple[PartitionKey, ...]) -> Writing:
        settings = self._settings
        replacing = delivery.mode == "overwrite"
        # A value has one object, always under the same key, so that one request replaces it.
        name = _CURRENT if replacing else delivery.id
        names = {"delivery": name, "stream": delivery.stream.name, "pipeline": self._run.pipeline}
        shape = Shape(
            settings.encoding,
            Partitions(keys, settings.keep_columns),
            layout.rendered(settings.file_name, names) + settings.encoding.suffix,
            settings.most_folders,
        )
        return Writing(
            self._bucket,
            self._publishing,
            self._notes,
            self._lanes,
            self._nonfinite,
            shape,
            delivery,
            folder,
            replacing=replacing,
        )

    def _folder(self, stream: muxly.Stream) -> str:
        folders = layout.stream_folder(self._settings.folder, stream.name, self._run.pipeline)
        return f"{self._settings.prefix}{'/'.join(folders)}/"

    def _claim(self, folder: str) -> None:
        if not self._claims.take(self._bucket.place(folder), self._settings):
            raise muxly.RouteError(
                f"{self._bucket.place(folder)} is replaced by another route of this pipeline too; give each route a "
                "prefix of its own"
            )
