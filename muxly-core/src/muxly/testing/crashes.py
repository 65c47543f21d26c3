"""Killing a router at many points of its work, in processes of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Self, cast

from muxly.testing import crash_child
from muxly.testing.crash_child import Act, Attempt, Outcome
from muxly.testing.expectations import expect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from muxly.router import Router

__all__ = ["Crashes", "points"]


class Crashes:
    """A process that tries deliveries and dies when it is told; a context manager."""

    def __init__(self, router: Router) -> None:
        module = sys.modules[type(router).__module__]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from muxly.testing.crash_child import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._tell((sys.path, module.__name__, module.__file__))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)

    def attempt(
        self, router: Router, acts: Sequence[Act], *, die_before: int | None = None, counted: bool = True
    ) -> Outcome:
        """Open the router in a new process, act, and close it, or die before a step.

        Raises:
            AssertionError: The router raised.
        """
        self._tell(Attempt(router=pickle.dumps(router), acts=tuple(acts), die_before=die_before, counted=counted))
        assert self._process.stdout is not None
        outcome = crash_child.receive(self._process.stdout)
        expect(outcome is not None, "a router can be imported by name in another process, as by an executor's worker")
        expect(outcome.error is None, "a delivery works in another process, and after a crash", outcome.error)
        return cast("Outcome", outcome)

    def finish(self, router: Router, acts: Sequence[Act]) -> Outcome:
        """The same, to the end."""
        outcome = self.attempt(router, acts, counted=False)
        expect(outcome.finished, "a router does not end its process")
        return outcome

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None
        crash_child.send(self._process.stdin, message)


def points(outcome: Outcome, count: int) -> list[int]:
    """So many steps to die before: half of them among those that others can see, all spread evenly."""
    half = max(1, count // 2)
    return sorted({*_spread(outcome.visible, half), *_spread(range(outcome.steps), count - half)})


def _spread(steps: Sequence[int], count: int) -> list[int]:
    if len(steps) <= count:
        return list(steps)
    return [steps[index * (len(steps) - 1) // max(1, count - 1)] for index in range(count)]
