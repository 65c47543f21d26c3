"""The committer: makes finished groups durable, many at a time, and seals them in the ledger.

The order is what loses nothing. First the files: written, synced, named without overwriting, and the
folder synced. Only then one transaction of the ledger, with the positions, cursors, schema versions and
dead letters of all groups. A crash before the transaction leaves files without rows, which the next
holder of the lease sweeps; the cursor has not moved, so their records are read again. A crash after it
leaves everything. There is no moment at which the ledger names bytes that a power cut could take away.

One thread does this for all partitions, because a sync costs about the same for one group as for many.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from muxly._runner.context import RunContext
from muxly.errors import FencedError
from muxly.spool import SegmentBytes
from muxly.spool.segments import ALIGNMENT
from muxly.store import plans, seals
from muxly.store.ledger import Ledger
from muxly.store.rows import WrittenGroup, WrittenSegment
from muxly.stream import Stream

if TYPE_CHECKING:
    from muxly._runner.extract.deduplication import Boundary


GATHER_SECONDS = 0.02
GATHER_GROUPS = 500


@frozen(kw_only=True)
class FinishedGroup:
    """A group whose reading has finished, and whose segments are not durable yet.

    Args:
        group: Its row for the ledger; its segments are given their files when they are durable.
        contents: The bytes of each segment; None = no records.
        boundaries: Of each stream, the records already read at the cursor's value, by which repeats are recognized.
    """

    group: WrittenGroup
    contents: tuple[SegmentBytes | None, ...] = ()
    boundaries: tuple[tuple[Stream, Boundary], ...] = ()


class Committer:
    """Takes all groups that wait, writes small ones into one file, syncs once, seals in one transaction.

    Args:
        context: The run.
        routes_of: The routes a stream is delivered by.
        readers: How many readings are open; the committer does not wait for more groups than that.
    """

    def __init__(
        self, context: RunContext, routes_of: Callable[[str], Sequence[str]], readers: Callable[[], int]
    ) -> None:
        self._context, self._routes_of, self._readers = context, routes_of, readers
        self._boundaries = Boundaries(context.ledger)
        self._refusal: BaseException | None = None
        self._waiting: queue.SimpleQueue[tuple[FinishedGroup, Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="muxly-committer", daemon=True)

    def start(self) -> None:
        """Begin serving."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def refuse(self, error: BaseException) -> None:
        """Seal nothing that is submitted from now on."""
        self._refusal = error

    def submit(self, finished: FinishedGroup) -> Future[None]:
        """Ask for a group to be sealed; the future tells when it is, or why it is not."""
        future: Future[None] = Future()
        if self._refusal is not None:
            _discard([finished])
            future.set_exception(self._refusal)
            return future
        self._waiting.put((finished, future))
        return future

    def _serve(self) -> None:
        ended = False
        while not ended:
            gathered, ended = self._gather()
            if gathered:
                self._commit([one for one, _future in gathered], [future for _one, future in gathered])

    def _gather(self) -> tuple[list[tuple[FinishedGroup, Future[None]]], bool]:
        gathered: list[tuple[FinishedGroup, Future[None]]] = []
        until: float | None = None
        while len(gathered) < GATHER_GROUPS:
            try:
                request = self._waiting.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                return gathered, True
            gathered.append(request)
            until = until or time.monotonic() + GATHER_SECONDS
            if self._waiting.empty() and len(gathered) >= self._readers():
                break
        return gathered, False

    def _commit(self, finished: list[FinishedGroup], futures: list[Future[None]]) -> None:
        try:
            placed = zip(self._publish(finished), (group.boundaries for group in finished), strict=True)
            groups, boundaries = self._boundaries.after(placed)
            sealed = seals.seal(self._context.ledger, groups, self._routes_of)
        except BaseException as error:  # noqa: BLE001 - the readers raise it
            if isinstance(error, FencedError):
                self._context.failures.fence(error)
            _discard(finished)
            for future in futures:
                future.set_exception(error)
            return
        self._boundaries = boundaries
        self._context.log.add(sealed)
        for future in futures:
            future.set_result(None)

    def _publish(self, finished: list[FinishedGroup]) -> list[WrittenGroup]:
        """Make all segments durable, and tell each where it lies."""
        places: dict[int, tuple[str, int]] = {}
        small = [
            content for group in finished for content in group.contents if content is not None and content.draft is None
        ]
        large = [
            content
            for group in finished
            for content in group.contents
            if content is not None and content.draft is not None
        ]
        spool = self._context.spool
        for content in large:
            assert content.draft is not None
            places[id(content)] = (spool.put(content.draft), 0)
        places |= self._publish_together(small)
        if places:
            spool.sync_folder()
        return [_placed(group, places) for group in finished]

    def _publish_together(self, small: list[SegmentBytes]) -> dict[int, tuple[str, int]]:
        if not small:
            return {}
        draft = self._context.spool.draft(self._context.ledger.token)
        offsets: dict[int, int] = {}
        try:
            for content in small:
                draft.write(bytes(-draft.length % ALIGNMENT))
                offsets[id(content)] = draft.length
                for chunk in content.chunks:
                    draft.write(chunk)
        except BaseException:
            draft.discard()
            raise
        name = self._context.spool.put(draft)
        return {key: (name, offset) for key, offset in offsets.items()}


