"""``muxly check``: whether everything outside is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Command
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._exits import ExitCode
from muxly.cli._output import write_json, write_listing

if TYPE_CHECKING:
    from muxly.cli._dry_run import Trial
    from muxly.cli._error_locations import Project
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
    from muxly.cli._dry_run import try_all

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
    from muxly.cli._dry_run import Trial

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
