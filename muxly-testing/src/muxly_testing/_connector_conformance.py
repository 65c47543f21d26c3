"""Conformance tests for connectors."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from attrs import frozen

from muxly.batch import Batch, Cursor
from muxly.component import Component
from muxly.connector import Connector, Partition, Plan
from muxly.errors import StreamUnavailableError
from muxly.stream import Stream
from muxly_testing._component_conformance import ComponentConformance
from muxly_testing._expectations import WatchedRun, cursor_problem, expect, hashable, within

__all__ = ["ConnectorConformance"]


Key = tuple[str, Any]
"""A record's stream, and the record in a form that can be counted."""


@frozen(eq=False)
class ReadBatch:
    """A batch as it was read, with its records."""

    batch: Batch
    stream: str
    records: list[dict[str, Any]]

    @property
    def counts(self) -> Counter[Key]:
        """How often each record is in it."""
        return Counter((self.stream, hashable(record)) for record in self.records)


def read_partition(connector: Connector, stream: Stream, partition: Partition, cursor: Cursor) -> Iterator[ReadBatch]:
    """Read a partition once, checking each batch as it comes."""
    for batch in connector.read(stream, partition, copy.deepcopy(cursor)):
        expect(isinstance(batch, Batch), "read yields muxly.Batch objects", batch)
        name = stream.name if batch.stream is None else batch.stream
        yield ReadBatch(batch, name, batch.to_arrow(stream.schema)[0].to_pylist())


def all_records(connector: Connector, stream: Stream, plan: Plan) -> Counter[Key]:
    """The records of all partitions of a plan."""
    return total(read for part in plan.partitions for read in read_partition(connector, stream, part, part.cursor))


def total(reads: Iterable[ReadBatch]) -> Counter[Key]:
    """The records of several batches."""
    counts: Counter[Key] = Counter()
    for read in reads:
        counts.update(read.counts)
    return counts


def planned(connector: Connector, cursor: Cursor = None) -> Iterator[tuple[Stream, Plan]]:
    """Every available stream without a parent, with its plan."""
    for stream in list(connector.streams()):
        if stream.parent is None:
            try:
                yield stream, connector.plan(stream, cursor)
            except StreamUnavailableError:
                continue


def read_all(connector: Connector) -> Iterator[tuple[Stream, Plan, ReadBatch]]:
    """Every batch of every planned stream."""
    for stream, plan in planned(connector):
        for part in plan.partitions:
            for read in read_partition(connector, stream, part, part.cursor):
                yield stream, plan, read


def cursor_after(plan: Plan, last: Mapping[str, Cursor]) -> Cursor:
    """The stream's cursor after the plan is done, as ``Plan.cursor`` defines it."""
    if plan.cursor is not None:
        return plan.cursor
    known = {part.id: last.get(part.id) for part in plan.partitions if last.get(part.id) is not None}
    if len(plan.partitions) == 1:
        return next(iter(known.values()), None)
    return known or None


def boundary(stream: Stream, reads: Iterable[ReadBatch]) -> Counter[Key]:
    """The records that may be read again after these: those within the lookback of the greatest cursor value."""
    field, counts = stream.cursor_field, Counter[Key]()
    if field is None:
        return counts
    kept = list(reads)
    values = [record[field] for read in kept for record in read.records if record.get(field) is not None]
    if not values:
        return total(kept)
    limit = _limit(max(values), stream)
    for read in kept:
        for record in read.records:
            if read.stream != stream.name or _reaches(record.get(field), limit):
                counts[read.stream, hashable(record)] += 1
    return counts


def _limit(greatest: Any, stream: Stream) -> Any:
    try:
        return greatest if stream.lookback is None else greatest - stream.lookback
    except TypeError:
        return None


def _reaches(value: Any, limit: Any) -> bool:
    return limit is None or (value is not None and value >= limit)


