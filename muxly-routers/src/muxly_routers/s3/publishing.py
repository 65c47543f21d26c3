"""Conditional writes, and the objects of the router's own that depend on them: journal and manifest.

An object is created only where nothing is, or replaces exactly the object that was seen before. Stores that do
not know conditions are found out once in a process, and are asked what is there instead.

The manifest of a stream that is replaced says which generation readers see, and which one grows. It is one small
object, only ever changed under the condition that it still is what was read. So an older generation can never
take the place of a newer one, however late its requests arrive.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import field, frozen

import muxly
from muxly_routers._files import layout
from muxly_routers.s3 import failures
from muxly_routers.s3.bucket import Bucket, StoredObject

__all__ = ["ConditionalSupport", "Manifest", "NAME", "Publisher", "RouteJournal", "S3Generations", "WORK"]

WORK = ".muxly/"
_CREATE = {"IfNoneMatch": "*"}


class RouteJournal:
    """Small objects in which a route remembers the uploads that it began, and its last deliveries.

    They lie in ``.muxly`` below the prefix, named by pipeline and route, so that each route looks after its own.

    Args:
        bucket: Where they lie.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._run = bucket, bucket.run
        names = (layout.slug(self._run.pipeline), layout.slug(self._run.route or "route"))
        self._folder = f"{bucket.settings.prefix}{WORK}{'/'.join(names)}/"
        self._last: dict[str, tuple[str, str]] = {}

    def sweep(self) -> None:
        """Abort the uploads that older runs began and did not end."""
        try:
            for note in list(self._bucket.list_below(f"{self._folder}uploads/")):
                token = note.key.rpartition("/")[2].partition("-")[0]
                if token.isdecimal() and int(token) < self._run.token:
                    self._abort_noted(note.key)
        except muxly.RouteError as error:
            # Delivering needs less rights than sweeping, and is worth more.
            self._run.notice(
                muxly.Notice("uploads_not_swept", f"uploads that an older run left unfinished may stay: {error}")
            )

    def _abort_noted(self, note: str) -> None:
        content = self._bucket.get(note)
        if content is not None:
            self._abort_all(content[0].decode(errors="replace"))
            self._bucket.delete(note)

    def _abort_all(self, key: str) -> None:
        for upload in self._bucket.uploads(key):
            self._bucket.abort_upload(key, upload)

    def upload_begins(self, key: str) -> None:
        """Note an upload before it begins, so that whatever happens to it, a later run finds it."""
        try:
            self._put(self._upload(key), key, conditional=True)
        except (failures.ChangedError, failures.UnsupportedError):
            # An earlier attempt of this delivery ended without ending its upload.
            self._abort_all(key)
            self._put(self._upload(key), key, conditional=False)

    def upload_ended(self, key: str) -> None:
        """Forget an upload that was ended or aborted."""
        self._bucket.delete(self._upload(key))

    def _upload(self, key: str) -> str:
        return f"{self._folder}uploads/{self._run.token:012d}-{layout.text_hash(key, size=12)}"

    def record_delivery(self, stream: str, delivery: muxly.Delivery) -> bool:
        """Note which delivery of a stream begins; the one before is forgotten.

        A delivery may have objects in any folder, so that one with another content under the same id
        would find nothing in its way.

        Returns:
            Whether it has begun before.

        Raises:
            ConflictError: It has begun with another content.
        """
        key = f"{self._folder}last/{delivery.mode}/{layout.slug(stream)}"
        now = (layout.slug(delivery.id), layout.slug(delivery.digest))
        before = self._last.get(key) or self._read(key)
        if before[0] == now[0] and before[1] != now[1]:
            raise muxly.ConflictError(
                f"delivery {delivery.id} was written with another content before; it is not written again"
            )
        if before != now:
            self._put(key, " ".join(now), conditional=False)
        self._last[key] = now
        return before == now

    def _read(self, key: str) -> tuple[str, str]:
        content = self._bucket.get(key)
        id, _space, digest = content[0].decode(errors="replace").partition(" ") if content else ("", "", "")
        return id, digest

    def _put(self, key: str, text: str, *, conditional: bool) -> None:
        self._bucket.put(key, self._bucket.payload(text.encode()), {}, _CREATE if conditional else {})


