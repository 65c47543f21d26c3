"""``muxly replay``: delivering again from the spool."""

from __future__ import annotations

from typing import Any

import click

from muxly.cli._command import Command
from muxly.cli._located import Where, as_json, located


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
    from muxly._runner.replay import Replay
    from muxly.cli._running import Runs

    if given["dead_letters"] and (given["after"] or given["partial"]):
        raise click.UsageError("--dead-letters are delivered as a whole; leave --after and --partial out")
    project = where.open()
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    streams = given.pop("streams") or ("*",)
    route = given["route"]
    runs = Runs(
        project,
        as_json=as_json,
        timeout_seconds=timeout,
        routes=(route,),
        replay=Replay(streams=streams, **given),
    )
    ctx.exit(runs.run([project.name()]))
