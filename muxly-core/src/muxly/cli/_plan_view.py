"""What a run would do, found out without writing anything: the source is asked for plans only."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from muxly._ids import new_id
from muxly._runner import fingerprint
from muxly._runner.streams import check_modes, chosen, routes_of, rules_of
from muxly.cli._ledgers import looking
from muxly.component import Notice, Run
from muxly.errors import ConfigurationError, MuxlyError
from muxly.pipeline import StreamRules
from muxly.store import accounts, json_codec, plans, positions
from muxly.store import dead_letters as letters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from muxly._runner.session import Home
    from muxly.batch import Cursor
    from muxly.connector import Connector
    from muxly.pipeline import Pipeline
    from muxly.store.ledger import Ledger
    from muxly.store.rows import StoredPlan
    from muxly.stream import Stream


@frozen(kw_only=True)
class PlannedStream:
    """How a stream would be read.

    Args:
        stream: Its name.
        read: ``incremental``, ``full``, or ``with PARENT`` for a child.
        partitions: How many would be read.
        records: How many records they hold, if the connector knows.
        cursor: Where reading would begin, as JSON values.
        routes: The routes that would deliver it, each with its mode.
        changes: What is different from the run before.
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
    """What a route would deliver first, and as what.

    Args:
        route: Its name.
        type: Its router's class.
        promise: What the router promises.
        required: Whether the run counts it.
        pending: Records that wait from runs before.
        dead_letters: Records it gave up on.
        changes: What is different from the run before.
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
    """What a run of a pipeline would do.

    Args:
        pipeline: Its name.
        streams: What would be read.
        routes: What would be delivered.
        notices: What the connector said.
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
        pipeline: What would run.
        home: Where its store is; nothing is created there.
        select: Names or globs of streams; empty = all.

    Raises:
        ConfigurationError: The run would be refused for it.
    """
    said: list[Notice] = []
    run = Run(new_id(), pipeline.name, on_notice=said.append)
    connector = copy.deepcopy(pipeline.connector)
    try:
        connector.open(run)
        with looking(home, pipeline.name) as ledger:
            streams = chosen(pipeline, list(connector.streams()), select)
            planner = _Planner(pipeline, connector, ledger, streams)
            return PlannedRun(
                pipeline=pipeline.name,
                streams=tuple(planner.streams()),
                routes=tuple(planner.routes()),
                notices=tuple(said),
                refused=planner.refused(),
            )
    finally:
        connector.close()
        run.end()


class _Planner:
    def __init__(
        self, pipeline: Pipeline, connector: Connector, ledger: Ledger | None, streams: Mapping[str, Stream]
    ) -> None:
        self._pipeline, self._connector, self._ledger, self._chosen = pipeline, connector, ledger, streams
        self._known = positions.definitions(ledger) if ledger is not None else {}
        self._positions = positions.every(ledger) if ledger is not None else []
        self._pending = accounts.pending(ledger) if ledger is not None else {}
        self._dead = letters.count(ledger) if ledger is not None else {}

    def refused(self) -> str | None:
        """Why a run would not begin: a route was taken out of the file, and records wait for it."""
        configured = {route.name for route in self._pipeline.routes}
        gone = {route for (route, _stream), count in self._pending.items() if count and route not in configured}
        if not gone:
            return None
        name = min(gone)
        return (
            f"records wait for route {name!r}, which is not in the file any more; "
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
        mine = [one for one in self._positions if one.route == route]
        if self._positions and not mine:
            yield f"new: begins with what is read from now on; `muxly replay --route {route}` fills it"
        detached = [one.stream for one in mine if one.detached]
        if detached:
            yield f"detached from {', '.join(detached)}; `muxly replay --route {route}` attaches it again"

    def streams(self) -> Iterable[PlannedStream]:
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
        if self._known and stream not in self._known:
            contract = self._pipeline.new_streams
            return ["new"] if contract == "evolve" else [f"new, and `new_streams: {contract}` does not take it"]
        if not routes_of(self._pipeline, stream):
            return ["no route delivers it"]
        return []

    def _root(self, stream: Stream, rules: StreamRules, modes: Mapping[str, str], changes: list[str]) -> PlannedStream:
        full = rules.read == "full"
        cursor = None if full or self._ledger is None else plans.stream_cursor(self._ledger, stream.name)
        left = self._unfinished(stream.name, changes)
        if left is not None:
            open_parts = [one for one in left.partitions if not one.done]
            changes.append(f"finishes a plan first: {len(open_parts)} of {len(left.partitions)} partitions are left")
            counts: list[int | None] | None = [one.records for one in open_parts]
            error = None
        else:
            counts, error = self._planned(stream, cursor)
        known = [one for one in counts or () if one is not None]
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
        """The plan that the run would go on with; one made under other options is given up."""
        if self._ledger is None:
            return None
        rules = rules_of(self._pipeline, stream) or StreamRules()
        left = plans.unfinished(self._ledger, stream, fingerprint.of_plan(self._connector, rules.read))
        if left is None and plans.unfinished(self._ledger, stream) is not None:
            changes.append("an unfinished plan was made under other options, and is given up")
        return left

    def _planned(self, stream: Stream, cursor: Cursor) -> tuple[list[int | None] | None, str | None]:
        try:
            return [one.records for one in self._connector.plan(stream, cursor).partitions], None
        except ConfigurationError:
            raise
        except MuxlyError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return None, f"{type(error).__name__}: {error}"
