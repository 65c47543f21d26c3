"""``muxly check``: open and check every component, each in a thread of its own and with a deadline."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from attrs import evolve, field, frozen

from muxly._ids import new_id
from muxly.cli._app import Command
from muxly.cli._output import ExitCode, write_json, write_listing
from muxly.cli._project import Project, ProjectSelection, as_json, project_options
from muxly.component import Component, Notice, Run
from muxly.errors import ConfigurationError

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
@project_options()
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=_DEADLINE_SECONDS, show_default=True,
    metavar="SECONDS", help="Time limit for each check.",
)  # fmt: skip
@as_json
@click.pass_context
def command(ctx: click.Context, /, selection: ProjectSelection, timeout: float, as_json: bool) -> None:
    """Open and check the connector and every router, all at the same time, and report each.

    Nothing is read from the source and nothing is written to a destination, to the ledger or to
    the spool.
    """
    project = selection.open()

    def with_location(error: ConfigurationError, check: ComponentCheck) -> str:
        return str(project.with_location(error, check.pipeline, check.route) if check.pipeline else error)

    checked = check_all(_component_checks(project), seconds=timeout, with_location=with_location)
    if as_json:
        write_json([_json(check) for check in checked])
    else:
        rows = [row for check in checked for row in _rows(check)]
        write_listing(("pipeline", "component", "type", "state", "message"), rows, as_json=False, empty="")
    ctx.exit(_code(checked))


def _component_checks(project: Project) -> list[ComponentCheck]:
    """The components of the pipelines that were asked for, and of the events."""
    checks = []
    for name in project.names():
        pipeline = project.pipeline(name)
        checks.append(ComponentCheck(pipeline=name, route=None, component=pipeline.connector))
        checks += [ComponentCheck(pipeline=name, route=route.name, component=route.router) for route in pipeline.routes]
    events = project.configuration.events
    return [
        *checks,
        *(ComponentCheck(pipeline="", route=event.name, component=event.router) for event in events.values()),
    ]


def _code(checked: list[ComponentCheck]) -> ExitCode:
    if any(check.wrong for check in checked):
        return ExitCode.USAGE
    return ExitCode.FAILED if any(check.state == "error" for check in checked) else ExitCode.DELIVERED


def _rows(check: ComponentCheck) -> list[dict[str, Any]]:
    """A row for each message."""
    named = {
        "pipeline": check.pipeline or "(events)",
        "component": "connector" if check.route is None else f"route {check.route}",
        "type": type(check.component).__name__,
    }
    messages = [(notice.level if notice.level != "info" else "ok", notice.message) for notice in check.notices]
    if check.error is not None:
        messages.append(("error", check.error))
    return [{**named, "state": state, "message": text} for state, text in messages or [("ok", "")]]


def _json(check: ComponentCheck) -> dict[str, Any]:
    return {
        "pipeline": check.pipeline or None,
        "route": check.route,
        "type": type(check.component).__name__,
        "state": check.state,
        "error": check.error,
        "notices": [
            {"level": notice.level, "code": notice.code, "message": notice.message, "stream": notice.stream}
            for notice in check.notices
        ],
        "seconds": round(check.seconds, 3),
    }


@frozen(kw_only=True)
class ComponentCheck:
    """The check of one component, and its outcome.

    Args:
        pipeline: The pipeline's name; empty = the configuration's events.
        route: The route's name; None = the connector.
        component: The component; a private copy of it is checked.
        notices: The notices that it gave.
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
        """``ok``, ``warning`` or ``error``: the most severe of its notices."""
        levels = {notice.level for notice in self.notices}
        if self.error is not None or "error" in levels:
            return "error"
        return "warning" if "warning" in levels else "ok"


def check_all(
    checks: Sequence[ComponentCheck],
    *,
    seconds: float,
    with_location: Callable[[ConfigurationError, ComponentCheck], str],
) -> list[ComponentCheck]:
    """Check all components at the same time.

    Args:
        checks: Components to check.
        seconds: The deadline of each; one that has not answered by then has failed, and its thread is abandoned.
        with_location: Gives an error with its location in the file.
    """
    stop = threading.Event()
    outcomes: dict[int, ComponentCheck] = {}

    def work(number: int, check: ComponentCheck) -> None:
        outcomes[number] = _checked(check, stop, with_location)

    threads = [
        threading.Thread(target=work, args=(number, check), name=f"muxly-check-{number}", daemon=True)
        for number, check in enumerate(checks)
    ]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    in_time = dict(outcomes)
    stop.set()
    late = f"no answer within {seconds:g} s; check that it can be reached, or allow more time with --timeout"
    return [in_time.get(number) or evolve(check, error=late, seconds=seconds) for number, check in enumerate(checks)]


def _checked(
    check: ComponentCheck, stop: threading.Event, with_location: Callable[[ConfigurationError, ComponentCheck], str]
) -> ComponentCheck:
    begun = time.monotonic()
    notices: list[Notice] = []
    run = Run(new_id(), check.pipeline or "events", stop=stop, on_notice=notices.append)
    component = copy.deepcopy(check.component)
    error, wrong = None, False
    try:
        component.open(run)
        notices += list(component.check())
    except ConfigurationError as caught:
        error, wrong = with_location(caught, check), True
    except BaseException as caught:  # noqa: BLE001 - a plugin may raise anything
        error = _sentence(caught)
    error = _close(component, run) or error if error is None else error
    return evolve(check, notices=tuple(notices), error=error, wrong=wrong, seconds=time.monotonic() - begun)


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
