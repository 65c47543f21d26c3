"""A run as processes that stop between any two durable effects: extraction, the committer, one worker per pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

from attrs import define, field

from tests.core.model.ledger import Fenced, PlanState
from tests.core.model.places import Record
from tests.core.model.reading import Reading, Waiting
from tests.core.model.worker import PATIENCE, Worker

if TYPE_CHECKING:
    from tests.core.model.world import World

__all__ = ["Run"]

Steps = Generator[None, None, None]


@define(eq=False)
class Run:
    """Everything one process has in memory; a crash is to forget it."""

    world: World
    token: int
    waiting: list[Waiting] = field(factory=list)
    active: dict[str, Steps] = field(factory=dict)
    readers: int = 0
    sealing: bool = False
    stopped: set[tuple[str, str]] = field(factory=set)
    rejected: Counter[tuple[str, str]] = field(factory=Counter)
    readings: int = 0
    broken: bool = False
    delivering: set[tuple[str, str]] = field(factory=set)

    def start(self) -> None:
        ledger = self.world.ledger
        self.readers = len(ledger.streams)
        for name in ledger.streams:
            self.spawn(f"extract {name}", self.extract(name))
        self.spawn("commit", self.commit())
        for key, pair in ledger.pairs.items():
            if not pair.detached and key[0] not in self.world.removed:
                self.spawn(f"deliver {key}", Worker(self, key).steps())
        if not self.world.rules.sweep_spares_the_living:
            self.spawn("sweep", self.sweep_always())

    def spawn(self, name: str, steps: Steps) -> None:
        self.active[name] = steps

    def step(self, name: str) -> None:
        """Let one process go on to its next durable effect; a fenced run ends at once."""
        try:
            next(self.active[name])
        except StopIteration:
            self.active.pop(name, None)
        except Fenced:
            self.active.clear()
        except KeyError:
            if self.token == self.world.ledger.token:
                raise
            self.active.clear()  # a zombie looked for rows that are gone

    @property
    def reading(self) -> bool:
        return bool(self.readers or self.waiting or self.sealing)

    # --- extraction

    def extract(self, name: str) -> Steps:
        """Finish the unfinished plan, then plan once more."""
        ledger, source = self.world.ledger, self.world.sources[name]
        for _ in range(2):
            plan, continued = self.open_plan(name), True
            if plan is None:
                continued = False
                plan = self.world.make_plan(self.token, name, source)
                yield
            for part in [part for part, state in plan.partitions.items() if not state.done]:
                self.spawn(f"read {name} {plan.number} {part}", self.read(name, plan, part))
                self.readers += 1
            while any(f"read {name} {plan.number} {part}" in self.active for part in plan.partitions):
                yield
            if ledger.streams[name].plan is plan or not continued:
                break
        self.readers -= 1

    def open_plan(self, name: str) -> PlanState | None:
        """The stored plan, if it may be continued."""
        ledger, rules, source = self.world.ledger, self.world.rules, self.world.sources[name]
        stream = ledger.streams[name]
        plan = stream.plan
        if plan is None:
            return None
        if plan.options != source.options and rules.plan_of_other_options_is_dropped:
            self.world.forgive(name)
            ledger.discard_plan(self.token, name)
            return None
        if stream.kind == "full" and not rules.generation_continues:
            ledger.discard_plan(self.token, name)
            return None
        if not rules.plan_is_stored:
            plan.until = self.world.reach(name)
        return plan

    def read(self, name: str, plan: PlanState, part: int) -> Steps:
        """Readings of one partition, until it is sealed to its end or this run has to leave it."""
        for _ in range(PATIENCE):
            self.readings += 1
            own = self.world.rules.readings_have_own_keys
            key = self.world.new_id("r") if own else f"{name}.{part}.{self.readings}"
            reading = Reading(self, name, plan, part, key)
            full = yield from reading.steps()
            groups = reading.groups
            while any(one.verdict is None for one in groups) and all(one.verdict is not False for one in groups):
                if self.world.fault(3):
                    break  # it does not wait for its own groups: the next reading may overtake them
                yield
            if full or (groups and groups[-1].group.done and groups[-1].verdict is not False):
                break
        self.readers -= 1

    def wait_for_room(self, name: str) -> Generator[None, None, bool]:
        """Waits while the spool is full; true when reading has to end here."""
        ledger, world = self.world.ledger, self.world
        while world.spooled(name) >= world.budget:
            yield
            holders = [
                key for key, pair in ledger.pairs.items()
                if key[1] == name and not pair.detached and ledger.pending(key)
            ]  # fmt: skip
            if not holders or not all(key in self.stopped for key in holders):
                continue
            loose = [key for key in holders if world.routes[key[0]].detaches and ledger.streams[name].kind != "full"]
            for key in loose:
                world.detach(self.token, key)
            if not loose and world.rules.full_spool_ends_reading:
                return True
        return False

    # --- sealing

    def commit(self) -> Steps:
        """Write, fsync, publish, fsync the folder, and only then the one transaction."""
        while self.readers or self.waiting:
            if not self.waiting:
                yield
                continue
            some, self.waiting, self.sealing = self.waiting[:3], self.waiting[3:], True
            name = f"{self.token}-{some[0].group.key}"
            if not self.world.rules.readings_have_own_keys:
                name = some[0].group.key
            content = tuple(segment for one in some for segment in one.content)
            if content:
                yield from self.publish(name, content)
            yield from self.seal(name, some)
            self.sealing = False

    def publish(self, name: str, content: tuple[tuple[Record, ...], ...]) -> Steps:
        disk, rules = self.world.disk, self.world.rules
        disk.write(name, content)
        yield
        if rules.seal_follows_fsync:
            disk.synced.add(name)
            yield
        if rules.seal_follows_folder_fsync:
            disk.named.add(name)
            yield

    def seal(self, name: str, some: list[Waiting]) -> Steps:
        place = 0
        for one in some:
            if self.world.rules.seal_is_one_transaction:
                one.verdict = self.world.seal(self.token, one.group, name, place)
            else:
                one.verdict = self.world.seal(self.token, one.group, name, place, "segments")
                yield
                one.verdict = self.world.seal(self.token, one.group, name, place, "cursor")
            place += len(one.content)
        yield

    def sweep_always(self) -> Steps:
        """Only a mutant: takes what is just being sealed for a leftover."""
        while self.reading:
            self.world.sweep()
            yield
