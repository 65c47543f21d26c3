"""Hypothesis plays fate with the model: any order of events, and the rules hold."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.model import events, verdict
from tests.core.model.rules import ALL_RULES
from tests.core.model.world import World

NAMES = {event.__name__: event for _, event in events.EVENTS}


class Fate(RuleBasedStateMachine):
    """Each event is drawn by name, so that what fails shrinks to the few events that matter."""

    world: World

    @initialize(seed=st.integers(0, 2**32))
    def build(self, seed: int) -> None:
        self.world = events.build(Random(seed), ALL_RULES)
        events.produce(self.world)

    @rule(name=st.sampled_from(sorted(NAMES)))
    def happen(self, name: str) -> None:
        NAMES[name](self.world)

    @rule(count=st.integers(1, 60))
    def go_on(self, count: int) -> None:
        events.start(self.world)
        events.step(self.world, count)

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "world"):
            verdict.check_always(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            events.conclude(self.world)


TestFate = Fate.TestCase
TestFate.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
