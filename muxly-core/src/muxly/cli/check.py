"""``muxly check``: whether everything outside is as it should be."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, field, frozen

from muxly._ids import new_id
from muxly.cli._app import Command
from muxly.cli._output import ExitCode, write_json, write_listing
from muxly.cli._project import Where, as_json, located
from muxly.component import Notice, Run
from muxly.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from muxly.cli._project import Project
    from muxly.component import Component


_DEADLINE_SECONDS = 30.0


@click.command(
    cls=Command,
    name="check",
    examples="""
        muxly check
        muxly check crm.yaml contacts --timeout 5 --json
    """,
    epilog="Exit codes: 0 all is well (warnings too), 1 something failed, 2 the configuration is wrong.",
)
@located()
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=_DEADLINE_SECONDS, show_default=True,
    metavar="SECONDS", help="How long each may take.",
)  # fmt: skip
@as_json
@click.pass_context
def command(ctx: click.Context, /, where: Where, timeout: float, as_json: bool) -> None:
    """Open and check the connector and every router, all at the same time, and report each.

    Nothing is read from the source and nothing is written to a destination, to the ledger or to
    the spool.
    """
    project = where.open()

    def placed(error: ConfigurationError, trial: Trial) -> str:
        return str(project.placed(error, trial.pipeline, trial.route) if trial.pipeline else error)

    tried = try_all(_trials(project), seconds=timeout, placed=placed)
    if as_json:
        write_json([_json(one) for one in tried])
    else:
        rows = [row for one in tried for row in _rows(one)]
        write_listing(("pipeline", "component", "type", "state", "said"), rows, as_json=False, empty="")
    ctx.exit(_code(tried))


def _trials(project: Project) -> list[Trial]:
    """The components of the pipelines that were asked for, and of the events."""
    found = []
    for name in project.names():
        pipeline = project.pipeline(name)
        found.append(Trial(pipeline=name, route=None, component=pipeline.connector))
        found += [Trial(pipeline=name, route=one.name, component=one.router) for one in pipeline.routes]
    events = project.configuration.events
    return [*found, *(Trial(pipeline="", route=one.name, component=one.router) for one in events.values())]


def _code(tried: list[Trial]) -> ExitCode:
    if any(one.wrong for one in tried):
        return ExitCode.USAGE
    return ExitCode.FAILED if any(one.state == "error" for one in tried) else ExitCode.DELIVERED


def _rows(one: Trial) -> list[dict[str, Any]]:
    """A line for each thing that was said."""
    named = {
        "pipeline": one.pipeline or "(events)",
        "component": "connector" if one.route is None else f"route {one.route}",
        "type": type(one.component).__name__,
    }
    said = [(one.level if one.level != "info" else "ok", one.message) for one in one.notices]
    if one.error is not None:
        said.append(("error", one.error))
    return [{**named, "state": state, "said": text} for state, text in said or [("ok", "")]]


def _json(one: Trial) -> dict[str, Any]:
    return {
        "pipeline": one.pipeline or None,
        "route": one.route,
        "type": type(one.component).__name__,
        "state": one.state,
        "error": one.error,
        "notices": [
            {"level": notice.level, "code": notice.code, "message": notice.message, "stream": notice.stream}
            for notice in one.notices
        ],
        "seconds": round(one.seconds, 3),
    }


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
