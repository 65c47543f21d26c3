"""The contract of routers: delivering records to one kind of destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from attrs import define, field, frozen

from muxly.batch import Rejected
from muxly.component import Component
from muxly.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Delivery", "DeliverySource", "Mode", "Promise", "Receipt", "Router", "sequence_number"]

T = TypeVar("T")

Mode = Literal["append", "upsert", "overwrite", "replace"]
Promise = Literal["effectively_once", "at_least_once", "idempotent"]

_NUMBER_BITS = 32


def sequence_number(position: int, number: int) -> int:
    """Where a record stands in its stream's log, as one number that grows along the log.

    Args:
        position: Of its segment; below 2**31.
        number: Of the record in the segment, from 0; below 2**32.
    """
    return position << _NUMBER_BITS | number


def _rejected(value: Iterable[Rejected]) -> tuple[Rejected, ...]:
    return tuple(value)


@frozen
class Receipt:
    """What a router answers when a delivery is durable at the destination.

    Args:
        rejected: Records that the destination refused, each with its ``index`` in the
            delivery; all others are delivered.
        state: Kept with the acknowledgement and given back as ``Delivery.state`` of the next
            delivery of this route and stream; JSON values, at most 1 MiB. None = unchanged.
    """

    rejected: tuple[Rejected, ...] = field(default=(), converter=_rejected)
    state: Any = field(default=None, kw_only=True)


@frozen(kw_only=True, eq=False)
class DeliverySource:
    """The runner's side of a delivery: its records, where they stand in the log, and who keeps its marks.

    Routers use it through the methods of ``Delivery``; tests get one from ``muxly_testing.delivery``.

    Args:
        batches: Makes all batches of the delivery, from its first record, the same at every call.
        positions: Makes the position in the stream's log of each of those batches.
        sequences: Makes the sequence numbers of the records of each of those batches; None = counted
            through the delivery, from 0 at its position.
        bounds: As in ``Delivery.bounds``.
        on_mark: Makes a mark durable; given the number of records delivered in all.
    """

    batches: Callable[[], Iterator[pa.RecordBatch]]
    positions: Callable[[], Iterable[int]] = lambda: repeat(0)
    sequences: Callable[[], Iterable[pa.Int64Array]] | None = None
    bounds: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    on_mark: Callable[[int], None] = lambda count: None


@define(eq=False)
class Delivery:
    """Consecutive segments of one stream handed to one route, under one id.

    The same id always brings the same records in the same order and batches, also after a
    crash, in another process, and however often it is tried.

    Args:
        id: A ULID; the name to give to what is written, so that a repeat is recognised.
        digest: Names the content: the segments, the slice, and the route's columns and filter.
        stream: The stream, with the keys that the mode needs.
        schema: The Arrow schema of all batches.
        mode: How the records are to be applied.
        generation: Which full read they belong to; None outside ``replace``.
        replaces: For ``overwrite``: values of the stream's overwrite key to replace, also
            where no record carries them any more; always tuples, one value per key column.
        state: The state of this route and stream as its last receipt left it.
        delivered: How many records of it are delivered already; ``batches`` starts after them.
        source: The runner's side; a test calls ``muxly_testing.delivery`` instead.
    """

    id: str
    digest: str
    stream: Stream
    schema: pa.Schema
    mode: Mode = field(default="append", kw_only=True)
    generation: int | None = field(default=None, kw_only=True)
    replaces: tuple[tuple[Any, ...], ...] = field(default=(), kw_only=True)
    state: Any = field(default=None, kw_only=True)
    delivered: int = field(default=0, kw_only=True)
    source: DeliverySource = field(kw_only=True, repr=False)

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where in the log it begins and ends, before the route's filter.

        Each is a position and a number of records of the segment there: a segment may be cut.
        """
        return self.source.bounds

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The records as Arrow batches; may be called again, and then starts after ``delivered``."""
        return (batch for _position, batch in self.positioned())

    def all_batches(self) -> Iterator[pa.RecordBatch]:
        """All batches of the delivery, also of records that are delivered already.

        For routers whose requests depend on how the records before them were divided.
        """
        return self.source.batches()

    def positioned(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches, each with the position of its segment in the stream's log."""
        for position, batch, skip in self._left(self.source.positions()):
            yield position, batch.slice(skip) if skip else batch

    def sequenced(self) -> Iterator[tuple[pa.Int64Array, pa.RecordBatch]]:
        """The batches, each with the sequence number of every record: where it stands in the stream's log.

        For ``upsert``: of two records with one key and equal ``cursor_field`` the greater number
        wins, in whatever order deliveries arrive; a replay brings old numbers again. The number is
        ``sequence_number`` of the segment's position and the record's number in the segment.
        """
        numbers = self._counted() if self.source.sequences is None else self.source.sequences()
        for sequences, batch, skip in self._left(numbers):
            yield sequences.slice(skip), batch.slice(skip)

    def _left(self, of_batches: Iterable[T]) -> Iterator[tuple[T, pa.RecordBatch, int]]:
        """The batches that are not wholly delivered, each with its fact and with how many of its records are.

        Args:
            of_batches: A fact of every batch, in their order.
        """
        skip = self.delivered
        for fact, batch in zip(of_batches, self.source.batches(), strict=False):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield fact, batch, skip
            skip = 0

    def _counted(self) -> Iterator[pa.Int64Array]:
        import pyarrow as pa

        count = 0
        for position, batch in zip(self.source.positions(), self.source.batches(), strict=False):
            first = sequence_number(position, count)
            yield pa.arange(first, first + batch.num_rows)
            count += batch.num_rows

    def table(self) -> pa.Table:
        """All records after ``delivered`` as one Arrow table."""
        import pyarrow as pa

        return pa.Table.from_batches(list(self.batches()), schema=self.schema)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records after ``delivered`` one by one, for row-shaped destinations only."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def mark(self, count: int) -> None:
        """Keep, durably, that the first ``count`` records of the delivery are delivered.

        Raises:
            ValueError: ``count`` is below what was marked before.
        """
        if count < self.delivered:
            raise ValueError(f"{count} records marked after {self.delivered}")
        self.source.on_mark(count)
        self.delivered = count


