"""A worker: one route's deliveries of one stream, with ``begin`` and ``complete`` around generations."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from tests.core.model.ledger import Blocked, Gone, Letter, Pair, Segment, Slice, Stored
from tests.core.model.places import Down, LostAnswer, Record, Refused, Route, Table

if TYPE_CHECKING:
    from tests.core.model.rules import Rules
    from tests.core.model.run import Run
    from tests.core.model.world import World

__all__ = ["Worker"]

Steps = Generator[None, None, None]
Content = list[tuple[int, Record]]
PATIENCE = 3


@define(eq=False)
class Worker:
    """It stops between any two durable effects; an error of the route ends it for this run."""

    run: Run
    key: tuple[str, str]
    tries: int = 0
    begun: set[int] = field(factory=set)

    @property
    def world(self) -> World:
        return self.run.world

    @property
    def rules(self) -> Rules:
        return self.run.world.rules

    @property
    def route(self) -> Route:
        return self.world.routes[self.key[0]]

    @property
    def kind(self) -> str:
        return self.world.sources[self.key[1]].kind

    @property
    def pair(self) -> Pair:
        return self.world.ledger.pairs[self.key]

    def steps(self) -> Steps:
        ended = False
        while not ended and not self.run.broken and self.key not in self.run.stopped:
            try:
                ended = yield from self.turn()
            except Gone:
                self.tries = 0
            except LostAnswer:
                self.tries += 1
                if self.tries == PATIENCE:
                    self.stop()
            except Down:
                self.stop()
                self.run.broken = not self.rules.routes_are_independent
            except Blocked:
                self.stop()
                self.run.broken = not self.rules.corrupt_blocks_only_itself
            yield

    def turn(self) -> Generator[None, None, bool]:
        """One delivery; true = nothing waits, and nothing will come in this run."""
        ended = not self.run.reading
        stored = self.world.take(self.run.token, self.key, self.route)
        if stored is not None:
            self.run.delivering.add(self.key)
        yield
        if self.kind == "full":
            yield from self.turn_generation(stored)
        if stored is None:
            return ended
        yield from self.attempt(stored)
        self.tries = 0
        return False

    def stop(self) -> None:
        self.run.stopped.add(self.key)
        self.world.excused.add(self.key)

    def turn_generation(self, stored: Stored | None) -> Steps:
        """``begin`` before the first delivery of a generation, ``complete`` after the last one."""
        stream = self.world.ledger.streams[self.key[1]]
        whole = stream.sealed_generation if self.rules.complete_after_all_partitions else stream.generation
        waits = any(0 < one.generation <= whole for one in self.world.ledger.ahead(self.key[1], self.pair))
        behind = waits and self.rules.complete_after_all_deliveries
        nothing = not any(one.generation == whole for one in stream.segments.values())
        if whole > self.pair.completed and not behind and (self.rules.complete_without_records or not nothing):
            yield from self.begin(whole)
            self.world.complete(self.key, whole)
            yield
            self.world.ledger.note(self.run.token, self.key, completed=whole)
        if stored is not None:
            yield from self.begin(stored.generation)

    def begin(self, generation: int) -> Steps:
        """Once in each run; the destination has seen it before if an earlier run got so far."""
        if generation not in self.begun:
            self.begun.add(generation)
            self.world.begin(self.key, generation)
        yield

    def attempt(self, stored: Stored) -> Steps:
        """Call the router where there is something for it, then acknowledge."""
        content, replaces = self.content(stored)
        wanted = [item for item in content if self.route.wants(item[1], self.rules)]
        filtered = len(content) - len(wanted)
        if not self.rules.durable_before_acknowledge:
            self.settle(stored, (), filtered)
            yield
        rejected: tuple[int, ...] = ()
        try:
            if wanted or (self.kind == "days" and self.rules.overwrite_empties and replaces):
                rejected = yield from self.deliver(stored, wanted, replaces)
        except Refused:
            yield from self.refused(stored, wanted, filtered)
        except Down:
            if not self.rules.route_errors_reject_nothing:
                self.settle(stored, tuple(Letter(record.id) for _, record in wanted), 0)
            raise
        else:
            yield from self.acknowledge(stored, wanted, rejected, filtered)

    def acknowledge(self, stored: Stored, wanted: Content, rejected: tuple[int, ...], filtered: int) -> Steps:
        letters = tuple(Letter(wanted[number][1].id, wanted[number][0]) for number in rejected)
        if not self.rules.durable_before_acknowledge:
            return
        if self.too_many(len(letters)):
            self.world.interrupted[self.key] += 1  # it was applied, and comes again when the limit is raised
            return
        yield
        self.settle(stored, letters, filtered)
        if not self.rules.acknowledge_is_one_transaction:
            yield
            self.world.ledger.acknowledge(self.run.token, self.key, stored.id, (), stored.records, "account")

    def settle(self, stored: Stored, letters: tuple[Letter, ...], filtered: int) -> None:
        part = "all" if self.rules.acknowledge_is_one_transaction else "position"
        self.world.ledger.acknowledge(self.run.token, self.key, stored.id, letters, filtered, part)
        self.run.rejected[self.key] += len(letters)
        self.run.delivering.discard(self.key)

    def too_many(self, count: int) -> bool:
        limit = self.world.max_rejected(self.route)
        if self.run.rejected[self.key] + count <= limit or not self.rules.max_rejected_holds or not count:
            return False
        self.stop()
        return True

    def content(self, stored: Stored) -> tuple[Content, list[int]]:
        """The delivery's records with their positions, and the days it replaces."""
        found: Content = []
        replaces: list[int] = []
        for part in stored.slices:
            segment = self.world.ledger.streams[self.key[1]].segments[part.position]
            records = () if segment.dropped else self.checked(segment)
            for one in records[part.start : part.stop]:
                found.append((part.position, evolve(one, columns=one.columns & segment.schema)))
            replaces += segment.replaces
        if not self.rules.overwrite_before_filter:
            replaces = sorted({record.day for _, record in found if self.route.wants(record, self.rules)})
        return found, replaces

    def checked(self, segment: Segment) -> tuple[Record, ...]:
        """A segment's records, if they are the ones that were sealed."""
        records = self.world.disk.segment(segment.file, segment.place) if segment.ids else ()
        if not self.rules.digest_is_checked:
            return records or ()
        if records is None or tuple(record.id for record in records) != segment.ids:
            self.world.quarantine(self.run.token, self.key[1], segment.position)
            raise Blocked
        return records

    def deliver(self, stored: Stored, wanted: Content, replaces: list[int]) -> Generator[None, None, tuple[int, ...]]:
        """The router's call; its answer may get lost on the way."""

        def apply(table: Table, items: Content) -> None:
            self.world.apply(table, self.route.mode(self.kind), items, replaces, stored.generation)

        def mark(count: int) -> None:
            self.world.ledger.mark(self.run.token, self.key, stored.id, count)

        receipt = yield from self.world.destinations[self.route.name].deliver(
            self.route, stored.id, self.key, apply, wanted, skip=self.pair.marked, mark=mark, kind=self.kind
        )
        if self.world.answer_is_lost(self.key):
            raise LostAnswer
        return receipt

    def refused(self, stored: Stored, wanted: Content, filtered: int) -> Steps:
        """Split it, and record the split before either half is tried; a single record becomes a dead letter."""
        if len(wanted) > 1:
            halves = self.halves(stored)
            self.world.ledger.split(self.run.token, self.key, stored.id, halves)
            if not self.rules.split_is_recorded:
                self.world.unrecorded.update(half.id for half in halves)
        elif not self.too_many(1):
            position, record = wanted[0]
            self.settle(stored, (Letter(record.id, position),), filtered)
        yield

    def halves(self, stored: Stored) -> tuple[Stored, Stored]:
        middle = stored.records // 2
        left: list[Slice] = []
        right: list[Slice] = []
        for part in stored.slices:
            cut = min(part.start + max(middle, 0), part.stop)
            left += [Slice(part.position, part.start, cut)] if cut > part.start or part.start == part.stop else []
            right += [Slice(part.position, cut, part.stop)] if cut < part.stop else []
            middle -= part.stop - part.start
        return (
            Stored(self.world.new_id("d"), tuple(left), stored.generation),
            Stored(self.world.new_id("d"), tuple(right), stored.generation),
        )
