"""``muxly plan``: what a run would read and deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muxly.cli._command import Command
from muxly.cli._error_locations import Where, as_json, located
from muxly.cli._errors import current_messages
from muxly.cli._exits import ExitCode, gravest
from muxly.cli._output import short_json, table, write_json, write_table

if TYPE_CHECKING:
    from muxly.cli._plan_view import PlannedRun, PlannedStream


@click.command(
    cls=Command,
    name="plan",
    examples="""
        muxly plan
        muxly plan crm.yaml contacts --select 'deals*' --json
    """,
    epilog="Exit codes: 0 a run would begin, 1 a stream cannot be planned, 2 a run would be refused.",
)
@located()
@click.option("--select", multiple=True, metavar="STREAM", help="Only these streams; names or globs.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, where: Where, select: tuple[str, ...], as_json: bool) -> None:
    """Show what a run would read and deliver, without doing it.

    The connector is asked for its streams and plans, and reads no record; no router is opened.
    Nothing is written, neither to the ledger nor to the spool.
    """
    from muxly.cli._plan_view import plan_run
    from muxly.errors import ConfigurationError

    project = where.open()
    found = []
    for name in project.names():
        try:
            found.append(plan_run(project.pipeline(name), project.home, select))
        except ConfigurationError as error:
            raise project.placed(error, name) from error
    if as_json:
        write_json([_json(one) for one in found])
    else:
        for one in found:
            _write(one)
    ctx.exit(gravest(_say(one) for one in found))


def _json(one: PlannedRun) -> dict[str, Any]:
    import attrs

    return attrs.asdict(one)


def _write(one: PlannedRun) -> None:
    reading = ("stream", "reads", "partitions", "records", "from", "routes", "changes")
    write_table(table(reading, [_stream_row(stream) for stream in one.streams], f"{one.pipeline}: would read"))
    delivering = ("route", "router", "promise", "required", "waits", "dead letters", "changes")
    rows = [
        (route.route, route.type, route.promise.replace("_", " "), "yes" if route.required else "no", route.pending,
         route.dead_letters, "; ".join(route.changes))
        for route in one.routes
    ]  # fmt: skip
    write_table(table(delivering, rows, f"{one.pipeline}: would deliver"))


def _stream_row(one: PlannedStream) -> tuple[object, ...]:
    modes = ", ".join(f"{route} ({mode})" for route, mode in one.routes.items())
    said = "; ".join([*one.changes, *(["cannot be planned"] if one.error else [])])
    begin = short_json(one.cursor) or "the start"
    return one.stream, one.read, one.partitions, one.records, begin, modes, said


def _say(one: PlannedRun) -> ExitCode:
    """Say what stands in the way."""
    messages = current_messages()
    for notice in one.notices:
        messages.say(notice.level, notice.message, code=notice.code, stream=notice.stream, pipeline=one.pipeline)
    failed = [stream for stream in one.streams if stream.error]
    for stream in failed:
        messages.say("error", f"{one.pipeline}: stream {stream.stream!r}: {stream.error}", stream=stream.stream)
    if one.refused:
        messages.say("error", f"{one.pipeline}: {one.refused}", pipeline=one.pipeline)
        return ExitCode.USAGE
    return ExitCode.FAILED if failed else ExitCode.DELIVERED
