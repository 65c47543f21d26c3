"""One object while it is written: in a buffer first, and sent in parts when it grows large."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers.s3 import failures
from muxly_routers.s3.buffers import ObjectBuffer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly_routers.s3.bucket import Bucket
    from muxly_routers.s3.metadata import RouteJournal
    from muxly_routers.s3.upload_slots import UploadSlots

__all__ = ["ObjectDraft"]

_MOST_PARTS = 10_000

Facts = dict[str, str]


class ObjectDraft:
    """An object that nobody sees before it is published; a sink for an encoder.

    Args:
        bucket: Where it goes.
        key: Its key.
        facts: Kept with it.
        buffer: Holds its bytes while they are few.
        journal: Of uploads.
        slots: Send parts.
    """

    closed = False

    def __init__(
        self, bucket: Bucket, key: str, facts: Facts, buffer: ObjectBuffer, journal: RouteJournal, slots: UploadSlots
    ) -> None:
        self._bucket, self.key, self._facts = bucket, key, facts
        self._buffer, self._journal, self._slots = buffer, journal, slots
        self._size = 0
        self._upload: _MultipartUpload | None = None
        self._discarded = False

    def write(self, buffer: Any, /) -> int:
        """Take bytes; dropped once the draft is discarded, so that writers can be closed quietly."""
        view = memoryview(buffer).cast("B")
        if self._discarded:
            return len(view)
        self._size += len(view)
        if self._upload is None and self._size <= self._bucket.settings.single_put_bytes:
            self._buffer.write(view)
            return len(view)
        if self._upload is None:
            self._upload = _MultipartUpload(self._bucket, self.key, self._facts, self._journal, self._slots)
            for block in self._buffer.blocks():
                self._upload.write(memoryview(block))
        self._upload.write(view)
        return len(view)

    def tell(self) -> int:
        """How many bytes were taken."""
        return self._size

    def flush(self) -> None:
        """Part of being a file; bytes are sent when there are enough, or at the end."""

    def close(self) -> None:
        """Part of being a file; only ``publish`` and ``discard`` end a draft."""

    def settle(self) -> None:
        """Send what can be sent before the object is seen."""
        if self._upload is not None:
            self._upload.finish()

    def publish(self, condition: Mapping[str, str]) -> None:
        """Let the object be seen, in one step.

        Args:
            condition: Of the request.

        Raises:
            ChangedError: The condition does not hold.
            UnsupportedError: The store knows no conditions.
        """
        if self._upload is None:
            self._bucket.put(self.key, self._buffer.payload(), self._facts, condition)
        else:
            self._upload.end(condition)

    def discard(self) -> None:
        """Leave nothing behind but what was published."""
        self._discarded = True
        if self._upload is not None:
            self._upload.abort()


class _MultipartUpload:
    """An upload in parts, a few of which are on their way while the next are made."""

    def __init__(self, bucket: Bucket, key: str, facts: Facts, journal: RouteJournal, slots: UploadSlots) -> None:
        self._bucket, self._key, self._facts, self._journal, self._slots = bucket, key, facts, journal, slots
        self._waiting = bytearray()
        self._sending: list[Future[dict[str, Any]]] = []
        self._failure: Exception | None = None
        self._open = True
        journal.upload_begins(key)
        self._id = bucket.begin_upload(key, facts)

    def write(self, view: memoryview) -> None:
        """Take bytes, and send each part that is full."""
        size = self._bucket.settings.part_bytes
        while len(view) >= (room := size - len(self._waiting)):
            self._waiting += view[:room]
            view = view[room:]
            self._send()
        self._waiting += view

    def _send(self) -> None:
        if self._failure is not None:
            raise self._failure
        number = len(self._sending) + 1
        if number > _MOST_PARTS:
            raise muxly.RouteError(
                f"{self._bucket.uri(self._key)} would have more than {_MOST_PARTS} parts; raise part_bytes, "
                "or make the route's batch smaller"
            )
        content, self._waiting = self._waiting, bytearray()
        self._sending.append(self._slots.send(self._put, number, content))

    def _put(self, number: int, content: bytearray) -> dict[str, Any]:
        try:
            return self._bucket.put_part(self._key, self._id, number, self._bucket.payload(content))
        except failures.AbsentError as error:
            self._failure = muxly.RetryableError(f"the upload was aborted by somebody else: {error}")
            raise self._failure from error
        except Exception as error:
            self._failure = error
            raise

    def finish(self) -> None:
        """Send the last part, and wait for all of them."""
        if self._waiting:
            self._send()
        for one in self._sending:
            one.result()

    def end(self, condition: Mapping[str, str]) -> None:
        """Let the parts be the object."""
        parts = [one.result() for one in self._sending]
        try:
            self._bucket.end_upload(self._key, self._id, parts, condition)
        except (failures.AbsentError, muxly.RetryableError) as error:
            # The store may have done it, and only its answer was lost.
            found = self._bucket.head(self._key)
            if found is None or not found.has_facts(self._facts):
                raise muxly.RetryableError(f"not all of an upload was accepted: {error}") from error
        self._open = False
        self._journal.upload_ended(self._key)

    def abort(self) -> None:
        """Give the upload up, unless it was ended; its note stays where that fails, for a later run."""
        wait(self._sending)
        if self._open:
            self._open = False
            with contextlib.suppress(muxly.MuxlyError):
                self._bucket.abort_upload(self._key, self._id)
                self._journal.upload_ended(self._key)