class ConditionalSupport:
    """What is known about a store's conditional requests; thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.supported: bool | None = None


class Publisher:
    """Publishes objects in a bucket.

    The answer to a request may be lost although the store did what it was asked for. So a condition that does not hold
    is no failure yet: the object may be our own, from the request whose answer was lost or from an earlier attempt.

    Args:
        bucket: The bucket.
        conditions: What is known about its store.
    """

    def __init__(self, bucket: Bucket, conditions: ConditionalSupport) -> None:
        self._bucket, self._conditions = bucket, conditions

    def create(self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]) -> None:
        """Publish where nothing is yet; what is there already with our content is as good.

        Args:
            key: Of the object.
            facts: That its content is known by.
            send: Publishes under a condition.

        Raises:
            ConflictError: Something else is there.
        """
        if self.conditional():
            try:
                send(_CREATE)
            except failures.ChangedError:
                self._check_content(self._bucket.head(key), key, facts)
            except failures.UnsupportedError:
                self._note_unconditional()
                self._create_unconditionally(key, facts, send)
        else:
            self._create_unconditionally(key, facts, send)

    def _create_unconditionally(
        self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]
    ) -> None:
        if not self.is_published(key, facts):
            send({})

    def has(self, key: str, facts: Mapping[str, str]) -> bool:
        """Whether an object is there with our content, and not another or none."""
        stored = self._bucket.head(key)
        return stored is not None and stored.has_facts(facts)

    def is_published(self, key: str, facts: Mapping[str, str]) -> bool:
        """Whether an object is there with our content.

        Raises:
            ConflictError: Something else is there.
        """
        stored = self._bucket.head(key)
        if stored is not None:
            self._check_content(stored, key, facts)
        return stored is not None

    def _check_content(self, stored: StoredObject | None, key: str, facts: Mapping[str, str]) -> None:
        if stored is None:
            raise muxly.RetryableError(f"{self._bucket.uri(key)} was there, and is gone again")
        if not stored.has_facts(facts):
            raise muxly.ConflictError(
                f"{self._bucket.uri(key)} is there already with other content, and is not overwritten; move it "
                "away, or give the route another prefix"
            )

    def replace(self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]) -> None:
        """Publish in place of what is there, and of nothing that comes there meanwhile.

        Raises:
            RetryableError: Something else came there meanwhile.
        """
        stored = self._bucket.head(key)
        if stored is not None and stored.has_facts(facts):
            return
        if not self.conditional():
            send({})
            return
        try:
            send({"IfMatch": stored.etag} if stored is not None else _CREATE)
        except failures.ChangedError as error:
            if not self.has(key, facts):
                raise muxly.RetryableError(f"somebody else wrote {self._bucket.uri(key)} meanwhile") from error
        except failures.UnsupportedError:
            self._note_unconditional()
            send({})

    def conditional(self) -> bool:
        """Whether the store keeps conditions; a store that may not is tried once in a process."""
        with self._conditions.lock:
            if self._conditions.supported is None:
                self._conditions.supported = self._bucket.is_of_aws or self._probe()
                if not self._conditions.supported:
                    self._notify()
            return self._conditions.supported

    def _probe(self) -> bool:
        """Ask for an object not to be overwritten; a store that ignores conditions does so without a word."""
        key = f"{self._bucket.settings.prefix}{WORK}probe"
        try:
            for _ in range(2):
                self._bucket.put(key, self._bucket.payload(b"may be deleted\n"), {}, _CREATE)
        except failures.ChangedError:
            return True
        except failures.UnsupportedError:
            pass
        return False

    def _note_unconditional(self) -> None:
        with self._conditions.lock:
            if self._conditions.supported:
                self._conditions.supported = False
                self._notify()

    def _notify(self) -> None:
        self._bucket.run.notice(
            muxly.Notice(
                "no_conditional_writes",
                f"the store of bucket {self._bucket.settings.bucket} does not support If-None-Match: a repeat checks "
                "whether its object is there before it writes the same bytes; let nobody else write below the prefix",
            )
        )


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
            document = json.loads(content)
            objects = tuple((str(entry["key"]), int(entry["bytes"])) for entry in document.pop("objects"))
            if document.pop("version") != 1:
                raise ValueError("its version is not 1")
            return cls(**document, objects=objects)
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
                "read the stream again with --full-refresh"
            )

    def complete(self, generation: int) -> None:
        """Show a generation in place of the one before, and delete the objects of all older ones."""
        self.check_begun(generation)
        objects = tuple((stored.key, stored.size) for stored in self._bucket.list_below(self.folder(generation)))

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
        stored = self._bucket.get(self._key)
        if stored is None:
            return self._none, None
        try:
            manifest = Manifest.from_bytes(stored[0])
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
        return manifest, stored[1]

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
        stored: list[StoredObject] = list(self._bucket.list_below(f"{self._folder}{_FOLDER}"))
        self._bucket.delete_all([entry.key for entry in stored if unwanted(self._number(entry.key))])

    def _number(self, key: str) -> int:
        text = key.removeprefix(f"{self._folder}{_FOLDER}").partition("/")[0]
        return int(text) if text.isdecimal() else 1 << 62