def _discard(finished: list[FinishedGroup]) -> None:
    """Close and delete the drafts of groups that are not sealed."""
    for content in (content for group in finished for content in group.contents):
        if content is not None and content.draft is not None:
            content.draft.discard()


def _placed(finished: FinishedGroup, places: dict[int, tuple[str, int]]) -> WrittenGroup:
    segments: list[WrittenSegment] = []
    for segment, content in zip(finished.group.segments, finished.contents, strict=True):
        if content is None:
            segments.append(segment)
            continue
        file, offset = places[id(content)]
        segments.append(evolve(segment, file=file, offset=offset, length=content.length, digest=content.digest))
    return evolve(finished.group, segments=tuple(segments))


class Boundaries:
    """The boundaries of each stream, for its next plan, and of each partition, for when it is resumed.

    Args:
        ledger: Asked once for each of them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._streams: dict[tuple[str, str], Boundary] = {}
        self._partitions: dict[tuple[str, int], dict[str, Boundary]] = {}

    def after(
        self, added: Iterable[tuple[WrittenGroup, Iterable[tuple[Stream, Boundary]]]]
    ) -> tuple[list[WrittenGroup], Boundaries]:
        """The boundaries after some groups are sealed, in their order; these do not change, for the seal may fail.

        Args:
            added: The groups, each with the boundary of its own records by stream.

        Returns:
            The groups with their boundaries, and what is remembered then.
        """
        then = Boundaries(self._ledger)
        then._streams, then._partitions = dict(self._streams), dict(self._partitions)
        return [then._bounded(group, list(of_streams)) for group, of_streams in added], then

    def _bounded(self, group: WrittenGroup, added: list[tuple[Stream, Boundary]]) -> WrittenGroup:
        if group.done:
            self._partitions.pop((group.plan, group.ordinal), None)
        if not added:
            return group
        reached = {stream.name: self._of_stream(group, stream, boundary) for stream, boundary in added}
        own = {} if group.done else self._of_partition(group, added)
        return evolve(
            group,
            boundaries={name: boundary.to_state() for name, boundary in reached.items()},
            own_boundaries={name: boundary.to_state() for name, boundary in own.items()},
        )

    def _of_stream(self, group: WrittenGroup, stream: Stream, added: Boundary) -> Boundary:
        from muxly._runner.extract.deduplication import (  # loads pyarrow; who made a boundary has it already
            Boundary,
            joined,
        )

        key = (stream.name, group.plan)
        before = self._streams.get(key) or Boundary.from_state(plans.boundary(self._ledger, stream.name))
        self._streams[key] = joined(before, added, stream)
        return self._streams[key]

    def _of_partition(self, group: WrittenGroup, added: list[tuple[Stream, Boundary]]) -> dict[str, Boundary]:
        from muxly._runner.extract.deduplication import Boundary, joined

        key = (group.plan, group.ordinal)
        if key not in self._partitions:
            stored = plans.own_boundaries(self._ledger, *key)
            self._partitions[key] = {name: Boundary.from_state(state) for name, state in stored.items()}
        own = dict(self._partitions[key])
        for stream, boundary in added:
            own[stream.name] = joined(own.get(stream.name, Boundary()), boundary, stream)
        self._partitions[key] = own
        return own
