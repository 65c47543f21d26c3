"""Killing a router at many points of its work, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

from muxly_testing.crash_messages import Act, Attempt, Outcome, receive, send
from muxly_testing.expectations import expect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muxly.router import Router

__all__ = ["Crashes", "points"]


class Crashes:
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
        acts: Sequence[Act],
        *,
        earlier: Sequence[Act] = (),
        states: Mapping[str, Any] | None = None,
        die_before: int | None = None,
        counted: bool = True,
    ) -> Outcome:
        """Open the router in a new process, act, and close it, or die before a step.

        Args:
            router: Not opened; it pickles.
            acts: What it does.
            earlier: What another copy does before that, to its end.
            states: What the ledger keeps of each stream before all that.
            die_before: The number of the step that is not reached; None = it lives.
            counted: Whether steps are counted.

        Raises:
            AssertionError: The router raised.
        """
        module = sys.modules[type(router).__module__]
        process = self._serving((module.__name__, module.__file__ or ""))
        attempt = Attempt(
            module=self._module,
            path=tuple(sys.path),
            environ=dict(os.environ),
            router=pickle.dumps(router),
            earlier=tuple(earlier),
            acts=tuple(acts),
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
        return cast("Outcome", outcome)

    def finish(self, router: Router, acts: Sequence[Act], *, states: Mapping[str, Any] | None = None) -> Outcome:
        """The same, to the end."""
        outcome = self.attempt(router, acts, states=states, counted=False)
        expect(outcome.finished, "a router does not end its process")
        return outcome

    def _serving(self, module: tuple[str, str]) -> subprocess.Popen[bytes]:
        if self._module != module:
            self.close()
        self._module = module
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from muxly_testing.crash_child import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process


def points(outcome: Outcome, count: int) -> list[int]:
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