class ConnectorConformance(ComponentConformance):
    """Subclass it and say how your connector is made.

    ::

        class TestCountries(ConnectorConformance):
            def connector(self, tmp_path):
                return Countries(base_url=...)

    The system behind it should hold a few hundred records that do not change during a test,
    and the options should make several batches of them. Override ``broken`` to have errors tested.
    """

    resume_points: ClassVar[int] = 20
    """The greatest number of cursors of a partition from which reading is resumed."""

    def connector(self, tmp_path: Path) -> Connector:
        """Your connector; called for each test.

        Args:
            tmp_path: A folder for this test, not created yet.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method connector(self, tmp_path)")

    def component(self, tmp_path: Path) -> Component:
        """The connector."""
        return self.connector(tmp_path)

    def work(self, component: Component) -> object:
        """Read everything; apart from records, the runner keeps the streams and plans."""
        connector, kept = cast("Connector", component), list[object]()
        for stream, plan in planned(connector):
            all_records(connector, stream, plan)
            kept += [stream, plan]
        return kept

    @pytest.fixture
    def ready(self, opened: Component) -> Connector:
        """The connector, opened."""
        return cast("Connector", opened)

    def test_is_a_connector(self, made: Component) -> None:
        """Its class says what it is, and a worker can import it."""
        expect(isinstance(made, Connector), "a connector is a subclass of muxly.Connector", type(made))
        expect("<locals>" not in type(made).__qualname__, "the class is at the top of its module", type(made))

    def test_streams_have_unique_names_and_known_parents(self, ready: Connector) -> None:
        """A name is the stream's identity in the store."""
        streams = list(ready.streams())
        expect(streams, "a connector has streams", streams)
        wrong = [stream for stream in cast("list[object]", streams) if not _is_named_stream(stream)]
        expect(not wrong, "streams returns muxly.Stream objects with a name", wrong)
        repeated = [name for name, count in Counter(stream.name for stream in streams).items() if count > 1]
        expect(not repeated, "the names of streams are unique", repeated)
        names = {stream.name for stream in streams if stream.parent is None}
        lost = [stream for stream in streams if stream.parent is not None and stream.parent not in names]
        expect(not lost, "the parent of a stream is another stream of the connector, without a parent itself", lost)

    def test_streams_are_the_same_each_time(self, ready: Connector, made: Component, run: WatchedRun) -> None:
        """Under the same options, in this copy and in another one."""
        other = cast("Connector", copy.deepcopy(made))
        other.open(run)
        first, second, third = (list(connector.streams()) for connector in (ready, ready, other))
        other.close()
        expect(first == second == third, "the same options give the same streams", (first, second, third))

    def test_plans_can_be_stored(self, ready: Connector) -> None:
        """A plan is stored before its first read, and may be finished by a later run."""
        for stream, plan in planned(ready):
            expect(isinstance(plan, Plan), "plan returns a muxly.Plan", plan)
            parts: list[object] = list(plan.partitions)
            wrong = [part for part in parts if not isinstance(part, Partition) or type(part.id) is not str]
            expect(not wrong, "a plan holds muxly.Partition objects, whose ids are text", wrong)
            repeated = [name for name, count in Counter(part.id for part in plan.partitions).items() if count > 1]
            expect(not repeated, f"the partitions of {stream.name} have unique ids", repeated)
            _expect_storable(plan.cursor, f"the cursor of the plan of {stream.name}")
            for part in plan.partitions:
                _expect_storable(part.cursor, f"the cursor of partition {part.id!r} of {stream.name}")
                _expect_storable(part.payload, f"the payload of partition {part.id!r} of {stream.name}")

    def test_batches_become_columns(self, ready: Connector) -> None:
        """Records fit their columns; those that do not are the connector's ``rejected``."""
        for stream, plan, read in read_all(ready):
            table, misfits = read.batch.to_arrow(stream.schema or plan.schema)
            expect(not misfits, f"every record of {stream.name} fits its columns", misfits[:3])
            expect(
                len(set(table.schema.names)) == len(table.schema.names),
                f"the columns of {stream.name} have unique names",
                table.schema.names,
            )
            unexplained = [rejected for rejected in read.batch.rejected if not rejected.reason]
            expect(not unexplained, "a rejected record has a reason", unexplained)

    def test_known_schema_is_kept(self, ready: Connector) -> None:
        """A schema that a stream or plan shows before reading is the one that comes."""
        for stream, plan in planned(ready):
            schema = plan.schema or stream.schema
            if schema is None:
                continue
            for part in plan.partitions:
                for read in read_partition(ready, stream, part, part.cursor):
                    found = read.batch.to_arrow(schema)[0].schema if read.stream == stream.name else schema
                    other = [field for field in found if schema.get_field_index(field.name) < 0]
                    expect(not other, f"batches of {stream.name} have the columns of its schema", other)

    def test_children_are_shown(self, ready: Connector) -> None:
        """A stream that is read along with another must name it as its parent."""
        shown = {stream.name: stream.parent for stream in ready.streams()}
        for stream, _, read in read_all(ready):
            if read.stream != stream.name:
                expect(
                    shown.get(read.stream) == stream.name,
                    f"a stream read with {stream.name} is shown by streams() with parent={stream.name!r}",
                    read.stream,
                )

    def test_primary_key_names_one_record(self, ready: Connector) -> None:
        """``upsert`` would overwrite one of two records with the same key."""
        keys = {stream.name: stream.primary_key for stream in ready.streams()}
        for stream, plan in planned(ready):
            counts = all_records(ready, stream, plan)
            for name in {name for name, _ in counts if keys.get(name)}:
                _expect_key(name, keys[name], counts)

    def test_cursors_can_be_stored(self, ready: Connector) -> None:
        """They come back equal and of the same type."""
        for stream, _, read in read_all(ready):
            _expect_storable(read.batch.cursor, f"a cursor of {stream.name}")

    def test_reading_resumes_from_every_cursor_with_exactly_the_rest(self, ready: Connector) -> None:
        """Nothing is lost after a crash, and nothing is read twice but ties at the cursor."""
        for stream, plan in planned(ready):
            for part in plan.partitions:
                reads = list(read_partition(ready, stream, part, part.cursor))
                for index in self._resumable(stream, reads):
                    _expect_rest(ready, stream, part, reads, index)

    def _resumable(self, stream: Stream, reads: list[ReadBatch]) -> list[int]:
        """The indices of batches after which reading may resume: in the middle of a sorted stream only."""
        found = [index for index, read in enumerate(reads) if read.batch.cursor is not None]
        if not stream.sorted:
            return found[-1:] if found and found[-1] == len(reads) - 1 else []
        step = max(1, -(-len(found) // self.resume_points))
        return sorted({*found[::step], *found[-1:]})

    def test_reading_twice_gives_the_same(self, ready: Connector) -> None:
        """A retry starts the same reading again."""
        for stream, plan in planned(ready):
            first, second = (all_records(ready, stream, plan) for _ in range(2))
            expect(first == second, f"reading {stream.name} twice gives the same records", _difference(first, second))

    def test_finished_plan_leaves_nothing_to_read(self, ready: Connector) -> None:
        """The stream's cursor says that everything was read; only records in the lookback come again."""
        for stream, plan in planned(ready):
            reads = {part.id: list(read_partition(ready, stream, part, part.cursor)) for part in plan.partitions}
            last = {name: _last_cursor(some) for name, some in reads.items()}
            cursor = cursor_after(plan, last)
            if cursor is None:
                continue
            again = all_records(ready, stream, ready.plan(stream, cursor))
            allowed = boundary(stream, [read for part_reads in reads.values() for read in part_reads])
            expect(
                not again - allowed,
                f"after a finished plan nothing of {stream.name} is new; only records within the lookback come again",
                list((again - allowed).items())[:3],
            )

    def test_plan_can_be_finished_by_another_process(self, ready: Connector, made: Component, run: WatchedRun) -> None:
        """``read`` needs the options and the partition, and nothing that ``plan`` left behind."""
        for stream, plan in planned(ready):
            other = cast("Connector", pickle.loads(pickle.dumps(made)))  # noqa: S301 (our own bytes)
            other.open(run)
            parts: tuple[Partition, ...] = pickle.loads(pickle.dumps(plan.partitions))  # noqa: S301 (our own bytes)
            found = total(read for part in parts for read in read_partition(other, stream, part, part.cursor))
            other.close()
            wanted = all_records(ready, stream, plan)
            expect(found == wanted, f"another process reads the same of {stream.name}", _difference(wanted, found))

    def test_partitions_can_be_read_at_once(self, ready: Connector) -> None:
        """``read`` runs on several threads."""
        for stream, plan in planned(ready):
            if not plan.partitions:
                continue
            with ThreadPoolExecutor(min(8, 2 * len(plan.partitions))) as pool:
                parts = [*plan.partitions, *plan.partitions]
                at_once = list(
                    pool.map(lambda part, of=stream: total(read_partition(ready, of, part, part.cursor)), parts)
                )
            alone = [total(read_partition(ready, stream, part, part.cursor)) for part in plan.partitions]
            expect(
                at_once == [*alone, *alone],
                f"partitions of {stream.name} that are read at the same time give the same records",
                f"{[count.total() for count in at_once]} records, alone {[count.total() for count in alone]}",
            )

    def test_reading_may_be_given_up(self, ready: Connector) -> None:
        """A run that stops does not read to the end."""
        for stream, plan in planned(ready):
            for part in plan.partitions:
                reading = ready.read(stream, part, part.cursor)
                next(iter(reading), None)
                if close := getattr(reading, "close", None):
                    close()
            wanted, found = (all_records(ready, stream, plan) for _ in range(2))
            expect(found == wanted, f"{stream.name} can be read after a reading was given up")

    def test_stopping_run_ends_reading_in_time(self, ready: Connector, run: WatchedRun) -> None:
        """A connector stops waiting, whatever for, when the run stops."""
        plans = list(planned(ready))
        run.stop.set()
        for stream, plan in plans:
            for part in plan.partitions:
                within(
                    self.stop_seconds,
                    f"reading {stream.name} yields or ends within {self.stop_seconds} s after the run was stopped",
                    lambda of=stream, part=part: next(iter(ready.read(of, part, part.cursor)), None),  # type: ignore[misc]
                )

    def test_one_value_of_the_overwrite_key_lies_in_one_group(self, ready: Connector) -> None:
        """Otherwise a second delivery would delete what the first one brought."""
        for stream, plan in planned(ready):
            if stream.overwrite_key:
                groups = list(_groups(ready, stream, plan))
                _expect_whole_groups(stream, groups)


def _is_named_stream(value: object) -> bool:
    return isinstance(value, Stream) and type(value.name) is str and value.name != ""


def _groups(connector: Connector, stream: Stream, plan: Plan) -> Iterator[set[Any]]:
    """The values of the overwrite key in each group: the batches up to a cursor."""
    for part in plan.partitions:
        group: set[Any] = set()
        for read in read_partition(connector, stream, part, part.cursor):
            group |= {tuple(record.get(name) for name in stream.overwrite_key) for record in read.records}
            group |= {value if isinstance(value, tuple) else (value,) for value in read.batch.replaces}
            if read.batch.cursor is not None:
                yield group
                group = set()
        yield group


def _expect_whole_groups(stream: Stream, groups: list[set[Any]]) -> None:
    for (number, group), (later, other) in itertools.combinations(enumerate(groups), 2):
        expect(
            not group & other,
            f"all records of {stream.name} with one value of {stream.overwrite_key} come in one group, before a cursor",
            f"{sorted(map(str, group & other))[:3]} in groups {number} and {later}",
        )


def _expect_rest(connector: Connector, stream: Stream, part: Partition, reads: list[ReadBatch], index: int) -> None:
    rest, cursor = total(reads[index + 1 :]), reads[index].batch.cursor
    found = total(read_partition(connector, stream, part, cursor))
    where = f"resuming partition {part.id!r} of {stream.name} after batch {index} at {cursor!r}"
    lost = rest - found
    expect(not lost, f"{where} gives all that follows", f"{sum(lost.values())} lost: {list(lost)[:2]}")
    extra = found - rest - boundary(stream, reads[: index + 1])
    expect(
        not extra,
        f"{where} gives nothing that came before; only with a cursor_field records at the cursor may come again",
        f"{sum(extra.values())} repeated: {list(extra)[:2]}",
    )


def _expect_key(name: str, key: tuple[str, ...], counts: Counter[Key]) -> None:
    found = Counter(tuple(dict(record).get(column) for column in key) for of, record in counts if of == name)
    empty = [value for value in found if None in value]
    expect(not empty, f"the primary key {key} of {name} is never null", empty[:3])
    twice = [value for value, count in found.items() if count > 1]
    expect(not twice, f"the primary key {key} of {name} names one record", twice[:3])


def _expect_storable(value: Any, what: str) -> None:
    problem = cursor_problem(value, what)
    expect(problem is None, "cursors and payloads are JSON values, dates, datetimes or Decimals", problem)


def _last_cursor(reads: list[ReadBatch]) -> Any:
    return next((read.batch.cursor for read in reversed(reads) if read.batch.cursor is not None), None)


def _difference(first: Counter[Key], second: Counter[Key]) -> str:
    return f"only in one: {list((first - second).items())[:2]}; only in the other: {list((second - first).items())[:2]}"
