"""Random operations on the real ledger and spool and on the pure one, compared after every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from muxly.errors import FencedError
from muxly.store import acknowledge as acknowledging
from muxly.store import deliveries, plans, positions, retention
from tests.core.model.ledger import Blocked, Group, Letter, PureLedger, Slice, Stored, StreamState
from tests.core.model.real import Crash, Real, crashing, cut, told

__all__ = ["LedgerMachine"]

KINDS = ("log", "days", "full")
ROUTES = ("lake", "warehouse")
Key = tuple[str, str]
streams = st.sampled_from(KINDS)
keys = st.tuples(st.sampled_from(ROUTES), streams)
sizes = st.lists(st.integers(1, 4), max_size=3)


class LedgerMachine(RuleBasedStateMachine):
    """The real ledger must always be where the pure one is, also after a crash at any effect."""

    make: Callable[[], tuple[Path, str]]

    @initialize()
    def begin(self) -> None:
        folder, url = type(self).make()
        self.real = Real(folder, url, ROUTES)
        self.pure = PureLedger()
        self.crash: tuple[int, bool] | None = None
        self.serial = 0
        self.departed: Counter[tuple[str, str, str]] = Counter()
        self.real.take_over()
        self.pure.acquire()
        self.real.register(list(KINDS))
        for name in KINDS:
            self.pure.streams[name] = StreamState(name)
            for route in ROUTES:
                self.pure.join(route, name)

    # --- doing a thing on both sides

    def both(self, real: Callable[[], object], pure: Callable[[PureLedger], object]) -> None:
        """Do it; if a crash is due, the real side must have done all of it or nothing."""
        crash, self.crash = self.crash, None
        if crash is None:
            real()
            pure(self.pure)
            return
        try:
            with crashing(crash[0], after=crash[1]):
                real()
        except Crash:
            self.reopen()
            done = deepcopy(self.pure)
            pure(done)
            found = self.real.snapshot()
            if found == self.told(done):
                self.pure = done
            else:
                assert found == self.told(self.pure), "half a transaction survived the crash"
        else:
            pure(self.pure)

    def reopen(self) -> None:
        self.real.die()
        self.real.take_over()
        self.pure.acquire()
        assert self.real.spool.list() == retention.files(self.real.ledger), "the sweep left files without rows"

    @rule(at=st.integers(1, 3), after=st.booleans())
    def crash_soon(self, at: int, after: bool) -> None:
        self.crash = (at, after)

    @rule()
    def crash_now(self) -> None:
        self.reopen()

    @precondition(lambda self: self.real.zombies)
    @rule(key=keys)
    def a_zombie_writes(self, key: Key) -> None:
        zombie = self.real.zombies[0]
        attempts: list[Callable[[], object]] = [
            lambda: plans.set_cursor(zombie, key[1], 7),
            lambda: positions.detach(zombie, key[0], [key[1]]),
            lambda: retention.prune(zombie, keep_seconds=0, keep_bytes=0),
        ]
        if found := self.real.open_deliveries(key):
            attempts.append(lambda: deliveries.mark(zombie, found[0], 1))
            attempts.append(lambda: acknowledging.acknowledge(zombie, found[0], delivered=found[0].records, filtered=0))
        for attempt in attempts:
            with pytest.raises(FencedError, match="taken over"):
                attempt()

    # --- reading

    @rule(name=streams, parts=st.integers(1, 2), ahead=st.integers(0, 2), windowed=st.booleans())
    def plan(self, name: str, parts: int, ahead: int, windowed: bool) -> None:
        stream = self.pure.streams[name]
        if stream.plan is not None:
            return
        start = 0 if name == "full" else stream.cursor
        until = start + ahead + 1 if (windowed or parts > 1) and name != "full" else None
        starts = dict.fromkeys(range(parts), start)
        self.both(
            lambda: self.real.plan(name, {part: at or None for part, at in starts.items()}, until),  # type: ignore[misc]
            lambda pure: pure.store_plan(pure.token, name, starts, until, 0),
        )

    @rule(name=streams, counts=sizes, further=st.integers(0, 2), done=st.booleans(), parts=st.integers(1, 2))
    def seal(self, name: str, counts: list[int], further: int, done: bool, parts: int) -> None:
        if self.pure.streams[name].plan is None:
            self.plan(name, parts, 1, windowed=True)
        plan = self.pure.streams[name].plan
        if plan is None:
            return  # a crash came instead of the plan
        part, state = next((part, state) for part, state in plan.partitions.items() if not state.done)
        segments = tuple(self.ids(count) for count in counts)
        group = Group(
            name,
            plan.number,
            part,
            f"g{self.serial}",
            (state.last, state.cursor),
            state.cursor + further,
            done,
            segments,
        )

        def real() -> None:
            before, after = state.cursor or None, group.cursor or None
            self.real.seal([self.real.group(name, part, segments, before, after, done=done)])

        def pure(ledger: PureLedger) -> None:
            assert ledger.seal(ledger.token, group, "", 0)

        self.both(real, pure)
        self.pass_over()

    @rule(name=streams, part=st.integers(0, 1))
    def seal_what_does_not_follow(self, name: str, part: int) -> None:
        plan = self.pure.streams[name].plan
        if plan is None or part not in plan.partitions:
            return
        group = self.real.group(name, part, (self.ids(1),), plan.partitions[part].cursor + 50, 90, done=True)
        with pytest.raises(FencedError, match="continued by another run"):
            self.real.seal([group])
        self.reopen()

    def ids(self, count: int) -> tuple[int, ...]:
        self.serial += count
        return tuple(range(self.serial - count, self.serial))

    def pass_over(self) -> None:
        """A worker in mode replace supersedes before it delivers; the pure ledger does at once."""
        self.real.supersede("full")
        for (_, name), pair in self.pure.pairs.items():
            if name == "full":
                self.pure._pass_over(name, pair, pair.completed)

    @rule(name=streams, counts=st.lists(st.integers(1, 3), min_size=1, max_size=2), key=keys)
    def seal_and_deliver(self, name: str, counts: list[int], key: Key) -> None:
        self.seal(name, counts, 1, done=True, parts=1)
        self.acknowledge((key[0], name), 0, 0, 3)

    @rule(name=st.sampled_from(["log", "days"]))
    def reset(self, name: str) -> None:
        self.both(
            lambda: plans.set_cursor(self.real.ledger, name, None),
            lambda pure: pure.clear_cursor(pure.token, name),
        )

    # --- delivering

    @rule(key=keys, limit=st.integers(1, 5))
    def take(self, key: Key, limit: int) -> None:
        if self.pure.pairs[key].detached:
            return  # nobody works for a detached route
        whole = key[1] == "days"
        self.both(
            lambda: self.real.following(key, limit, whole=whole),
            lambda pure: self.adopt(pure, key, limit, whole=whole),
        )

    def adopt(self, pure: PureLedger, key: Key, limit: int, *, whole: bool) -> None:
        """The pure ledger takes what the real one took; it may have been less than the limit."""
        found = self.real.open_deliveries(key)
        pair = pure.pairs[key]
        if found and not pair.queue:
            assert whole or found[0].records <= limit
            taken = pure.take(pure.token, key, 1 if whole else found[0].records, found[0].id, whole=whole)
            assert taken is not None
            assert taken.records == found[0].records
        elif not found and not pair.detached:
            try:
                taken = pure.take(pure.token, key, limit, "none", whole=whole)
            except Blocked:
                return
            assert taken is None or taken.records == 0, f"{key} has {taken} to deliver, and nothing was taken"
            pair.queue = []

    @rule(key=keys, bad=st.integers(0, 2), filtered=st.integers(0, 1), limit=st.integers(1, 5))
    def acknowledge(self, key: Key, bad: int, filtered: int, limit: int) -> None:
        if not self.pure.pairs[key].queue:
            self.take(key, limit)
        pair, found = self.pure.pairs[key], self.real.open_deliveries(key)
        if not pair.queue or pair.detached:
            return
        stored = pair.queue[0]
        bad, filtered = min(bad, stored.records), min(filtered, max(stored.records - bad, 0))
        letters = tuple(Letter(number, stored.slices[0].position) for number in range(bad))
        self.both(
            lambda: self.real.acknowledge(found[0], [(one.position, one.record) for one in letters], filtered),
            lambda pure: pure.acknowledge(pure.token, key, stored.id, letters, filtered),
        )

    @rule(key=keys, count=st.integers(1, 4))
    def mark(self, key: Key, count: int) -> None:
        if not self.pure.pairs[key].queue:
            self.take(key, 5)
        pair, found = self.pure.pairs[key], self.real.open_deliveries(key)
        if pair.queue and not pair.detached and pair.marked < count <= pair.queue[0].records:
            stored = pair.queue[0]
            self.both(
                lambda: deliveries.mark(self.real.ledger, found[0], count),
                lambda pure: pure.mark(pure.token, key, stored.id, count),
            )

    @rule(key=keys)
    def split(self, key: Key) -> None:
        if not self.pure.pairs[key].queue:
            self.take(key, 5)
        pair, found = self.pure.pairs[key], self.real.open_deliveries(key)
        if not pair.queue or pair.queue[0].records < 2 or pair.marked or pair.detached:
            return
        stored = pair.queue[0]
        lengths = {part.position: len(self.pure.streams[key[1]].segments[part.position].ids) for part in stored.slices}
        parts = cut(found[0], lengths, stored.records // 2)

        def pure(ledger: PureLedger) -> None:
            after = [one for one in self.real.open_deliveries(key) if one.id not in {old.id for old in found}]
            ids = [one.id for one in after] or ["first", "second"]
            ledger.split(ledger.token, key, stored.id, halves(stored, ids))

        self.both(lambda: deliveries.split(self.real.ledger, found[0], parts), pure)

    # --- what people do, and what goes wrong

    @rule(name=streams, which=st.integers(0, 12))
    def quarantine(self, name: str, which: int) -> None:
        whole = [one for one in self.pure.streams[name].segments.values() if not one.corrupt and not one.dropped]
        if whole:
            number = whole[which % len(whole)].position
            self.both(
                lambda: self.real.quarantine(name, number), lambda pure: pure.quarantine(pure.token, name, number)
            )

    @rule(name=streams)
    def drop(self, name: str) -> None:
        segments = self.pure.streams[name].segments.values()
        for number in [one.position for one in segments if one.corrupt and not one.dropped]:
            self.both(
                lambda number=number: retention.drop(self.real.ledger, name, [number]),  # type: ignore[misc]
                lambda pure, number=number: pure.drop(pure.token, name, number),  # type: ignore[misc]
            )

    @rule(route=st.sampled_from(ROUTES), name=st.sampled_from(["log", "days"]))
    def detach(self, route: str, name: str) -> None:
        if not self.pure.pairs[route, name].detached:
            self.both(
                lambda: positions.detach(self.real.ledger, route, [name]),
                lambda pure: pure.detach(pure.token, (route, name)),
            )

    @rule(route=st.sampled_from(ROUTES), name=st.sampled_from(["log", "days"]), from_start=st.booleans())
    def replay(self, route: str, name: str, from_start: bool) -> None:
        key = (route, name)
        pair, kept = self.pure.pairs[key], self.pure.streams[name].segments
        first = 1 if from_start or not pair.detached else pair.position
        whole = all(number in kept for number in range(first, self.pure.streams[name].head + 1))
        here = next(one for one in positions.every(self.real.ledger) if (one.route, one.stream) == key)
        moved = here.position + 1 != pair.position and first == pair.position
        if whole and not moved:
            self.both(
                lambda: positions.replay(self.real.ledger, route, name, first - 1),
                lambda pure: pure.replay(pure.token, key, from_position=first),
            )

    @rule(delete=st.booleans())
    def prune(self, delete: bool) -> None:
        self.both(lambda: self.real.prune(delete=delete), prune_all)
        if not delete:
            self.reopen()

    @rule(route=st.sampled_from(ROUTES))
    def leave_and_come_back(self, route: str) -> None:
        def pure(ledger: PureLedger) -> None:
            ledger.discard_route(ledger.token, route)

        for name in KINDS:  # its sums and dead letters stay; the pure ledger forgets them with the pair
            left = self.pure.pairs[route, name]
            self.departed.update({(route, name, word): count for word, count in told(left.account).items()})
            self.departed[route, name, "dropped"] += self.pure.pending((route, name))
            self.departed[route, name, "letters"] += len(left.letters)
        positions.forget(self.real.ledger, route)
        pure(self.pure)
        self.real.register(list(KINDS))
        for name in KINDS:
            self.pure.join(route, name)

    # --- comparing

    @invariant()
    def both_are_alike(self) -> None:
        if not hasattr(self, "pure"):
            return
        found, told_by_model = self.real.snapshot(), self.told(self.pure)
        for section, content in told_by_model.items():
            assert found[section] == content, f"{section}: {found[section]} is not {content}"
        self.real.verify()
        for key in self.pure.pairs:
            assert self.pure.balance(key) == 0

    def told(self, pure: PureLedger) -> dict[str, Any]:
        """What the model tells, and what went away with routes that left."""
        found = tell(pure)
        for (route, name, word), count in self.departed.items():
            if word == "letters":
                found["letters"][route, name] = found["letters"].get((route, name), 0) + count
            else:
                sums = found["accounts"].setdefault((route, name), told(Counter()))
                sums[word] += count
        found["accounts"] = {key: sums for key, sums in found["accounts"].items() if any(sums.values())}
        found["letters"] = {key: count for key, count in found["letters"].items() if count}
        return found

    def teardown(self) -> None:
        if hasattr(self, "real"):
            self.real.close()


def prune_all(pure: PureLedger) -> None:
    for name in KINDS:
        pure.prune(pure.token, name, 10**6)


def halves(stored: Stored, ids: list[str]) -> tuple[Stored, Stored]:
    middle = stored.records // 2
    left: list[Slice] = []
    right: list[Slice] = []
    for part in stored.slices:
        edge = min(part.start + max(middle, 0), part.stop)
        left += [Slice(part.position, part.start, edge)] if edge > part.start else []
        right += [Slice(part.position, edge, part.stop)] if edge < part.stop else []
        middle -= part.stop - part.start
    return Stored(ids[0], tuple(left), stored.generation), Stored(ids[1], tuple(right), stored.generation)


def tell(pure: PureLedger) -> dict[str, Any]:
    """The pure ledger in the words of ``Real.snapshot``."""
    accounts = {key: told(pair.account) for key, pair in pure.pairs.items()}
    return {
        "streams": {name: tell_stream(one) for name, one in pure.streams.items()},
        "segments": {
            (name, number): (len(one.ids), state_of(one), one.generation)
            for name, stream in pure.streams.items()
            for number, one in stream.segments.items()
        },
        "pairs": {key: tell_pair(pure, key) for key in pure.pairs},
        "pending": {key: pure.pending(key) for key in pure.pairs},
        "accounts": {key: sums for key, sums in accounts.items() if any(sums.values())},
        "letters": {key: len(pair.letters) for key, pair in pure.pairs.items() if pair.letters},
    }


def state_of(segment: Any) -> str:
    if segment.dropped:
        return "dropped"
    return "quarantined" if segment.corrupt else "sealed"


def tell_stream(stream: StreamState) -> Any:
    plan = stream.plan
    parts = {part: (one.cursor or None, one.done) for part, one in plan.partitions.items()} if plan else None
    return stream.head, (stream.generation, stream.sealed_generation), stream.cursor or None, parts


def tell_pair(pure: PureLedger, key: Key) -> Any:
    pair = pure.pairs[key]
    queue = tuple(
        (*start_of(stored), stored.records, pair.marked if number == 0 else 0)
        for number, stored in enumerate(pair.queue)
    )
    return pair.position - 1, pair.offset, pair.detached, queue


def start_of(stored: Stored) -> tuple[int, int]:
    first = next((part for part in stored.slices if part.stop > part.start), stored.slices[0])
    return first.position, first.start
