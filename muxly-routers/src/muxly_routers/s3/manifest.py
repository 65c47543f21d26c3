"""The manifest of a stream that is replaced: which generation readers see, and which one grows.

It is one small object, only ever changed under the condition that it still is what was read. So an
older generation can never take the place of a newer one, however late its requests arrive.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

import muxly
from muxly_routers.s3 import failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly_routers.s3.bucket import Bucket, StoredObject
    from muxly_routers.s3.publish import Publisher

__all__ = ["NAME", "S3Generations", "Manifest"]

NAME = "_manifest.json"
_FOLDER = "generation-"
_TRIES = 5
_NUMBER = attrs.validators.optional(attrs.validators.instance_of(int))


@frozen(kw_only=True)
class Manifest:
    """What the object holds.

    Args:
        pipeline: Whose stream it is.
        stream: The stream's name.
        generation: The one that readers see; None before the first is complete.
        growing: The newest that was begun.
        objects: The keys of the visible generation, each with its bytes.
    """

    pipeline: str
    stream: str
    generation: int | None = field(default=None, validator=_NUMBER)
    growing: int | None = field(default=None, validator=_NUMBER)
    objects: tuple[tuple[str, int], ...] = field(default=(), converter=tuple[tuple[str, int], ...])

    @property
    def newest(self) -> int:
        """The newest generation that is known; 0 without one."""
        return max(self.generation or 0, self.growing or 0)

    def to_bytes(self) -> bytes:
        """As JSON; equal manifests give equal bytes."""
        content: dict[str, Any] = attrs.asdict(self)
        content["objects"] = [{"key": key, "bytes": size} for key, size in self.objects]
        return json.dumps({"version": 1, **content}, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """What ``to_bytes`` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            found = json.loads(content)
            objects = tuple((str(one["key"]), int(one["bytes"])) for one in found.pop("objects"))
            if found.pop("version") != 1:
                raise ValueError("its version is not 1")
            return cls(**found, objects=objects)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


class S3Generations:
    """The generations of one stream.

    Args:
        bucket: Where they lie.
        publisher: Of that bucket.
        folder: What the keys of the stream begin with, up to a slash.
        stream: The stream's name.
    """

    def __init__(self, bucket: Bucket, publisher: Publisher, folder: str, stream: str) -> None:
        self._bucket, self._publisher, self._folder = bucket, publisher, folder
        self._key = f"{folder}{NAME}"
        self._none = Manifest(pipeline=bucket.run.pipeline, stream=stream)

    def folder(self, generation: int) -> str:
        """What the keys of a generation begin with."""
        return f"{self._folder}{_FOLDER}{generation:06d}/"

    def begin(self, generation: int) -> None:
        """Say that a generation grows, and delete what older ones that never became whole left behind."""

        def begun(manifest: Manifest) -> Manifest:
            self._refuse_older(manifest, generation)
            return manifest if manifest.newest == generation else attrs.evolve(manifest, growing=generation)

        visible = self._change(begun).generation
        self._delete(lambda number: number < generation and number != visible)

    def check_begun(self, generation: int) -> None:
        """Make sure that records may be added to a generation.

        Raises:
            ConflictError: A newer one was begun.
            RouteError: It was not begun, or its manifest has been removed since.
        """
        manifest, _etag = self._read()
        self._refuse_older(manifest, generation)
        if manifest.newest != generation:
            raise muxly.RouteError(
                f"{self._bucket.uri(self._key)}, in which generation {generation} was begun, is not as it was; "
                "read the stream anew with --full-refresh"
            )

    def complete(self, generation: int) -> None:
        """Show a generation in place of the one before, and delete the objects of all older ones."""
        self.check_begun(generation)
        objects = tuple((one.key, one.size) for one in self._bucket.list_below(self.folder(generation)))

        def completed(manifest: Manifest) -> Manifest:
            self._refuse_older(manifest, generation)
            return attrs.evolve(manifest, generation=generation, growing=None, objects=objects)

        self._change(completed)
        self._delete(lambda number: number < generation)

    def _refuse_older(self, manifest: Manifest, generation: int) -> None:
        if manifest.newest > generation:
            raise muxly.ConflictError(
                f"{self._bucket.uri(self._key)} knows generation {manifest.newest}, and generation {generation} is "
                "older; if the store was restored from a copy, delete the objects below "
                f"{self._bucket.uri(self._folder)}"
            )

    def _read(self) -> tuple[Manifest, str | None]:
        found = self._bucket.get(self._key)
        if found is None:
            return self._none, None
        try:
            manifest = Manifest.from_bytes(found[0])
        except ValueError as error:
            raise muxly.RouteError(
                f"{self._bucket.uri(self._key)} is not a manifest of this router ({error}); move it away, or give "
                "the route another prefix"
            ) from error
        if manifest.pipeline != self._none.pipeline or manifest.stream != self._none.stream:
            raise muxly.RouteError(
                f"{self._bucket.uri(self._key)} belongs to the stream {manifest.stream!r} of the pipeline "
                f"{manifest.pipeline!r}; give the route another prefix or folder"
            )
        return manifest, found[1]

    def _change(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Change the manifest, again from the start if somebody else did meanwhile."""
        for _ in range(_TRIES):
            before, etag = self._read()
            after = change(before)
            if after == before and etag is not None:
                return after
            condition = {"IfMatch": etag} if etag is not None else {"IfNoneMatch": "*"}
            try:
                self._put(after, condition if self._publisher.conditional() else {})
            except failures.ChangedError:
                continue
            return after
        raise muxly.RetryableError(f"{self._bucket.uri(self._key)} was changed by somebody else again and again")

    def _put(self, manifest: Manifest, condition: dict[str, str]) -> None:
        self._bucket.put(self._key, self._bucket.payload(manifest.to_bytes()), {}, condition)

    def _delete(self, unwanted: Callable[[int], bool]) -> None:
        found: list[StoredObject] = list(self._bucket.list_below(f"{self._folder}{_FOLDER}"))
        self._bucket.delete_all([one.key for one in found if unwanted(self._number(one.key))])

    def _number(self, key: str) -> int:
        text = key.removeprefix(f"{self._folder}{_FOLDER}").partition("/")[0]
        return int(text) if text.isdecimal() else 1 << 62
