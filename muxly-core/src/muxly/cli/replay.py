"""``muxly replay``: delivering again from the spool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Command
from muxly.cli._error_locations import Where, as_json, located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muxly.cli._error_locations import Project


@click.command(
    cls=Command,
    name="replay",
    examples="""
        muxly replay --route lake                     # fill a new route with what the spool keeps
        muxly replay --route lake --after 1200 --stream deals
        muxly replay --route crm --dead-letters       # after mending what refused them
        muxly replay --route lake --partial           # what is left of a pruned spool
    """,
    epilog="Exit codes: as of `muxly run`.",
)
@located()
@click.option("--route", required=True, metavar="NAME", help="The route that delivers.")
@click.option("--stream", "streams", multiple=True, metavar="STREAM", help="Only these streams; names or globs.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="POSITION", help="What follows that position.")
@click.option("--dead-letters", is_flag=True, help="Deliver the route's dead letters, and nothing else, again.")
@click.option("--partial", is_flag=True, help="Begin at the first position that the spool still keeps.")
@click.option("--force", is_flag=True, help="Dead letters also into overwrite and replace, where they may undo newer.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop after so long.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, where: Where, **given: Any) -> None:
    """Deliver again from the spool, without touching the source.

    Fills a route that was added later, repeats what a destination lost, or delivers dead letters
    after their cause was mended. What is delivered again gets new ids, so no destination skips it.

    The spool keeps delivered records as long as its retention says. If something that is asked for
    is gone, nothing is delivered, and the message names the first missing position.
    """
    from muxly._runner.options import Replay
    from muxly.cli._run_view import Runs

    if given["dead_letters"] and (given["after"] or given["partial"]):
        raise click.UsageError("--dead-letters are delivered as a whole; leave --after and --partial out")
    project = where.open()
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    streams = given.pop("streams") or ("*",)
    route = given["route"]
    _refuse_unknown(project, route, streams)
    runs = Runs(
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
    from muxly.cli._ledgers import looking, matching
    from muxly.errors import ConfigurationError
    from muxly.store import positions

    name = project.name()
    found = next((one for one in project.pipeline(name).routes if one.name == route), None)
    if found is None or tuple(streams) == ("*",):
        return  # the run says what is wrong with the route
    with looking(project.home, name) as ledger:
        stored = sorted(positions.definitions(ledger)) if ledger is not None else []
    served = [one for one in stored if matches(one, found.streams)]
    if not any(one in served for one in matching(stored, streams)):
        known = f"it delivers {', '.join(served)}" if served else "it delivers none yet; `muxly run` begins"
        raise ConfigurationError(f"route {route!r} delivers no stream named {' or '.join(streams)}; {known}")
