"""A pure ledger: what each transaction does to plans, segments, positions and accounts, and when it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import define, field, frozen

from tests.core.model.rules import ALL_RULES, Rules

__all__ = [
    "Blocked",
    "Fenced",
    "Gone",
    "Group",
    "Letter",
    "Missing",
    "Pair",
    "PartitionState",
    "PlanState",
    "PureLedger",
    "Segment",
    "Slice",
    "Stored",
    "StreamState",
]


Ties = frozenset[tuple[int, int]]  # (tick, id) of records at the greatest tick that is sealed
OUTCOMES = ("delivered", "rejected", "filtered", "dropped", "superseded", "quarantined")


class Fenced(Exception):
    """The token is not the lease's any more."""


class Gone(Exception):
    """The delivery is not open any more: superseded, dropped or given up."""


class Blocked(Exception):
    """The next segment is quarantined."""


class Missing(Exception):
    """A replay needs a position that is pruned."""


@frozen
class Letter:
    """A dead letter: which record, of which segment position (0 = the extraction's own)."""

    record: int
    position: int = 0


@define
class Segment:
    """One row of the segments table; ``ids`` stands for its digest, ``place`` for file and offset."""

    position: int
    plan: int
    partition: int
    file: str
    place: int
    ids: tuple[int, ...]
    generation: int
    ends_group: bool
    replaces: tuple[int, ...]
    schema: frozenset[str]
    corrupt: bool = False
    dropped: bool = False

    @property
    def records(self) -> int:
        """How many of them a route can still be given."""
        return 0 if self.dropped or self.corrupt else len(self.ids)


@frozen
class Slice:
    """Records ``start`` to ``stop`` of one segment."""

    position: int
    start: int
    stop: int


@frozen
class Stored:
    """A stored delivery."""

    id: str
    slices: tuple[Slice, ...]
    generation: int

    @property
    def records(self) -> int:
        return sum(part.stop - part.start for part in self.slices)


@frozen
class Group:
    """What a reading hands to the committer: segments of one partition, sealed together."""

    stream: str
    plan: int
    partition: int
    key: str  # its own, never used twice
    follows: tuple[str, int]  # the group and the cursor that it continues from
    cursor: int
    done: bool
    segments: tuple[tuple[int, ...], ...] = ()  # the ids of each
    schema: frozenset[str] = frozenset()
    replaces: tuple[int, ...] = ()
    letters: tuple[int, ...] = ()
    ties: Ties = frozenset()


@define
class PartitionState:
    """``last`` is the key of the last group that was sealed: ties make cursors equal."""

    cursor: int
    last: str = ""
    done: bool = False
    ties: Ties = frozenset()


@define
class PlanState:
    number: int
    options: int
    since: int  # the stream's cursor when it was made
    until: int | None  # the plan's own cursor; None = the greatest of its partitions
    generation: int
    partitions: dict[int, PartitionState]


@define
class StreamState:
    kind: str
    cursor: int = 0
    plan: PlanState | None = None
    plans: int = 0
    generation: int = 0
    sealed_generation: int = 0
    head: int = 0
    schema: frozenset[str] = frozenset()
    ties: Ties = frozenset()
    segments: dict[int, Segment] = field(factory=dict)
    letters: list[Letter] = field(factory=list)


@define
class Pair:
    """One route as a consumer of one stream: the next record it needs, and its account."""

    position: int = 1
    offset: int = 0
    queue: list[Stored] = field(factory=list)
    marked: int = 0
    account: Counter[str] = field(factory=Counter)
    letters: list[Letter] = field(factory=list)
    detached: bool = False
    begun: int = 0
    completed: int = 0


