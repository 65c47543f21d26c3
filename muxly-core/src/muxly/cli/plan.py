"""``muxly plan``: what a run would read and deliver, found out without writing anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from attrs import field, frozen

from muxly._ids import new_id
from muxly.batch import Cursor
from muxly.cli._app import Command
from muxly.cli._output import ExitCode, current_messages, most_severe, short_json, text_table, write_json, write_table
from muxly.cli._project import ProjectSelection, as_json, project_options, read_ledger
from muxly.component import Notice, Run
from muxly.connector import Connector
from muxly.errors import ConfigurationError, MuxlyError
from muxly.pipeline import Pipeline, StreamRules
from muxly.stream import Stream

if TYPE_CHECKING:
    from muxly._runner.session import Home
    from muxly.store.ledger import Ledger
    from muxly.store.rows import StoredPlan


@click.command(
    cls=Command,
    name="plan",
    examples="""
        muxly plan
        muxly plan crm.yaml contacts --select 'deals*' --json
    """,
    epilog="Exit codes: 0 a run would begin, 1 a stream cannot be planned, 2 a run would be refused.",
)
@project_options()
@click.option("--select", multiple=True, metavar="STREAM", help="Only these streams; names or globs.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, selection: ProjectSelection, select: tuple[str, ...], as_json: bool) -> None:
    """Show what a run would read and deliver, without doing it.

    The connector is asked for its streams and plans, and reads no record; no router is opened.
    Nothing is written, neither to the ledger nor to the spool.
    """
    project = selection.open()
    runs = []
    for name in project.names():
        try:
            runs.append(plan_run(project.pipeline(name), project.home, select))
        except ConfigurationError as error:
            raise project.with_location(error, name) from error
    if as_json:
        write_json([_json(planned) for planned in runs])
    else:
        for planned in runs:
            _write(planned)
    ctx.exit(most_severe(_report(planned) for planned in runs))


def _json(planned: PlannedRun) -> dict[str, Any]:
    import attrs

    return attrs.asdict(planned)


def _write(planned: PlannedRun) -> None:
    reading = ("stream", "reads", "partitions", "records", "from", "routes", "changes")
    write_table(
        text_table(reading, [_stream_row(stream) for stream in planned.streams], f"{planned.pipeline}: would read")
    )
    delivering = ("route", "router", "promise", "required", "waits", "dead letters", "changes")
    rows = [
        (route.route, route.type, route.promise.replace("_", " "), "yes" if route.required else "no", route.pending,
         route.dead_letters, "; ".join(route.changes))
        for route in planned.routes
    ]  # fmt: skip
    write_table(text_table(delivering, rows, f"{planned.pipeline}: would deliver"))


def _stream_row(planned: PlannedStream) -> tuple[object, ...]:
    modes = ", ".join(f"{route} ({mode})" for route, mode in planned.routes.items())
    notes = "; ".join([*planned.changes, *(["cannot be planned"] if planned.error else [])])
    begin = short_json(planned.cursor) or "the start"
    return planned.stream, planned.read, planned.partitions, planned.records, begin, modes, notes


def _report(planned: PlannedRun) -> ExitCode:
    """Report what would keep the run from beginning."""
    messages = current_messages()
    for notice in planned.notices:
        messages.say(notice.level, notice.message, code=notice.code, stream=notice.stream, pipeline=planned.pipeline)
    failed = [stream for stream in planned.streams if stream.error]
    for stream in failed:
        messages.say("error", f"{planned.pipeline}: stream {stream.stream!r}: {stream.error}", stream=stream.stream)
    if planned.refused:
        messages.say("error", f"{planned.pipeline}: {planned.refused}", pipeline=planned.pipeline)
        return ExitCode.USAGE
    return ExitCode.FAILED if failed else ExitCode.DELIVERED


@frozen(kw_only=True)
class PlannedStream:
    """A stream that would be read.

    Args:
        stream: Its name.
        read: ``incremental``, ``full``, or ``with PARENT`` for a child.
        partitions: How many would be read.
        records: How many records they hold, if the connector knows.
        cursor: Where reading would begin, as JSON values.
        routes: The routes that would deliver it, each with its mode.
        changes: Differences from the run before.
        error: Why it cannot be planned.
    """

    stream: str
    read: str
    partitions: int | None = None
    records: int | None = None
    cursor: Any = None
    routes: Mapping[str, str] = field(factory=dict)
    changes: tuple[str, ...] = ()
    error: str | None = None


@frozen(kw_only=True)
class PlannedRoute:
    """A route that would deliver.

    Args:
        route: Its name.
        type: Its router's class.
        promise: The delivery promise of the router.
        required: Whether the run counts it.
        pending: Records that wait from runs before.
        dead_letters: Records it gave up on.
        changes: Differences from the run before.
    """

    route: str
    type: str
    promise: str
    required: bool
    pending: int = 0
    dead_letters: int = 0
    changes: tuple[str, ...] = ()


@frozen(kw_only=True)
class PlannedRun:
    """A run of a pipeline as it would be.

    Args:
        pipeline: Its name.
        streams: Streams that would be read.
        routes: Routes that would deliver.
        notices: Notices of the connector.
        refused: Why the run would not begin, if it would not.
    """

    pipeline: str
    streams: tuple[PlannedStream, ...]
    routes: tuple[PlannedRoute, ...]
    notices: tuple[Notice, ...] = ()
    refused: str | None = None


def plan_run(pipeline: Pipeline, home: Home, select: Sequence[str]) -> PlannedRun:
    """Find out what a run would do.

    Args:
        pipeline: The pipeline that would run.
        home: Where its store is; nothing is created there.
        select: Names or globs of streams; empty = all.

    Raises:
        ConfigurationError: The run would be refused for it.
    """
    from muxly._runner.streams import chosen

    notices: list[Notice] = []
    run = Run(new_id(), pipeline.name, on_notice=notices.append)
    connector = copy.deepcopy(pipeline.connector)
    try:
        connector.open(run)
        with read_ledger(home, pipeline.name) as ledger:
            streams = chosen(pipeline, list(connector.streams()), select)
            planner = _RunPlanner(pipeline, connector, ledger, streams)
            return PlannedRun(
                pipeline=pipeline.name,
                streams=tuple(planner.streams()),
                routes=tuple(planner.routes()),
                notices=tuple(notices),
                refused=planner.refused(),
            )
    finally:
        connector.close()
        run.end()


class _RunPlanner:
    def __init__(
        self, pipeline: Pipeline, connector: Connector, ledger: Ledger | None, streams: Mapping[str, Stream]
    ) -> None:
        from muxly.store import accounts, dead_letters, positions

        self._pipeline, self._connector, self._ledger, self._chosen = pipeline, connector, ledger, streams
        self._known = positions.definitions(ledger) if ledger is not None else {}
        self._positions = positions.every(ledger) if ledger is not None else []
        self._pending = accounts.pending(ledger) if ledger is not None else {}
        self._dead = dead_letters.count(ledger) if ledger is not None else {}

    def refused(self) -> str | None:
        """Why a run would not begin: a route was taken out of the file, and records wait for it."""
        configured = {route.name for route in self._pipeline.routes}
        gone = {route for (route, _stream), count in self._pending.items() if count and route not in configured}
        if not gone:
            return None
        name = min(gone)
        return (
            f"records wait for route {name!r}, which is no longer in the file; "
            f"`muxly routes rename {name} NEW` or `muxly routes discard {name}`"
        )

    def routes(self) -> Iterable[PlannedRoute]:
        for route in self._pipeline.routes:
            yield PlannedRoute(
                route=route.name,
                type=type(route.router).__name__,
                promise=route.router.promise,
                required=route.required,
                pending=sum(count for (name, _stream), count in self._pending.items() if name == route.name),
                dead_letters=sum(count for (name, _stream), count in self._dead.items() if name == route.name),
                changes=tuple(self._route_changes(route.name)),
            )

    def _route_changes(self, route: str) -> Iterable[str]:
        positions = [position for position in self._positions if position.route == route]
        if self._positions and not positions:
            yield f"new: starts with newly read records; `muxly replay --route {route}` fills it"
        detached = [position.stream for position in positions if position.detached]
        if detached:
            yield f"detached from {', '.join(detached)}; `muxly replay --route {route}` attaches it again"

    def streams(self) -> Iterable[PlannedStream]:
        from muxly._runner.streams import check_modes, rules_of

        for stream in self._chosen.values():
            rules = rules_of(self._pipeline, stream.name) or StreamRules()
            modes = check_modes(self._pipeline, stream, rules)
            changes = self._stream_changes(stream.name)
            if stream.parent is not None and stream.parent in self._chosen:
                yield PlannedStream(
                    stream=stream.name, read=f"with {stream.parent}", routes=modes, changes=tuple(changes)
                )
            else:
                yield self._root(stream, rules, modes, changes)

    def _stream_changes(self, stream: str) -> list[str]:
        from muxly._runner.streams import routes_of

        if self._known and stream not in self._known:
            contract = self._pipeline.new_streams
            return ["new"] if contract == "evolve" else [f"new, and `new_streams: {contract}` does not allow it"]
        if not routes_of(self._pipeline, stream):
            return ["no route delivers it"]
        return []

    def _root(self, stream: Stream, rules: StreamRules, modes: Mapping[str, str], changes: list[str]) -> PlannedStream:
        from muxly.store import json_codec, plans

        full = rules.read == "full"
        cursor = None if full or self._ledger is None else plans.stream_cursor(self._ledger, stream.name)
        left = self._unfinished(stream.name, changes)
        if left is not None:
            open_parts = [partition for partition in left.partitions if not partition.done]
            changes.append(f"finishes a plan first: {len(open_parts)} of {len(left.partitions)} partitions are left")
            counts: list[int | None] | None = [part.records for part in open_parts]
            error = None
        else:
            counts, error = self._planned(stream, cursor)
        known = [count for count in counts or () if count is not None]
        return PlannedStream(
            stream=stream.name,
            read=rules.read,
            partitions=None if counts is None else len(counts),
            records=sum(known) if counts is not None and len(known) == len(counts) else None,
            cursor=None if cursor is None else json.loads(json_codec.encode(cursor)),
            routes=modes,
            changes=tuple(changes),
            error=error,
        )

    def _unfinished(self, stream: str, changes: list[str]) -> StoredPlan | None:
        """The plan that the run would continue; one made with other options is given up."""
        from muxly._runner import fingerprint
        from muxly._runner.streams import rules_of
        from muxly.store import plans

        if self._ledger is None:
            return None
        rules = rules_of(self._pipeline, stream) or StreamRules()
        left = plans.unfinished(self._ledger, stream, fingerprint.of_plan(self._connector, rules.read))
        if left is None and plans.unfinished(self._ledger, stream) is not None:
            changes.append("an unfinished plan was made with other options, and is discarded")
        return left

    def _planned(self, stream: Stream, cursor: Cursor) -> tuple[list[int | None] | None, str | None]:
        try:
            return [partition.records for partition in self._connector.plan(stream, cursor).partitions], None
        except ConfigurationError:
            raise
        except MuxlyError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return None, f"{type(error).__name__}: {error}"
