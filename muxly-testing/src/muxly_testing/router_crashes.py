"""Tests that kill a router's process, and that measure its memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs
import pytest

from muxly_testing.crash_messages import Act
from muxly_testing.crashes import Crashes, points
from muxly_testing.deliveries import delivery
from muxly_testing.expectations import expect
from muxly_testing.router_trials import RouterTrials
from muxly_testing.secrecy import with_references

if TYPE_CHECKING:
    from pathlib import Path

    from muxly.router import Delivery, Mode, Router

__all__ = ["RouterCrashes"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
FIRST, SECOND = range(5), range(10, 22)


class RouterCrashes(RouterTrials):
    """What a router promises holds when its process is killed."""

    crash_points: ClassVar[int] = 12
    """At so many points a delivery is killed; each costs two or three processes."""

    big_batches: ClassVar[int] = 96
    """A big delivery has so many batches of 2 MiB."""

    memory_bytes: ClassVar[int] = 96 << 20
    """How much memory a big delivery may take."""

    @pytest.fixture
    def crashes(self, _muxly_crashes: Crashes) -> Crashes:
        """Kills routers."""
        return _muxly_crashes

    @needs_fork
    def test_killed_delivery_is_whole_after_its_repeat(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: Crashes
    ) -> None:
        """Kill -9 before many steps; a reader looks before the repeat; every other time it is killed twice."""
        self._kill_at_many_points(tmp_path, monkeypatch, crashes, self.usual_mode)

    @needs_fork
    def test_killed_replace_shows_the_old_or_the_new_generation(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: Crashes
    ) -> None:
        """And the same calls again make it whole."""
        self.need("replace")
        self._kill_at_many_points(tmp_path, monkeypatch, crashes, "replace")

    def _kill_at_many_points(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: Crashes, mode: Mode
    ) -> None:
        measured = self._fresh(tmp_path / "measured", monkeypatch)
        earlier = _acts(self._delivery(FIRST, mode, 1))
        steps = crashes.attempt(measured, _acts(self._delivery(SECOND, mode, 2)), earlier=earlier)
        for turn, point in enumerate(points(steps, self.crash_points)):
            router = self._fresh(tmp_path / f"point-{point}", monkeypatch)
            there = () if turn % 4 == 3 else FIRST
            one = self._delivery(SECOND, mode, 2)
            self._kill(crashes, router, one, there, [point, point // 2] if turn % 2 else [point])

    def _kill(
        self, crashes: Crashes, router: Router, one: Delivery, there: range | tuple[()], dying: list[int]
    ) -> None:
        marked, states = 0, dict[str, Any]()
        earlier = _acts(self._delivery(there, one.mode, 1)) if there else []
        for tries, point in enumerate(dying, start=1):
            acts = _acts(one, delivered=marked)
            outcome = crashes.attempt(router, acts, earlier=earlier, states=states, die_before=point)
            marked, states, earlier = outcome.marks.get(one.id, marked), outcome.states, []
            self._look(one, there, point, tries)
        crashes.finish(router, _acts(one, delivered=marked), states=states)
        kept = () if one.mode == "replace" else there
        self.expect_arrived([*kept, *SECOND], f"killed before step {dying} and tried again", tries=len(dying) + 1)

    def _look(self, one: Delivery, there: range | tuple[()], point: int, tries: int) -> None:
        """A reader that looks before the repeat sees whole records of the deliveries, none too often."""
        old, new = ({self.identity(self.record(number)) for number in some} for some in (there, SECOND))
        seen = self.seen()
        unknown = sorted(set(seen) - old - new)
        expect(not unknown, f"a reader sees no half record after a kill before step {point}", unknown)
        most = tries if self._promise == "at_least_once" else 1
        doubled = {name: count for name, count in seen.items() if count > most}
        expect(not doubled, f"killed before step {point}: at most {most} of each record is there", doubled)
        kept = old <= set(seen) or (one.mode == "replace" and new == set(seen))
        expect(kept, f"killed before step {point}: what was delivered before is still there", sorted(seen))
        whole = one.mode != "replace" or set(seen) in (old, new)
        expect(whole, f"killed before step {point}: the old or the new generation is visible", sorted(seen))

    @needs_fork
    def test_memory_of_a_big_delivery_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: Crashes
    ) -> None:
        """A router takes a delivery batch by batch."""
        router = self._fresh(tmp_path / "big", monkeypatch)
        text = "".join(chr(97 + index * 7919 % 26) for index in range(1 << 14))
        records = [{**self.record(number), "text": f"{number}{text}"} for number in range(128)]
        # The first one loads what the router needs; the second shows what records take.
        acts = [
            attrs.evolve(act, repeat=repeat)
            for generation, repeat in enumerate((2, self.big_batches), start=1)
            for act in _acts(self._of_mode(records, self.usual_mode, generation))
        ]
        outcome = crashes.finish(router, acts)
        expect(
            outcome.grown_bytes <= self.memory_bytes,
            f"a delivery of {2 * self.big_batches} MiB takes at most {self.memory_bytes >> 20} MiB of memory",
            f"{outcome.grown_bytes >> 20} MiB",
        )

    def _delivery(self, numbers: range, mode: Mode, generation: int) -> Delivery:
        return self.numbered(numbers, mode=mode, generation=self._generation_of(mode, generation))

    def _of_mode(self, records: list[dict[str, Any]], mode: Mode, generation: int) -> Delivery:
        return delivery(records, self.stream, mode=mode, generation=self._generation_of(mode, generation))

    def _generation_of(self, mode: Mode, number: int) -> int | None:
        return number if mode == "replace" else None

    def _fresh(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
        return cast("Router", with_references(self.router(folder / "inside" / "deep"), monkeypatch.setenv))


def _acts(one: Delivery, *, delivered: int = 0) -> list[Act]:
    """The calls that the runner makes for a delivery."""
    act = Act(
        method="deliver",
        stream=one.stream,
        generation=one.generation,
        mode=one.mode,
        id=one.id,
        digest=one.digest,
        batches=tuple(one.all_batches()),
        delivered=delivered,
    )
    if one.mode != "replace":
        return [act]
    begin, complete = (
        Act(method=method, stream=one.stream, generation=one.generation) for method in ("begin", "complete")
    )
    return [begin, act, complete]
