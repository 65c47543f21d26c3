"""A delivery of dead letters that a replay asked for, outside the order of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from attrs import evolve

from muxly._runner import fingerprint
from muxly._runner.context import RunContext
from muxly._runner.deliver.segment_delivery import selection_of
from muxly._runner.schema import evolution
from muxly.batch import Rejected
from muxly.pipeline import Route
from muxly.router import Delivery, DeliverySource, sequence_number
from muxly.store import dead_letters, log
from muxly.store.rows import Letter, StoredDelivery
from muxly.stream import Stream


class MixedTypesError(Exception):
    """The letters of a delivery have types that no schema holds: they died before and after a column changed its type.

    Args:
        parts: The delivery in two, which may each have one.
    """

    def __init__(self, parts: list[StoredDelivery]) -> None:
        super().__init__("no schema holds all letters of the delivery")
        self.parts = parts


class DeadLetterDelivery:
    """Dead letters, prepared to be delivered again outside the log's order.

    Args:
        context: The run.
        stored: The delivery that names them.
        route: Its route.
        stream: Their stream.

    Raises:
        MixedTypesError: No schema holds all of them.
    """

    def __init__(self, context: RunContext, stored: StoredDelivery, route: Route, stream: Stream) -> None:
        self.stored = stored
        self.filtered = 0
        self.count = stored.records
        found = {letter.id: letter for letter in dead_letters.waiting(context.ledger, ids=stored.letters)}
        self._letters = [found[name] for name in stored.letters]
        newest = log.newest_schema(context.ledger, stored.stream)
        schema = None if newest is None else evolution.schema_from_bytes(newest[1])
        self._table = self._joined([_fitted(_record_of(letter.letter), schema) for letter in self._letters])
        self.selection = selection_of(stored, route, self._table.schema, stream)

    def _joined(self, tables: list[pa.Table]) -> pa.Table:
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise MixedTypesError(self.halves()) from error

    def delivery(self, state: Any, *, on_mark: Callable[[int], None], on_batch: Callable[[], None]) -> Delivery:
        """The delivery that the router is given; the arguments are those of ``SegmentDelivery.delivery``."""

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self._table.to_batches():
                on_batch()
                yield self.selection.project(batch)

        return Delivery(
            self.stored.id,
            fingerprint.of_parts([*self.stored.letters, self.selection.digest_part]),
            self.selection.stream,
            self.selection.schema,
            mode=self.stored.options["mode"],
            state=state,
            delivered=self.stored.marked,
            source=DeliverySource(
                batches=batches,
                positions=lambda: [letter.letter.position or 0 for letter in self._letters],
                sequences=lambda: [_sequence_of(letter.letter) for letter in self._letters],
                on_mark=on_mark,
            ),
        )

    def halves(self) -> list[StoredDelivery]:
        """The delivery in two parts of equally many letters."""
        return self._cut_at(self.count // 2)

    def delivered_and_rest(self) -> list[StoredDelivery]:
        """The part that is marked as delivered, and the part that is not."""
        head, rest = self._cut_at(self.stored.marked)
        return [part for part in (evolve(head, marked=self.stored.marked), evolve(rest, marked=0)) if part.records]

    def _cut_at(self, index: int) -> list[StoredDelivery]:
        pieces = self.stored.letters[:index], self.stored.letters[index:]
        starts = self.stored.first_offset, self.stored.first_offset + index
        return [
            evolve(self.stored, letters=piece, records=len(piece), first_offset=start)
            for piece, start in zip(pieces, starts, strict=True)
        ]

    def letters(self, rejected: Iterable[Rejected]) -> list[Letter]:
        """The letters that were refused once more, with the new reason."""
        reasons = {rejection.index: rejection.reason for rejection in rejected}
        return [
            evolve(letter.letter, reason=reasons[number])
            for number, letter in enumerate(self._letters)
            if number in reasons
        ]


def _record_of(letter: Letter) -> pa.Table:
    return pa.ipc.open_stream(letter.record).read_all()


def _sequence_of(letter: Letter) -> pa.Int64Array:
    return pa.array([sequence_number(letter.position or 0, letter.number or 0)], pa.int64())


def _fitted(table: pa.Table, schema: pa.Schema | None) -> pa.Table:
    """A letter's record in the stream's schema of today, if it fits."""
    try:
        return table if schema is None else evolution.fit(table, schema)
    except evolution.ConflictingTypesError:
        return table
