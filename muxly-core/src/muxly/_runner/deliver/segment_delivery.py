"""A delivery of sealed segments: opened, filtered, cut to its bounds, and named by a digest."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from attrs import evolve

from muxly._runner import fingerprint
from muxly._runner.context import RunContext
from muxly._runner.deliver.selection import Selection
from muxly._runner.schema import evolution
from muxly.batch import Rejected
from muxly.errors import CorruptSegmentError, StreamError
from muxly.pipeline import Columns, Route
from muxly.router import Delivery, DeliverySource, sequence_number
from muxly.spool import MappedSegment, read_segment, verify
from muxly.store import log
from muxly.store.rows import Letter, StoredDelivery, StoredSegment
from muxly.stream import Stream


class DamagedSegmentError(CorruptSegmentError):
    """A segment of a delivery is damaged.

    Args:
        message: What is wrong with it.
        segment: Which one.
    """

    def __init__(self, message: str, segment: StoredSegment) -> None:
        super().__init__(message)
        self.segment = segment


class SegmentDelivery:
    """The records of one stored delivery, the same at every attempt.

    Args:
        context: The run.
        stored: The delivery as the ledger keeps it.
        route: Its route as it is configured now; the stored columns and filter count.
        stream: Its stream, with the keys the mode needs.

    Raises:
        DamagedSegmentError: A segment is missing or not what was sealed.
        ConfigurationError: The route's columns or filter do not fit the stream.
    """

    def __init__(self, context: RunContext, stored: StoredDelivery, route: Route, stream: Stream) -> None:
        self.stored = stored
        self._context = context
        self._segments = log.segments_of(context.ledger, stored)
        self._mapped = [self._opened(segment) for segment in self._segments if segment.file is not None]
        self._schema = self._newest_schema()
        self.selection = selection_of(stored, route, self._schema, stream)
        self._masks = []
        found = 0
        for batch in self._raw():
            found += batch.num_rows
            self._masks.append(self.selection.mask(batch))
        if found != stored.records:
            raise StreamError(
                f"the delivery {stored.id} of stream {stored.stream!r} has {stored.records} records, but the spool "
                f"holds only {found} of them; `muxly state set` reads them again"
            )
        self.filtered = sum(mask.false_count for mask in self._masks if mask is not None)
        self.count = stored.records - self.filtered

    def _opened(self, segment: StoredSegment) -> tuple[StoredSegment, MappedSegment]:
        """A segment's bytes; checked against their digest unless this process sealed them."""
        assert segment.file is not None
        try:
            mapped = self._context.spool.open(segment.file, segment.offset, segment.length)
            if not self._context.log.is_from_here(segment.key):
                verify(mapped, segment.digest, f"{segment.stream} at position {segment.position}")
        except CorruptSegmentError as error:
            raise DamagedSegmentError(str(error), segment) from error
        return segment, mapped

    def _newest_schema(self) -> pa.Schema:
        version = max((segment.schema_version for segment in self._segments), default=0)
        content = log.schema_of(self._context.ledger, self.stored.stream, version)
        return pa.schema([]) if content is None else evolution.schema_from_bytes(content)

    def _raw(self) -> Iterator[pa.RecordBatch]:
        """The batches before filters, cut to the delivery's bounds, in its newest schema."""
        for segment, mapped in self._mapped:
            begin = self.stored.first_offset if segment.position == self.stored.first_position else 0
            end = self.stored.last_offset if segment.position == self.stored.last_position else segment.records
            for batch in read_segment(mapped, begin, end):
                yield self._fitted(batch, segment)

    def _fitted(self, batch: pa.RecordBatch, segment: StoredSegment) -> pa.RecordBatch:
        """A batch in the delivery's schema; segments of one whole group may have several."""
        try:
            return evolution.fit(batch, self._schema)
        except evolution.ConflictingTypesError as error:
            name, position = segment.stream, segment.position
            raise StreamError(
                f"the group of stream {name!r} at position {position} has conflicting column types: {error}; "
                f"`muxly segments drop {name} {position}` discards it, `muxly state set` reads it again"
            ) from error

    def batches(self, on_batch: Callable[[], None] = lambda: None) -> Iterator[pa.RecordBatch]:
        """The batches as the router gets them.

        Args:
            on_batch: Called before each of them.
        """
        for batch, mask in zip(self._raw(), self._masks, strict=True):
            selected = self.selection.apply(batch, mask)
            if selected.num_rows:
                on_batch()
                yield selected

    def positions(self) -> Iterator[int]:
        """The log position of each of those batches."""
        for (segment, _start), batch, mask in zip(self._places(), self._raw(), self._masks, strict=True):
            if batch.num_rows if mask is None else mask.true_count:
                yield segment.position

    def sequences(self) -> Iterator[pa.Int64Array]:
        """The sequence numbers of the records of each of those batches; a filter leaves gaps."""
        for (segment, start), batch, mask in zip(self._places(), self._raw(), self._masks, strict=True):
            first = sequence_number(segment.position, start)
            numbers = pa.arange(first, first + batch.num_rows)
            kept = numbers if mask is None else numbers.filter(mask)
            if len(kept):
                yield kept

    @property
    def digest(self) -> str:
        """Names the content: segments, bounds, columns and filter; never the encoded bytes."""
        bounds = f"{self.stored.first_offset}:{self.stored.last_offset}"
        contents = [segment.digest or segment.key for segment in self._segments]
        return fingerprint.of_parts([*contents, bounds, self.selection.digest_part])

    @property
    def replaces(self) -> tuple[tuple[Any, ...], ...]:
        """Values of the overwrite key, of the groups before filters."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(segment.replaces for segment in self._segments)))

    def delivery(self, state: Any, *, on_mark: Callable[[int], None], on_batch: Callable[[], None]) -> Delivery:
        """The delivery that the router is given.

        Args:
            state: What the last acknowledged receipt brought back.
            on_mark: Called with the number of records that the router marks as delivered.
            on_batch: Called whenever the router takes a batch.
        """
        mode = self.stored.options["mode"]
        return Delivery(
            self.stored.id,
            self.digest,
            self.selection.stream,
            self.selection.schema,
            mode=mode,
            generation=self.stored.generation if mode == "replace" else None,
            replaces=self.replaces if mode == "overwrite" else (),
            state=state,
            delivered=self.stored.marked,
            source=DeliverySource(
                batches=partial(self.batches, on_batch),
                positions=self.positions,
                sequences=self.sequences,
                bounds=(
                    (self.stored.first_position, self.stored.first_offset),
                    (self.stored.last_position, self.stored.last_offset),
                ),
                on_mark=on_mark,
            ),
        )

    def halves(self) -> list[StoredDelivery]:
        """The delivery in two parts of equally many records after filters."""
        return self._cut_at(self._raw_index(self.count // 2))

    def delivered_and_rest(self) -> list[StoredDelivery]:
        """The part that is marked as delivered, and the part that is not."""
        head, rest = self._cut_at(self._raw_index(self.stored.marked))
        return [evolve(head, marked=self.stored.marked), evolve(rest, marked=0)]

    def _raw_index(self, number: int) -> int:
        """Where the record of that number after filters stands before filters."""
        seen = before = 0
        for batch, mask in zip(self._raw(), self._masks, strict=True):
            kept = batch.num_rows if mask is None else mask.true_count
            if number < seen + kept:
                return before + _nth_kept(mask, number - seen)
            seen, before = seen + kept, before + batch.num_rows
        return before

    def _cut_at(self, index: int) -> list[StoredDelivery]:
        """Two parts: so many records before filters, and the rest."""
        whole = self.stored
        position, offset, left = whole.first_position, whole.first_offset, index
        for segment in self._segments:
            start = whole.first_offset if segment.position == whole.first_position else 0
            if left <= segment.records - start:
                position, offset = segment.position, start + left
                break
            left -= segment.records - start
        head = evolve(whole, last_position=position, last_offset=offset, records=index)
        rest = evolve(whole, first_position=position, first_offset=offset, records=whole.records - index)
        return [head, rest]

    def letters(self, rejected: Iterable[Rejected]) -> list[Letter]:
        """Dead letters of records that the destination refused: a copy, its place, the reason."""
        found = sorted(rejected, key=lambda one: one.index if one.index is not None else -1)
        kept = {segment.index: segment.reason for segment in found}
        return list(self._copies(kept))

    def _copies(self, reasons: dict[int | None, str]) -> Iterator[Letter]:
        refused = sorted(number for number in reasons if number is not None)
        if not refused:
            return
        seen = 0
        places = self._places()
        for batch, mask in zip(self._raw(), self._masks, strict=True):
            segment, start = next(places)
            numbers = range(batch.num_rows) if mask is None else _kept_numbers(mask)
            first, end = (bisect_left(refused, limit) for limit in (seen, seen + len(numbers)))
            for number in refused[first:end]:
                row = numbers[number - seen]
                yield Letter(
                    stream=self.stored.stream,
                    reason=reasons[number],
                    position=segment.position,
                    number=start + row,
                    record=_one_record(batch, row),
                    format="arrow",
                )
            seen += len(numbers)

    def _places(self) -> Iterator[tuple[StoredSegment, int]]:
        """For each raw batch, its segment and the number of its first record there."""
        for segment, mapped in self._mapped:
            begin = self.stored.first_offset if segment.position == self.stored.first_position else 0
            end = self.stored.last_offset if segment.position == self.stored.last_position else segment.records
            at = begin
            for batch in read_segment(mapped, begin, end):
                yield segment, at
                at += batch.num_rows


def selection_of(stored: StoredDelivery, route: Route, schema: pa.Schema, stream: Stream) -> Selection:
    """What the delivery selects: as the route was configured when the delivery was stored."""
    options = stored.options
    columns = Columns(include=options["include"], exclude=options["exclude"], rename=options["rename"])
    return Selection.of(evolve(route, columns=columns, where=options["where"]), schema, stream, options["mode"])


def _nth_kept(mask: pa.BooleanArray | None, number: int) -> int:
    return number if mask is None else _kept_numbers(mask)[number]


def _kept_numbers(mask: pa.BooleanArray) -> Sequence[int]:
    import pyarrow.compute as pc

    numbers: list[int] = pc.indices_nonzero(mask).to_pylist()
    return numbers


def _one_record(batch: pa.RecordBatch, row: int) -> bytes:
    """One record as an Arrow IPC stream of its own."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(batch.slice(row, 1).to_pylist(), schema=batch.schema))
    return bytes(sink.getvalue())
