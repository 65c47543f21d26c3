"""Trying components: each is opened and checked in a thread of its own, with a deadline."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from muxly._ids import new_id
from muxly.component import Notice, Run
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from muxly.component import Component


@frozen(kw_only=True)
class Trial:
    """One component to be tried, and what came of it.

    Args:
        pipeline: The pipeline's name; empty = the configuration's events.
        route: The route's name; None = the connector.
        component: What is tried; a private copy is.
        notices: What it said.
        error: Why it failed, if it did.
        wrong: Whether the error is one of the configuration.
        seconds: How long it took.
    """

    pipeline: str
    route: str | None
    component: Component
    notices: tuple[Notice, ...] = field(default=())
    error: str | None = None
    wrong: bool = False
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """``ok``, ``warning`` or ``error``: the worst of what was said."""
        levels = {one.level for one in self.notices}
        if self.error is not None or "error" in levels:
            return "error"
        return "warning" if "warning" in levels else "ok"


def try_all(
    trials: Sequence[Trial], *, seconds: float, placed: Callable[[ConfigurationError, Trial], str]
) -> list[Trial]:
    """Try all at the same time, each not longer than so many seconds.

    Args:
        trials: What to try.
        seconds: The deadline; what has not answered by then failed, and is left to itself.
        placed: An error with its place in the file.
    """
    stop = threading.Event()
    tried: dict[int, Trial] = {}

    def work(number: int, trial: Trial) -> None:
        tried[number] = _tried(trial, stop, placed)

    threads = [
        threading.Thread(target=work, args=(number, trial), name=f"muxly-check-{number}", daemon=True)
        for number, trial in enumerate(trials)
    ]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    found = dict(tried)
    stop.set()
    late = f"no answer within {seconds:g} s; see whether it can be reached, or give it longer with --timeout"
    return [found.get(number) or evolve(trial, error=late, seconds=seconds) for number, trial in enumerate(trials)]


def _tried(trial: Trial, stop: threading.Event, placed: Callable[[ConfigurationError, Trial], str]) -> Trial:
    begun = time.monotonic()
    said: list[Notice] = []
    run = Run(new_id(), trial.pipeline or "events", stop=stop, on_notice=said.append)
    component = copy.deepcopy(trial.component)
    error, wrong = None, False
    try:
        component.open(run)
        said += list(component.check())
    except ConfigurationError as caught:
        error, wrong = placed(caught, trial), True
    except BaseException as caught:  # noqa: BLE001 - a plugin may raise anything
        error = _sentence(caught)
    error = _close(component, run) or error if error is None else error
    return evolve(trial, notices=tuple(said), error=error, wrong=wrong, seconds=time.monotonic() - begun)


def _close(component: Component, run: Run) -> str | None:
    try:
        component.close()
    except BaseException as caught:  # noqa: BLE001 - a plugin may raise anything
        return f"closing: {_sentence(caught)}"
    finally:
        run.end()
    return None


def _sentence(error: BaseException) -> str:
    from muxly._runner.context import sentence

    return sentence(error)
