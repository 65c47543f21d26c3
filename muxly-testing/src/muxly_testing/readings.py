"""Reading a connector as the runner does, for comparing one reading with another."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.batch import Batch
from muxly.errors import StreamUnavailableError
from muxly_testing.expectations import expect, hashable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from muxly.batch import Cursor
    from muxly.connector import Connector, Partition, Plan
    from muxly.stream import Stream

Key = tuple[str, Any]
"""A record's stream, and the record in a form that can be counted."""


@frozen(eq=False)
class Read:
    """A batch as it was read, with its records."""

    batch: Batch
    stream: str
    records: list[dict[str, Any]]

    @property
    def counts(self) -> Counter[Key]:
        """How often each record is in it."""
        return Counter((self.stream, hashable(record)) for record in self.records)


def read(connector: Connector, stream: Stream, partition: Partition, cursor: Cursor) -> Iterator[Read]:
    """One reading of a partition; each batch is checked on its way."""
    for batch in connector.read(stream, partition, copy.deepcopy(cursor)):
        expect(isinstance(batch, Batch), "read yields muxly.Batch objects", batch)
        name = stream.name if batch.stream is None else batch.stream
        yield Read(batch, name, batch.to_arrow(stream.schema)[0].to_pylist())


def all_records(connector: Connector, stream: Stream, plan: Plan) -> Counter[Key]:
    """The records of all partitions of a plan."""
    return total(one for part in plan.partitions for one in read(connector, stream, part, part.cursor))


def total(reads: Iterable[Read]) -> Counter[Key]:
    """The records of several batches."""
    counts: Counter[Key] = Counter()
    for one in reads:
        counts.update(one.counts)
    return counts


def planned(connector: Connector, cursor: Cursor = None) -> Iterator[tuple[Stream, Plan]]:
    """Every stream that is there and has no parent, with its plan."""
    for stream in list(connector.streams()):
        if stream.parent is None:
            try:
                yield stream, connector.plan(stream, cursor)
            except StreamUnavailableError:
                continue


def cursor_after(plan: Plan, last: Mapping[str, Cursor]) -> Cursor:
    """What the stream's cursor becomes when the plan is done, as ``Plan.cursor`` says."""
    if plan.cursor is not None:
        return plan.cursor
    known = {part.id: last.get(part.id) for part in plan.partitions if last.get(part.id) is not None}
    if len(plan.partitions) == 1:
        return next(iter(known.values()), None)
    return known or None


def boundary(stream: Stream, reads: Iterable[Read]) -> Counter[Key]:
    """The records that may come again after these: those within the lookback of the greatest cursor value."""
    field, counts = stream.cursor_field, Counter[Key]()
    if field is None:
        return counts
    kept = list(reads)
    values = [record[field] for one in kept for record in one.records if record.get(field) is not None]
    if not values:
        return total(kept)
    limit = _limit(max(values), stream)
    for one in kept:
        for record in one.records:
            if one.stream != stream.name or _reaches(record.get(field), limit):
                counts[one.stream, hashable(record)] += 1
    return counts


def _limit(greatest: Any, stream: Stream) -> Any:
    try:
        return greatest if stream.lookback is None else greatest - stream.lookback
    except TypeError:
        return None


def _reaches(value: Any, limit: Any) -> bool:
    return limit is None or (value is not None and value >= limit)
