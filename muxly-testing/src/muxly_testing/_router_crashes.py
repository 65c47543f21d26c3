"""Conformance tests that kill a router's process or measure its memory."""

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
from muxly_testing._deliveries import delivery as make_delivery
from muxly_testing._expectations import expect, with_references
from muxly_testing._router_harness import RouterHarness

__all__ = ["CrashRunner", "RouterCrashes"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
FIRST, SECOND = range(5), range(10, 22)


class RouterCrashes(RouterHarness):
    """Tests that a router's promise holds when its process is killed, and that its memory is bounded.

    A delivery is first made once without a kill, which counts its steps. Then it is made again and
    again, each time in a new folder, and killed before another of those steps. Between the kill
    and the repeat a reader looks at the destination: it may see more or less of the new delivery,
    as the promise allows, but no part of a record and nothing missing of what was there before.
    Every fourth time the destination starts empty; every second time the repeat is killed too,
    at half of the way, so that recovery itself is interrupted.
    """

    crash_points: ClassVar[int] = 12
    """Number of points at which a delivery is killed; each costs two or three processes."""

    big_batches: ClassVar[int] = 96
    """Number of batches, of 2 MiB each, in a big delivery."""

    memory_bytes: ClassVar[int] = 96 << 20
    """Bytes of memory that a big delivery may take."""

    @pytest.fixture
    def crashes(self, _muxly_crashes: CrashRunner) -> CrashRunner:
        """Runs deliveries that are killed."""
        return _muxly_crashes

    @needs_fork
    def test_killed_delivery_is_whole_after_its_repeat(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """``kill -9`` before many steps, then a reader, then the repeat."""
        self._kill_at_many_points(tmp_path, monkeypatch, crashes, self.usual_mode)

    @needs_fork
    def test_killed_replace_shows_the_old_or_the_new_generation(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """Repeating the same calls then completes it."""
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
            delivery = self._delivery(SECOND, mode, 2)
            self._kill(crashes, router, delivery, there, [point, point // 2] if turn % 2 else [point])

    def _kill(
        self, crashes: CrashRunner, router: Router, delivery: Delivery, there: range | tuple[()], dying: list[int]
    ) -> None:
        marked, states = 0, dict[str, Any]()
        earlier = _router_calls(self._delivery(there, delivery.mode, 1)) if there else []
        for tries, point in enumerate(dying, start=1):
            calls = _router_calls(delivery, delivered=marked)
            outcome = crashes.attempt(router, calls, earlier=earlier, states=states, die_before=point)
            marked, states, earlier = outcome.marks.get(delivery.id, marked), outcome.states, []
            self._expect_consistent(delivery, there, point, tries)
        crashes.finish(router, _router_calls(delivery, delivered=marked), states=states)
        kept = () if delivery.mode == "replace" else there
        self.expect_arrived([*kept, *SECOND], f"killed before step {dying} and tried again", tries=len(dying) + 1)

    def _expect_consistent(self, delivery: Delivery, there: range | tuple[()], point: int, tries: int) -> None:
        """Expect that a reader before the repeat sees only whole records of the deliveries, none too often."""
        old, new = ({self.identity(self.record(number)) for number in some} for some in (there, SECOND))
        seen = self.seen()
        unknown = sorted(set(seen) - old - new)
        expect(not unknown, f"a reader sees no half record after a kill before step {point}", unknown)
        most = tries if self._promise == "at_least_once" else 1
        doubled = {name: count for name, count in seen.items() if count > most}
        expect(not doubled, f"killed before step {point}: at most {most} of each record is there", doubled)
        kept = old <= set(seen) or (delivery.mode == "replace" and new == set(seen))
        expect(kept, f"killed before step {point}: what was delivered before is still there", sorted(seen))
        whole = delivery.mode != "replace" or set(seen) in (old, new)
        expect(whole, f"killed before step {point}: the old or the new generation is visible", sorted(seen))

    @needs_fork
    def test_memory_of_a_big_delivery_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: CrashRunner
    ) -> None:
        """A router takes a delivery batch by batch."""
        router = self._fresh(tmp_path / "big", monkeypatch)
        text = "".join(chr(97 + index * 7919 % 26) for index in range(1 << 14))
        records = [{**self.record(number), "text": f"{number}{text}"} for number in range(128)]
        # The first delivery loads what the router needs; the second shows what the records take.
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
        return make_delivery(records, self.stream, mode=mode, generation=self._generation_of(mode, generation))

    def _generation_of(self, mode: Mode, number: int) -> int | None:
        return number if mode == "replace" else None

    def _fresh(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
        return cast("Router", with_references(self.router(folder / "inside" / "deep"), monkeypatch.setenv))


def _router_calls(delivery: Delivery, *, delivered: int = 0) -> list[RouterCall]:
    """The calls that the runner makes for a delivery."""
    call = RouterCall(
        method="deliver",
        stream=delivery.stream,
        generation=delivery.generation,
        mode=delivery.mode,
        id=delivery.id,
        digest=delivery.digest,
        batches=tuple(delivery.all_batches()),
        delivered=delivered,
    )
    if delivery.mode != "replace":
        return [call]
    begin = RouterCall(method="begin", stream=delivery.stream, generation=delivery.generation)
    return [begin, call, attrs.evolve(begin, method="complete")]


class CrashRunner:
    """Makes deliveries in child processes that kill themselves before a chosen step.

    One parent process forks them all and is kept from test to test, since a new one spends most of
    its time on imports. A router of another module gets a new parent: otherwise it could use
    modules that only the earlier router imported, and a missing import would not show.
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
        """Open the router in a new process, make the calls and close it, or die before a step.

        Args:
            router: Not opened; it pickles.
            calls: The calls of the router.
            earlier: Calls that another copy completes before.
            states: The ledger's state of each stream at the start.
            die_before: The number of the step before which the process dies; None = it finishes.
            counted: Whether steps are counted.

        Raises:
            AssertionError: The router raised.
        """
        module = sys.modules[type(router).__module__]
        process = self._running_parent((module.__name__, module.__file__ or ""))
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
        """Make the calls without being killed, and without counting steps."""
        outcome = self.attempt(router, calls, states=states, counted=False)
        expect(outcome.finished, "a router does not end its process")
        return outcome

    def _running_parent(self, module: tuple[str, str]) -> subprocess.Popen[bytes]:
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
    """Choose up to ``count`` steps to die before, where a death makes a difference.

    The outside world changes only at visible steps. Hence two thirds of the points are visible
    steps, as many different ones as there are; the rest are lines, spread evenly.
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
