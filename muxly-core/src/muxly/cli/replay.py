"""``muxly replay``: deliver again from the spool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from muxly.cli._app import Command
from muxly.cli._project import Project, ProjectSelection, as_json, project_options


@click.command(
    cls=Command,
    name="replay",
    examples="""
        muxly replay --route lake                     # fill a new route from the spool
        muxly replay --route lake --after 1200 --stream deals
        muxly replay --route crm --dead-letters       # after fixing what rejected them
        muxly replay --route lake --partial           # what is left of a pruned spool
    """,
    epilog="Exit codes: those of `muxly run`.",
)
@project_options()
@click.option("--route", required=True, metavar="NAME", help="The route to deliver on.")
@click.option("--stream", "streams", multiple=True, metavar="STREAM", help="Only these streams; names or globs.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="POSITION", help="Start after this position.")
@click.option("--dead-letters", is_flag=True, help="Deliver only the route's dead letters again.")
@click.option("--partial", is_flag=True, help="Start at the first position that the spool still holds.")
@click.option("--force", is_flag=True, help="Also in overwrite and replace, where they may undo newer records.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop after this long.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, selection: ProjectSelection, **given: Any) -> None:
    """Deliver again from the spool, without reading the source.

    Fills a route that was added later, repeats what a destination lost, or delivers dead letters
    after their cause was fixed. These deliveries get new ids, so no destination skips them.

    The spool keeps delivered records for its retention period. If a requested position is no longer
    there, nothing is delivered, and the message names the first missing position.
    """
    from muxly._runner.options import Replay
    from muxly.cli.run import PipelineRuns

    if given["dead_letters"] and (given["after"] or given["partial"]):
        raise click.UsageError("--dead-letters delivers all of them; remove --after and --partial")
    project = selection.open()
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    streams = given.pop("streams") or ("*",)
    route = given["route"]
    _refuse_unknown(project, route, streams)
    runs = PipelineRuns(
        project,
        as_json=as_json,
        timeout_seconds=timeout,
        routes=(route,),
        replay=Replay(streams=streams, **given),
    )
    ctx.exit(runs.run([project.name()]))


def _refuse_unknown(project: Project, route: str, streams: Sequence[str]) -> None:
    """Refuse streams that are not there: a replay of nothing would look like one that worked.

    Raises:
        ConfigurationError: The ledger has no such stream, or the route delivers none of them.
    """
    from muxly._runner.streams import matches
    from muxly.cli._project import matching_names, read_ledger
    from muxly.errors import ConfigurationError
    from muxly.store import positions

    name = project.name()
    configured = next((candidate for candidate in project.pipeline(name).routes if candidate.name == route), None)
    if configured is None or tuple(streams) == ("*",):
        return  # the run says what is wrong with the route
    with read_ledger(project.home, name) as ledger:
        stored = sorted(positions.definitions(ledger)) if ledger is not None else []
    served = [stream for stream in stored if matches(stream, configured.streams)]
    if not any(stream in served for stream in matching_names(stored, streams)):
        known = f"it delivers {', '.join(served)}" if served else "it delivers none yet; `muxly run` starts"
        raise ConfigurationError(f"route {route!r} delivers no stream named {' or '.join(streams)}; {known}")
