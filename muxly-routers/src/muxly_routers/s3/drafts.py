"""Objects while they are written: buffered in memory and a temporary file, and sent in parts when they grow large."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import muxly
from muxly_routers._failures import failures_at
from muxly_routers.s3 import failures
from muxly_routers.s3.bucket import Bucket, Checksum, Checksummer, Payload
from muxly_routers.s3.publishing import RouteJournal

__all__ = ["ObjectBuffer", "ObjectDraft", "TemporarySpool", "UploadSlots"]

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
        for part in self._sending:
            part.result()

    def end(self, condition: Mapping[str, str]) -> None:
        """Let the parts be the object."""
        parts = [part.result() for part in self._sending]
        try:
            self._bucket.end_upload(self._key, self._id, parts, condition)
        except (failures.AbsentError, muxly.RetryableError) as error:
            # The store may have done it, and only its answer was lost.
            stored = self._bucket.head(self._key)
            if stored is None or not stored.has_facts(self._facts):
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


_READ_BYTES = 256 * 1024
_WRITTEN_AT_ONCE = 1024 * 1024
_NEXT_STEP = "make room there, let TMPDIR name another folder, or make the route's batch smaller"

Extents = list[tuple[int, int]]


def _failures(doing: str) -> AbstractContextManager[None]:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = "any of the folders for temporary files"
    return failures_at(folder, doing, step=_NEXT_STEP)


class TemporarySpool:
    """A temporary file without a name, made at first use, which is gone with the process."""

    def __init__(self) -> None:
        self._fd = -1
        self._size = 0

    def put(self, view: memoryview) -> tuple[int, int]:
        """Append bytes; where they are."""
        start, size = self._size, len(view)
        with _failures("keep what is to be sent in"):
            if self._fd < 0:
                with tempfile.TemporaryFile(prefix="muxly-s3-") as file:
                    self._fd = os.dup(file.fileno())
            while view:
                view = view[os.pwrite(self._fd, view, start + size - len(view)) :]
        self._size = start + size
        return start, size

    def read(self, start: int, size: int) -> bytes:
        """Bytes that were put."""
        with _failures("read what is to be sent from"):
            return os.pread(self._fd, size, start)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = -1, 0


class ObjectBuffer:
    """The bytes of one object.

    Args:
        spool: Where they go when there are too many.
        memory_bytes: How many stay in memory.
        checksum: Which checksum is wanted of them.
    """

    def __init__(self, spool: TemporarySpool, memory_bytes: int, checksum: Checksum) -> None:
        self._spool, self._memory_bytes = spool, memory_bytes
        self._waiting = bytearray()
        self._extents: Extents = []
        self._checksum = checksum
        self.size = 0

    def write(self, view: memoryview) -> None:
        """Take bytes."""
        self.size += len(view)
        large = len(view) >= min(self._memory_bytes, _WRITTEN_AT_ONCE)
        if large or len(self._waiting) + len(view) > self._memory_bytes:
            self._pass_on()  # what came before must stand before
        if large:
            self._extents.append(self._spool.put(view))
        else:
            self._waiting += view

    def _pass_on(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._extents.append(self._spool.put(memoryview(waiting)))

    def payload(self) -> Payload:
        """All of it, to be sent; nothing is written any more."""
        digest = Checksummer(self._checksum)
        for block in self.blocks():
            digest.add(block)
        if not self._extents:
            whole = self._waiting
            return Payload(lambda: whole, self.size, digest.value())
        spool, extents, size = self._spool, self._extents, self.size
        return Payload(lambda: _SpoolReader(spool, extents, size), size, digest.value())

    def blocks(self) -> Iterator[bytes | bytearray]:
        """All of it, a block at a time; nothing is written any more."""
        if not self._extents:
            yield self._waiting
            return
        self._pass_on()
        for start, size in self._extents:
            for offset in range(start, start + size, _READ_BYTES):
                yield self._spool.read(offset, min(_READ_BYTES, start + size - offset))


class _SpoolReader(io.RawIOBase):
    """A file to read from, put together from extents of a spool."""

    def __init__(self, spool: TemporarySpool, extents: Extents, size: int) -> None:
        self._spool, self._extents, self._size = spool, extents, size
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        More than asked for where little is asked: an HTTP connection asks for 16 KiB at a time, and sends
        whatever it is given, so that a large object would take ten times the calls.
        """
        wanted = self._size if size is None or size < 0 else max(size, _READ_BYTES)
        blocks: list[bytes] = []
        while wanted > 0 and (block := self._some(wanted)):
            blocks.append(block)
            self._at += len(block)
            wanted -= len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _some(self, most: int) -> bytes:
        before = 0
        for start, size in self._extents:
            if self._at < before + size:
                offset = self._at - before
                return self._spool.read(start + offset, min(most, size - offset))
            before += size
        return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def __len__(self) -> int:
        return self._size


P = ParamSpec("P")
T = TypeVar("T")


class UploadSlots:
    """Threads that send; who has more to send than there are waits, and so keeps no more in memory.

    Args:
        count: How many requests are made at a time.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._threads = ThreadPoolExecutor(count, "muxly-s3")

    def send(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Make a request as soon as there is a free slot; returns when it begins."""
        self._free.acquire()
        sending = self._threads.submit(request, *args, **kwargs)
        sending.add_done_callback(lambda _: self._free.release())
        return sending

    def close(self) -> None:
        """Wait for what is on its way."""
        self._threads.shutdown()
