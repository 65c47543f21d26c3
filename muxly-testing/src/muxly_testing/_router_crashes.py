"""Tests that kill a router's process, and that measure its memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import attrs
import pytest

from muxly.router import Delivery, Mode, Router
from muxly_testing._crash_child import CrashAttempt, CrashOutcome, RouterCall, receive, send
from muxly_testing._deliveries import delivery
from muxly_testing._expectations import expect, with_references
from muxly_testing._router_harness import RouterHarness

__all__ = ["CrashRunner", "RouterCrashes", "points"]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
FIRST, SECOND = range(5), range(10, 22)


class RouterCrashes(RouterHarness):
    """What a router promises holds when its process is killed."""

    crash_points: ClassVar[int] = 12
    """At so many points a delivery is killed; each costs two or three processes."""

    big_batches: ClassVar[int] = 96
    """A big delivery has so many batches of 2 MiB."""

    memory_bytes: ClassVar[int] = 96 << 20
    """How much memory a big delivery may take."""

    @pytest.fixture
    def crashes(self, _muxly_crashes: CrashRunner) -> CrashRunner:
        """Kills routers."""
        return _muxly_crashes

    @needs_fork
    def test_killed_delivery_is_whole_after_its_repeat(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """Kill -9 before many steps; a reader looks before the repeat; every other time it is killed twice."""
        self._kill_at_many_points(tmp_path, monkeypatch, crashes, self.usual_mode)

    @needs_fork
    def test_killed_replace_shows_the_old_or_the_new_generation(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """And the same calls again make it whole."""
        self.need("replace")
        self._kill_at_many_points(tmp_path, monkeypatch, crashes, "replace")

    def _kill_at_many_points(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner, mode: Mode
    ) -> None:
        measured = self._fresh(tmp_path / "measured", monkeypatch)
        earlier = _router_calls(self._delivery(FIRST, mode, 1))
        steps = crashes.attempt(measured, _router_calls(self._delivery(SECOND, mode, 2)), earlier=earlier)
        for turn, point in enumerate(points(steps, self.crash_points)):
            router = self._fresh(tmp_path / f"point-{point}", monkeypatch)
            there = () if turn % 4 == 3 else FIRST
            one = self._delivery(SECOND, mode, 2)
            self._kill(crashes, router, one, there, [point, point // 2] if turn % 2 else [point])

    def _kill(
        self, crashes: CrashRunner, router: Router, one: Delivery, there: range | tuple[()], dying: list[int]
    ) -> None:
        marked, states = 0, dict[str, Any]()
        earlier = _router_calls(self._delivery(there, one.mode, 1)) if there else []
        for tries, point in enumerate(dying, start=1):
            calls = _router_calls(one, delivered=marked)
            outcome = crashes.attempt(router, calls, earlier=earlier, states=states, die_before=point)
            marked, states, earlier = outcome.marks.get(one.id, marked), outcome.states, []
            self._look(one, there, point, tries)
        crashes.finish(router, _router_calls(one, delivered=marked), states=states)
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
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """A router takes a delivery batch by batch."""
        router = self._fresh(tmp_path / "big", monkeypatch)
        text = "".join(chr(97 + index * 7919 % 26) for index in range(1 << 14))
        records = [{**self.record(number), "text": f"{number}{text}"} for number in range(128)]
        # The first one loads what the router needs; the second shows what records take.
        calls = [
            attrs.evolve(call, repeat=repeat)
            for generation, repeat in enumerate((2, self.big_batches), start=1)
            for call in _router_calls(self._of_mode(records, self.usual_mode, generation))
        ]
        outcome = crashes.finish(router, calls)
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


def _router_calls(one: Delivery, *, delivered: int = 0) -> list[RouterCall]:
    """The calls that the runner makes for a delivery."""
    call = RouterCall(
        method="deliver",
        stream=one.stream,
        generation=one.generation,
        mode=one.mode,
        id=one.id,
        digest=one.digest,
        batches=tuple(one.source()),
        delivered=delivered,
    )
    if one.mode != "replace":
        return [call]
    begin, complete = (
        RouterCall(method=method, stream=one.stream, generation=one.generation) for method in ("begin", "complete")
    )
    return [begin, call, complete]


class CrashRunner:
    """A process that tries deliveries in children, which die when they are told.

    It is kept from test to test, since most of the time of a new one goes into imports; only a router of
    another module gets a new one, lest what one router imports is there for all that follow.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._module: tuple[str, str] = ("", "")

    def close(self) -> None:
        """End the process; may be repeated."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            process.wait(30)

    def attempt(
        self,
        router: Router,
        calls: Sequence[RouterCall],
        *,
        earlier: Sequence[RouterCall] = (),
        states: Mapping[str, Any] | None = None,
        die_before: int | None = None,
        counted: bool = True,
    ) -> CrashOutcome:
        """Open the router in a new process, call, and close it, or die before a step.

        Args:
            router: Not opened; it pickles.
            calls: What it does.
            earlier: What another copy does before that, to its end.
            states: What the ledger keeps of each stream before all that.
            die_before: The number of the step that is not reached; None = it lives.
            counted: Whether steps are counted.

        Raises:
            AssertionError: The router raised.
        """
        module = sys.modules[type(router).__module__]
        process = self._serving((module.__name__, module.__file__ or ""))
        attempt = CrashAttempt(
            module=self._module,
            path=tuple(sys.path),
            environ=dict(os.environ),
            router=pickle.dumps(router),
            earlier=tuple(earlier),
            calls=tuple(calls),
            states=dict(states or {}),
            die_before=die_before,
            counted=counted,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        send(process.stdin, attempt)
        outcome = receive(process.stdout)
        if outcome is None:
            self.close()
        expect(outcome is not None, "a router can be imported by name in another process, as by an executor's worker")
        expect(outcome.error is None, "a delivery works in another process, and after a crash", outcome.error)
        return cast("CrashOutcome", outcome)

    def finish(
        self, router: Router, calls: Sequence[RouterCall], *, states: Mapping[str, Any] | None = None
    ) -> CrashOutcome:
        """The same, to the end."""
        outcome = self.attempt(router, calls, states=states, counted=False)
        expect(outcome.finished, "a router does not end its process")
        return outcome

    def _serving(self, module: tuple[str, str]) -> subprocess.Popen[bytes]:
        if self._module != module:
            self.close()
        self._module = module
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from muxly_testing._crash_child import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process


def points(outcome: CrashOutcome, count: int) -> list[int]:
    """So many steps to die before, where it makes a difference.

    Between two steps that others can see nothing changes outside, so that two thirds are steps of that
    kind, a different one each as long as there are some; the others are lines, spread evenly.
    """
    firsts = sorted({what: number for number, what in reversed(outcome.visible.items())}.values())
    others = [number for number in outcome.visible if number not in set(firsts)]
    seen = max(1, count * 2 // 3)
    chosen = {*_spread(firsts, seen), *_spread(others, seen - len(firsts))}
    return sorted({*chosen, *_spread(range(outcome.steps), count - len(chosen))})


def _spread(steps: Sequence[int], count: int) -> list[int]:
    if len(steps) <= count:
        return list(steps)
    return [steps[index * (len(steps) - 1) // max(1, count - 1)] for index in range(max(0, count))]