class Router(Component):
    """Delivers records to one kind of destination. One method makes one: ``deliver``.

    Order of calls in a run: ``open``; ``deliver`` for each delivery of a stream in the order of
    its log; ``close``. All calls to one instance come from one thread at a time; where
    ``concurrency`` is above 1 the runner opens that many copies, for different streams.
    After any error but ``RejectedError`` the router is closed and opened before the next attempt.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"append"})
    """Which modes it has: any of append, upsert, overwrite, replace."""

    promise: ClassVar[Promise] = "at_least_once"
    """What holds after crashes and repeats; a router that declares it passes its conformance tests."""

    concurrency: ClassVar[int] = 1
    """How many streams one route delivers at the same time, each with its own opened copy."""

    def deliver(self, delivery: Delivery) -> Receipt | None:
        """Deliver all records, and return only when all of them are durable at the destination.

        Called again with the same id after a crash or a retryable error: a destination that
        has it already answers as before.

        Returns:
            None = everything was delivered.

        Raises:
            RetryableError: Tried again, same id, with back-off.
            RejectedError: Some record is bad: split until it is found.
            StreamError: This stream stops on the route, its others go on.
            RouteError: This route stops, the others go on.
            ConflictError: The destination holds this id with other content.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method deliver(self, delivery)")

    def begin(self, stream: Stream, generation: int) -> None:
        """``replace`` only: a new full read starts; what is visible stays visible.

        May be repeated. Drops what older, never completed generations left behind.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mode replace")

    def complete(self, stream: Stream, generation: int) -> None:
        """``replace`` only: the generation is whole; make it the visible one. May be repeated.

        Raises:
            ConflictError: A newer generation is visible already.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mode replace")
