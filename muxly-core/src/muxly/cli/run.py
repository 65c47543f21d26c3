"""``muxly run``: reading what is new and delivering it."""

from __future__ import annotations

from typing import Any

import click

from muxly.cli._command import Command
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._errors import current_messages


@click.command(
    cls=Command,
    name="run",
    examples="""
        muxly run                                 # every pipeline of ./muxly.yaml
        muxly run crm.yaml contacts deals         # two pipelines of a file
        muxly run --select 'deals*' --route lake  # some streams, one route
        muxly run --dry-run --limit 100           # read a little, deliver nothing
        muxly run --json | jq .routes.lake.delivered
    """,
    epilog="Exit codes: 0 all delivered, 1 failed, 2 usage or configuration, 3 partly delivered, 75 another run "
    "holds the pipeline, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.",
)
@located()
@click.option("--select", multiple=True, metavar="STREAM", help="Read only these streams; names or globs.")
@click.option("--route", "routes", multiple=True, metavar="NAME", help="Deliver only on these routes.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Read N records of each stream, keep no cursor.")
@click.option("--full-refresh", is_flag=True, help="Deliver the backlog, then read the streams from the start.")
@click.option("--dry-run", is_flag=True, help="Read, but deliver and keep nothing; routers are only checked.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="Given to components; VALUE may be JSON.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop after so long.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, where: Where, **given: Any) -> None:
    """Read what is new, deliver it on every route, and account for every record.

    FILE is ./muxly.yaml by default; without PIPELINE all of its pipelines run, one after the other.

    What a run before left undelivered is delivered first. Ctrl-C or SIGTERM stops at the end of a
    group, within the grace time; a second one leaves at once. Nothing that was sealed is lost: the
    next run goes on from there.

    --limit and --dry-run use a throw-away ledger, so that no cursor and no position moves.
    """
    _refuse_contradictions(given)
    from muxly.cli._run_view import Runs

    project = where.open()
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    given["params"] = dict(map(_param, given["params"]))
    runs = Runs(project, as_json=as_json, timeout_seconds=timeout, **given)
    code = runs.run(project.names())
    if given["limit"] is not None or given["dry_run"]:
        current_messages().say("info", "a rehearsal: no cursor and no position has moved")
    ctx.exit(code)


def _refuse_contradictions(given: dict[str, Any]) -> None:
    rehearsal = "--limit" if given["limit"] is not None else "--dry-run" if given["dry_run"] else None
    if rehearsal and given["full_refresh"]:
        raise click.UsageError(f"{rehearsal} keeps no cursor, so there is none that --full-refresh could clear")


def _param(text: str) -> tuple[str, Any]:
    import json

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"--param {text!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