@define
class PureLedger:
    """All of it; every method that takes a token is one transaction."""

    rules: Rules = ALL_RULES
    token: int = 0
    streams: dict[str, StreamState] = field(factory=dict)
    pairs: dict[tuple[str, str], Pair] = field(factory=dict)
    zombie_writes: int = 0

    # --- the lease

    def acquire(self) -> int:
        if self.rules.takeover_raises_token or not self.token:
            self.token += 1
        return self.token

    def _fence(self, token: int, *, checked: bool = True) -> None:
        if token != self.token:
            if checked:
                raise Fenced
            self.zombie_writes += 1

    # --- reading

    def store_plan(
        self, token: int, name: str, partitions: dict[int, int], until: int | None, options: int
    ) -> PlanState:
        self._fence(token)
        stream = self.streams[name]
        stream.plans += 1
        if stream.kind == "full":
            stream.generation += 1
        states = {part: PartitionState(start, ties=stream.ties) for part, start in partitions.items()}
        plan = PlanState(stream.plans, options, stream.cursor, until, stream.generation, states)
        stream.plan = plan
        if not partitions:
            self._end_plan(name, stream)
        return plan

    def discard_plan(self, token: int, name: str) -> None:
        self._fence(token)
        self.streams[name].plan = None

    def clear_cursor(self, token: int, name: str) -> None:
        self._fence(token)
        stream = self.streams[name]
        stream.cursor, stream.plan, stream.ties = 0, None, frozenset()

    def seal(self, token: int, group: Group, file: str, place: int, part: str = "all") -> bool:
        """Insert the group's segments and move its partition; False = refused."""
        self._fence(token, checked=self.rules.seal_checks_token)
        stream = self.streams[group.stream]
        plan = stream.plan
        if plan is None or plan.number != group.plan or group.partition not in plan.partitions:
            return False
        partition = plan.partitions[group.partition]
        if part != "cursor":
            if self.rules.seal_checks_cursor and not self._continues(partition, group):
                return False
            self._insert(group, plan, file, place)
        if part != "segments":
            self._advance(stream, plan, partition, group)
        return True

    def _continues(self, partition: PartitionState, group: Group) -> bool:
        if partition.done:
            return False
        if not self.rules.seal_knows_its_group:
            return partition.cursor == group.follows[1]
        return (partition.last, partition.cursor) == group.follows

    def _insert(self, group: Group, plan: PlanState, file: str, place: int) -> None:
        stream = self.streams[group.stream]
        merged = stream.schema | group.schema if self.rules.schema_merges else group.schema
        stream.schema = merged or stream.schema
        for number, ids in enumerate(group.segments):
            last = number == len(group.segments) - 1
            stream.head += 1
            stream.segments[stream.head] = Segment(
                stream.head,
                plan.number,
                group.partition,
                file,
                place + number,
                ids,
                plan.generation,
                last,
                group.replaces if last else (),
                stream.schema,
            )
            for (_, name), pair in self.pairs.items():
                if name == group.stream:
                    pair.account["sealed"] += len(ids)
                    pair.account["dropped"] += len(ids) if pair.detached else 0
        if self.rules.extraction_rejects_are_sealed:
            stream.letters += [Letter(record) for record in group.letters]

    def _advance(self, stream: StreamState, plan: PlanState, partition: PartitionState, group: Group) -> None:
        if group.segments or self.rules.empty_reading_commits:
            partition.done = partition.done or group.done
        if group.cursor or not self.rules.empty_cursor_keeps:
            partition.cursor = group.cursor
        partition.ties = group.ties
        partition.last = group.key
        finished = [state.done for state in plan.partitions.values()]
        if all(finished) or (any(finished) and not self.rules.cursor_waits_for_plan):
            self._end_plan(group.stream, stream)

    def _end_plan(self, name: str, stream: StreamState) -> None:
        plan = stream.plan
        assert plan is not None
        reached = plan.until
        if reached is None:  # cursors are opaque: those of partitions cannot be compared with the stream's
            reached = max((state.cursor for state in plan.partitions.values()), default=stream.cursor)
        elif self.rules.cursor_never_goes_back:
            reached = max(reached, stream.cursor)
        if stream.kind == "full":
            reached = 0
        for state in plan.partitions.values():
            stream.ties |= state.ties
        stream.ties = frozenset(tie for tie in stream.ties if tie[0] >= reached)
        stream.cursor, stream.plan = reached, None
        if plan.generation:
            stream.sealed_generation = plan.generation
            for (_, other), pair in self.pairs.items():
                if other == name:
                    self._pass_over(name, pair, plan.generation - 1)

    def _pass_over(self, name: str, pair: Pair, generation: int) -> None:
        """Records up to that generation are superseded."""
        segments = self.streams[name].segments
        while (segment := segments.get(pair.position)) and 0 < segment.generation <= generation:
            pair.queue, pair.marked = [], 0
            if self.rules.superseded_is_counted and not pair.detached:
                pair.account["superseded"] += segment.records - self._taken(pair, segment)
            pair.position, pair.offset = pair.position + 1, 0

    # --- delivering

    def ahead(self, name: str, pair: Pair) -> Iterator[Segment]:
        """Segments that the pair has not acknowledged, in position order."""
        segments = self.streams[name].segments
        return (segments[number] for number in sorted(segments) if number >= pair.position)

    def pending(self, key: tuple[str, str]) -> int:
        """Records that the pair has still to deliver, as the rows say."""
        pair = self.pairs[key]
        if pair.detached:
            return 0
        return sum(segment.records - self._taken(pair, segment) for segment in self.ahead(key[1], pair))

    @staticmethod
    def _taken(pair: Pair, segment: Segment) -> int:
        return min(pair.offset, segment.records) if segment.position == pair.position else 0

    def take(self, token: int, key: tuple[str, str], limit: int, new_id: str, *, whole: bool) -> Stored | None:
        """Store the next delivery: up to ``limit`` records, or whole groups; None = nothing is pending."""
        self._fence(token)
        pair = self.pairs[key]
        if pair.queue and self.rules.delivery_is_frozen:
            return pair.queue[0]
        if pair.queue:
            new_id = pair.queue[0].id
        self._pass_over(key[1], pair, pair.completed)
        self._pass_dropped(key[1], pair)
        slices = self._next(key[1], pair, limit, whole=whole)
        if whole and self.rules.overwrite_whole_groups:
            slices = self._whole_groups(key[1], slices)
        while slices and self.streams[key[1]].segments[slices[-1].position].dropped:
            slices = slices[:-1]
        if slices:
            generation = self.streams[key[1]].segments[slices[0].position].generation
            pair.queue = [Stored(new_id, tuple(slices), generation)]
        elif any(segment.corrupt and not segment.dropped for segment in self.ahead(key[1], pair)):
            raise Blocked
        return pair.queue[0] if pair.queue else None

    def _pass_dropped(self, name: str, pair: Pair) -> None:
        while (segment := self.streams[name].segments.get(pair.position)) and segment.dropped and not pair.detached:
            pair.position, pair.offset = pair.position + 1, 0

    def _next(self, name: str, pair: Pair, limit: int, *, whole: bool) -> list[Slice]:
        """Consecutive pending records of one generation, up to the limit, before what is quarantined."""
        slices: list[Slice] = []
        generations: set[int] = set()
        for segment in self.ahead(name, pair):
            generations.add(segment.generation)
            if (segment.corrupt and not segment.dropped) or len(generations) > 1:
                break
            start = self._taken(pair, segment)
            room = segment.records - start if whole else min(segment.records - start, limit)
            slices.append(Slice(segment.position, start, start + room))
            limit -= room
            if limit <= 0 and (not whole or segment.ends_group or not self.rules.overwrite_whole_groups):
                break
        return slices

    def _whole_groups(self, name: str, slices: list[Slice]) -> list[Slice]:
        """Cut back to the end of a group, and to groups that do not replace what another one replaced."""
        replaced: set[int] = set()
        kept = 0
        for number, part in enumerate(slices, 1):
            segment = self.streams[name].segments[part.position]
            if not segment.ends_group:
                continue
            if replaced & set(segment.replaces) and self.rules.overwrite_once_per_delivery:
                break
            replaced.update(segment.replaces)
            kept = number
        return slices[:kept]

    def mark(self, token: int, key: tuple[str, str], delivery: str, count: int) -> None:
        self._fence(token, checked=self.rules.acknowledge_checks_token)
        pair = self.pairs[key]
        if not pair.queue or pair.queue[0].id != delivery:
            raise Gone
        if self.rules.mark_is_kept:
            pair.marked = count

    def split(self, token: int, key: tuple[str, str], delivery: str, halves: tuple[Stored, Stored]) -> None:
        self._fence(token)
        pair = self.pairs[key]
        if not pair.queue or pair.queue[0].id != delivery:
            raise Gone
        pair.queue[:1] = halves
        pair.marked = 0

    def acknowledge(
        self,
        token: int,
        key: tuple[str, str],
        delivery: str,
        rejected: tuple[Letter, ...],
        filtered: int,
        part: str = "all",
    ) -> None:
        """Move the pair behind its delivery, add to the account, keep the dead letters."""
        self._fence(token, checked=self.rules.acknowledge_checks_token)
        pair = self.pairs[key]
        if part == "account":
            pair.account["delivered"] += filtered  # a mutant's second transaction
            return
        if not pair.queue or pair.queue[0].id != delivery:
            raise Gone
        stored = pair.queue.pop(0)
        pair.marked = 0
        if part == "all":
            pair.account["delivered"] += stored.records - len(rejected) - filtered
        pair.account["rejected"] += len(rejected)
        pair.account["filtered"] += filtered if self.rules.filtered_is_counted and part == "all" else 0
        if self.rules.rejects_are_kept:
            pair.letters += rejected
        last, segments = stored.slices[-1], self.streams[key[1]].segments
        for one in stored.slices:
            if segments[one.position].corrupt and not segments[one.position].dropped:
                # Read before the bit flipped, quarantined by somebody else, delivered after all.
                pair.account["quarantined"] -= one.stop - one.start
        whole = segments[last.position].dropped or last.stop == len(segments[last.position].ids)
        pair.position, pair.offset = (last.position + 1, 0) if whole else (last.position, last.stop)

    def note(self, token: int, key: tuple[str, str], *, begun: int = 0, completed: int = 0) -> None:
        """Remember that a generation was begun or completed at the destination."""
        self._fence(token)
        pair = self.pairs[key]
        pair.begun, pair.completed = max(pair.begun, begun), max(pair.completed, completed)

    # --- what people do

    def _count(self, name: str, position: int, **words: int) -> None:
        """Add what is left of a segment to the accounts of all pairs that wait for it."""
        segment = self.streams[name].segments[position]
        for (_, other), pair in self.pairs.items():
            if other == name and pair.position <= position and not pair.detached:
                left = len(segment.ids) - (pair.offset if pair.position == position else 0)
                for word, sign in words.items():
                    pair.account[word] += sign * left

    def quarantine(self, token: int, name: str, position: int) -> None:
        self._fence(token)
        segment = self.streams[name].segments[position]
        if not segment.corrupt and not segment.dropped:
            self._count(name, position, quarantined=1)
            segment.corrupt = True

    def drop(self, token: int, name: str, position: int) -> None:
        """``segments drop`` of a quarantined segment: nobody gets these records any more."""
        self._fence(token)
        segment = self.streams[name].segments[position]
        if self.rules.drop_is_counted:
            self._count(name, position, quarantined=-1, dropped=1)
        else:
            self._count(name, position, quarantined=-1)
        segment.dropped = True
        for (_, other), pair in self.pairs.items():
            if other == name and any(part.position == position for one in pair.queue for part in one.slices):
                pair.queue, pair.marked = [], 0

    def detach(self, token: int, key: tuple[str, str]) -> None:
        """Give the backlog up, but keep the position."""
        self._fence(token)
        pair = self.pairs[key]
        pair.account["dropped"] += self.pending(key)
        pair.detached = True
        if not self.rules.detach_keeps_position:
            pair.position, pair.offset = self.streams[key[1]].head + 1, 0

    def discard_route(self, token: int, route: str) -> int:
        """``routes discard``: forget a route; how many records were waiting."""
        self._fence(token)
        mine = [key for key in self.pairs if key[0] == route]
        waiting = sum(self.pending(key) for key in mine)
        for key in mine:
            del self.pairs[key]
        return waiting

    def join(self, route: str, name: str) -> None:
        """A route added later starts at the head."""
        head = self.streams[name].head + 1 if self.rules.added_routes_start_at_head else 1
        stream = self.streams[name]
        pair = self.pairs[route, name] = Pair(head)
        inside = stream.plan is not None and self.rules.join_waits_for_a_whole_generation
        begun = stream.generation if inside else stream.sealed_generation
        pair.completed = begun if stream.head else 0  # of what is not in the log it misses nothing
        pair.account["sealed"] = self.pending((route, name))

    def replay(self, token: int, key: tuple[str, str], *, from_position: int = 1, partial: bool = False) -> int:
        """Everything from that position on is to be delivered again; returns the first position."""
        self._fence(token)
        stream, pair = self.streams[key[1]], self.pairs[key]
        present = [number for number in stream.segments if number >= from_position]
        first = min(present, default=stream.head + 1)
        gap = first > from_position and stream.head >= from_position
        if gap and self.rules.replay_names_what_is_missing and not partial:
            raise Missing(str(from_position))
        before = self.pending(key)
        here = pair.detached and first == pair.position
        if not here or not self.rules.replay_from_here_keeps_the_delivery:
            pair.queue, pair.marked, pair.offset = [], 0, 0
        pair.detached, pair.position = False, first
        again = sum(len(segment.ids) for segment in self.ahead(key[1], pair) if segment.corrupt and not segment.dropped)
        pair.account["quarantined"] += again
        pair.account["replayed"] += self.pending(key) - before + again
        return first

    def prune(self, token: int, name: str, count: int) -> list[str]:
        """Forget up to ``count`` of the oldest positions; the files that lost their last segment."""
        self._fence(token)
        stream = self.streams[name]
        consumers = [pair for (_, other), pair in self.pairs.items() if other == name]
        followers = [pair.position for pair in consumers if not pair.detached]
        needed = min(followers, default=stream.head + 1)
        if not self.rules.prune_waits_for_all:
            needed = max(followers, default=stream.head + 1)
        tried = {part.position for pair in consumers for stored in pair.queue for part in stored.slices}
        gone: list[Segment] = []
        for number in sorted(stream.segments)[:count]:
            if number < needed and number not in tried:
                gone.append(stream.segments[number])
                self._forget(consumers, stream.segments.pop(number))
        left = {segment.file for other in self.streams.values() for segment in other.segments.values()}
        files = sorted({segment.file for segment in gone})
        return [file for file in files if file not in left or not self.rules.prune_counts_references]

    def _forget(self, consumers: list[Pair], segment: Segment) -> None:
        for pair in consumers:
            if not self.rules.prune_keeps_sums:
                pair.account["delivered"] -= segment.records

    def balance(self, key: tuple[str, str]) -> int:
        """What the account of a pair is off by."""
        account = self.pairs[key].account
        came = account["sealed"] + account["replayed"]
        went = sum(account[word] for word in OUTCOMES)
        return came - went - self.pending(key)
