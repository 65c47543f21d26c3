"""The whole world of the model: everything that survives a crash, and what may happen to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, MutableSequence
from random import Random
from typing import Any

from attrs import define, field, frozen

from tests.core.model import verdict
from tests.core.model.ledger import Fenced, Group, PlanState, PureLedger, Stored, StreamState
from tests.core.model.places import Destination, Disk, Record, Route, Source, Table
from tests.core.model.rules import Rules
from tests.core.model.run import Run
from tests.core.model.verdict import Violation

__all__ = ["World"]


@frozen
class Seen:
    """What the observer remembers of one position."""

    records: tuple[Record, ...]
    ends_group: bool
    replaces: tuple[int, ...]
    generation: int


@define(eq=False)
class World:
    """Sources, disk, ledger and destinations, the run in progress, zombies, and what an observer remembers."""

    rng: Random
    rules: Rules
    sources: dict[str, Source] = field(factory=dict)
    routes: dict[str, Route] = field(factory=dict)
    removed: set[str] = field(factory=set)
    destinations: dict[str, Destination] = field(factory=dict)
    disk: Disk = field(factory=Disk)
    ledger: PureLedger = field(factory=PureLedger)
    budget: int = 12
    shared: Destination = field(init=False)
    run: Run | None = None
    zombies: list[Run] = field(factory=list)
    faulty: bool = True
    ids: int = 0
    interrupted: Counter[tuple[str, str]] = field(factory=Counter)
    saved: PureLedger | None = None
    unrecorded: set[str] = field(factory=set)
    excused: set[tuple[str, str]] = field(factory=set)
    # What the observer remembers
    seen: dict[str, list[Seen]] = field(factory=lambda: defaultdict(list))
    known: dict[int, Record] = field(factory=dict)
    forgiven: Counter[int] = field(factory=Counter)
    sealed: dict[str, Counter[int]] = field(factory=lambda: defaultdict(Counter))
    corrupted: set[tuple[str, int]] = field(factory=set)
    given_up: dict[str, set[int]] = field(factory=lambda: defaultdict(set))
    owed_from: dict[tuple[str, str], int] = field(factory=dict)
    again: dict[tuple[str, str], Counter[int]] = field(factory=lambda: defaultdict(Counter))
    missed: dict[tuple[str, str], set[int]] = field(factory=lambda: defaultdict(set))

    # --- chance and building

    def chance(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == 0

    def fault(self, one_in: int) -> bool:
        return self.faulty and self.chance(one_in)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        self.rng.shuffle(items)

    def new_id(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}{self.ids}"

    def answer_is_lost(self, key: tuple[str, str]) -> bool:
        lost = self.fault(15)
        self.interrupted[key] += lost
        return lost

    def interrupt(self) -> None:
        """The run goes no further, and whatever it was delivering may come once more."""
        if self.run is not None:
            self.interrupted.update(self.run.delivering)
        self.run = None

    def max_rejected(self, route: Route) -> int:
        return route.max_rejected if self.faulty else 1000

    def add_stream(self, name: str, source: Source) -> None:
        self.sources[name] = source
        self.ledger.streams[name] = StreamState(source.kind)
        for route in self.routes:
            self.join(route, name)

    def add_route(self, route: Route, destination: Destination) -> None:
        self.routes[route.name], self.destinations[route.name] = route, destination
        for name in self.sources:
            self.join(route.name, name)

    def join(self, route: str, name: str) -> None:
        self.ledger.join(route, name)
        self.owed_from[route, name] = self.ledger.streams[name].head + 1

    def produce(self, name: str) -> None:
        source = self.sources[name]
        self.ids += 1
        columns = {1: {"id", "x"}, 3: {"id", "y"}}.get(self.ids % 6, {"id"})
        tick = source.tick + self.chance(2)
        record = Record(self.ids, self.rng.randrange(5), max(tick, 1), self.rng.randrange(4), frozenset(columns))
        self.known[record.id] = record
        source.change(record, restate=self.chance(3), empty=self.chance(8))

    # --- what a run does, watched

    def reach(self, name: str) -> int | None:
        """How far a plan made now reaches; sometimes the source is behind."""
        source = self.sources[name]
        if source.kind == "days":
            return len(source.changes)
        if source.kind == "full" or not source.windowed:
            return None
        behind = self.rng.randrange(3) if self.fault(4) else 0
        return max(source.tick - behind, 1)

    def make_plan(self, token: int, name: str, source: Source) -> PlanState:
        stream = self.ledger.streams[name]
        start = stream.cursor if source.kind == "log" else 0
        until = self.reach(name)
        parts = range(source.partitions)
        if source.kind == "days" and stream.cursor >= len(source.changes):
            parts = range(0)
        return self.ledger.store_plan(token, name, dict.fromkeys(parts, start), until, source.options)

    def seal(self, token: int, group: Group, file: str, place: int, part: str = "all") -> bool:
        stream = self.ledger.streams[group.stream]
        head, schema = stream.head, stream.schema
        accepted = self.ledger.seal(token, group, file, place, part)
        if not stream.schema >= schema:
            raise Violation(f"narrowed: {group.stream} lost {sorted(schema - stream.schema)}")
        if accepted and part != "cursor":
            self.watch(group, head)
        return accepted

    def watch(self, group: Group, head: int) -> None:
        """Keep what was sealed, and notice what was sealed before."""
        name = group.stream
        if self.ledger.streams[name].head != head + len(group.segments):
            raise Violation(f"gap: {name} went from {head} by {len(group.segments)} segments")
        for number, ids in enumerate(group.segments):
            last = number == len(group.segments) - 1
            generation = self.ledger.streams[name].segments[head + number + 1].generation
            before = self.seen[name][-1].generation if self.seen[name] else 0
            if self.ledger.streams[name].sealed_generation < before < generation and not self.forgiven[-before]:
                raise Violation(f"reread: generation {before} of {name} was given up inside")
            records = tuple(self.known[one] for one in ids)
            self.seen[name].append(Seen(records, last, group.replaces if last else (), generation))
        if self.sources[name].kind == "log":
            for record in [*(one for ids in group.segments for one in ids), *group.letters]:
                self.sealed[name][record] += 1
                if self.sealed[name][record] > 1 + self.forgiven[record]:
                    raise Violation(f"reread: record {record} of {name} was sealed again")

    def forgive(self, name: str) -> None:
        """A plan made under other options, or a reset, is read again on purpose."""
        for record in self.sealed[name]:
            self.forgiven[record] = self.sealed[name][record]
        self.forgiven[-self.ledger.streams[name].generation] = 1

    def take(self, token: int, key: tuple[str, str], route: Route) -> Stored | None:
        if key not in self.ledger.pairs:
            raise Fenced  # a command discarded the route, and took the lease for it
        pair, kind = self.ledger.pairs[key], self.sources[key[1]].kind
        new_id = self.new_id("d")
        if not self.rules.delivery_ids_are_new:
            new_id = f"{key[1]}-{pair.position}-{pair.offset}"
        elif not self.rules.replay_has_new_ids:
            new_id = f"{key}-{pair.position}-{pair.offset}"
        before = pair.queue[:1]
        stored = self.ledger.take(token, key, route.limit, new_id, whole=kind == "days")
        if stored is not None and before != [stored] and not self.rules.delivery_is_stored_first:
            self.unrecorded.add(stored.id)
        return stored

    def apply(
        self,
        table: Table,
        mode: str,
        items: list[tuple[int, Record]],
        replaces: list[int],
        generation: int,
    ) -> None:
        for _, record in items:
            table.columns[record.id] = record.columns
        if mode == "append":
            table.rows.update(record.id for _, record in items)
        elif mode == "replace":
            table.staged.setdefault(generation, Counter()).update(record.id for _, record in items)
        elif mode == "overwrite":
            for day in {*replaces, *(record.day for _, record in items)}:
                table.days[day] = Counter(record.id for _, record in items if record.day == day)
        else:
            self.upsert(table, items)

    def upsert(self, table: Table, items: list[tuple[int, Record]]) -> None:
        for position, record in items:
            order = (record.tick, position)
            if (
                record.key not in table.keys
                or order >= table.keys[record.key][0]
                or not self.rules.upsert_keeps_the_greater
            ):
                table.keys[record.key] = (order, record.id)

    def begin(self, key: tuple[str, str], generation: int) -> None:
        table = self.destinations[key[0]].tables[key]
        if generation < table.visible and self.rules.old_generation_is_refused:
            return
        kept = {number: rows for number, rows in table.staged.items() if number >= generation}
        if not self.rules.begin_keeps_its_own:
            kept.pop(generation, None)
        table.staged = kept

    def complete(self, key: tuple[str, str], generation: int) -> None:
        table = self.destinations[key[0]].tables[key]
        if generation < table.visible:
            if self.rules.old_generation_is_refused:
                return
            raise Violation(f"went back: {key} shows generation {generation} after {table.visible}")
        if generation == table.visible:
            return
        table.visible, table.content = generation, table.staged.pop(generation, Counter())
        verdict.check_generation(self, key)

    def is_delivered(self, route: Route, record: Record, kind: str) -> bool:
        return not self.is_filtered(route, record) and not route.is_bad(record, kind)

    @staticmethod
    def is_filtered(route: Route, record: Record) -> bool:
        return route.filtered and record.id % 35 in {5, 10, 7, 14}

    def may_come_again(self, key: tuple[str, str], positions: Iterable[int]) -> None:
        """A person asked for it, so it is no double."""
        for position in positions:
            self.again[key].update(one.id for one in self.seen[key[1]][position - 1].records)

    def quarantine(self, token: int, name: str, position: int) -> None:
        segment = self.ledger.streams[name].segments[position]
        if (segment.file, segment.place) not in self.corrupted:
            raise Violation(f"spool: segment {position} of {name} is not in the spool as it was sealed")
        self.ledger.quarantine(token, name, position)
        self.excused.update(key for key in self.ledger.pairs if key[1] == name)

    def spooled(self, name: str) -> int:
        """Records that count against the budget, each segment once."""
        segments = self.ledger.streams[name].segments
        places = [pair.position for key, pair in self.ledger.pairs.items() if key[1] == name and not pair.detached]
        low = min(places, default=self.ledger.streams[name].head + 1) if self.rules.budget_counts_pending else 0
        return sum(one.records for one in segments.values() if one.position >= low)

    def detach(self, token: int, key: tuple[str, str]) -> None:
        self.ledger.detach(token, key)
        self.excused.add(key)

    def sweep(self) -> None:
        """Remove files of the spool that have no rows."""
        used = {segment.file for stream in self.ledger.streams.values() for segment in stream.segments.values()}
        for name in [name for name in self.disk.files if name not in used]:
            self.disk.remove(name)
