"""The result of a run, from the account of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import asdict

from muxly._runner.context import RunContext, sentence
from muxly._runner.deliver.route_worker import RouteWorker
from muxly._runner.extract.extraction import Outcomes
from muxly._runner.streams import matches
from muxly.errors import MuxlyError
from muxly.pipeline import Pipeline, Route, RouteResult, RunResult, RunState, StreamResult
from muxly.store import accounts

_COUNTED = tuple(name for name in asdict(RouteResult()) if name not in ("error", "required", "streams"))


def summarise(
    context: RunContext,
    outcomes: Outcomes | None,
    workers: Mapping[str, RouteWorker],
    *,
    finished_at: datetime,
) -> RunResult:
    """The run's result; the account of each route and stream is checked.

    Args:
        context: The run, at its end.
        outcomes: What was read; None = nothing could be.
        workers: The routes' workers, by name.
        finished_at: Now.
    """
    with context.ledger.read() as connection:  # one look: a worker that was left behind may still acknowledge
        sums = accounts.of_run_in(connection, context.ledger)
        pending = accounts.pending_in(connection, context.ledger)
    routes = {
        route.name: _route(context, route, workers.get(route.name), sums, pending) for route in context.pipeline.routes
    }
    streams = _streams(outcomes, sums)
    state, reason = _state(context, outcomes, workers, routes)
    return RunResult(
        id=context.run.id,
        pipeline=context.pipeline.name,
        state=state,
        started_at=context.run.started_at,
        finished_at=finished_at,
        routes=routes,
        streams=streams,
        resume_at=None if outcomes is None else outcomes.resume_at,
        error=reason,
        notices=tuple(context.observers.notices),
        measures=dict(context.observers.measures),
    )


def _streams(outcomes: Outcomes | None, sums: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, StreamResult]:
    """What was read of each stream; sealed records are the ledger's number, not the readers'."""
    from attrs import evolve

    if outcomes is None:
        return {}
    found: dict[str, StreamResult] = {}
    for name, result in sorted(outcomes.results.items()):
        account = sums.get(("", name), {})
        found[name] = evolve(result, sealed=account.get("sealed", 0), rejected=account.get("rejected", 0))
    return found


def _route(
    context: RunContext,
    route: Route,
    worker: RouteWorker | None,
    sums: Mapping[tuple[str, str], Mapping[str, int]],
    pending: Mapping[tuple[str, str], int],
) -> RouteResult:
    streams: dict[str, RouteResult] = {}
    for name, stream in sorted(pending):
        if name == route.name:
            streams[stream] = _route_stream(context, route, stream, sums, pending[name, stream])
    total: dict[str, Any] = {name: sum(getattr(stream, name) for stream in streams.values()) for name in _COUNTED}
    return RouteResult(**total, error=_route_error(context, route, worker), required=route.required, streams=streams)


def _route_stream(
    context: RunContext,
    route: Route,
    stream: str,
    sums: Mapping[tuple[str, str], Mapping[str, int]],
    pending: int,
) -> RouteResult:
    mine: dict[str, Any] = dict(sums.get((route.name, stream), {}))
    if matches(stream, route.streams):
        mine["sealed"] = sums.get(("", stream), {}).get("sealed", 0)
    failed = context.failures.deliveries.get((route.name, stream))
    return RouteResult(
        **mine, pending=pending, error=None if failed is None else sentence(failed), required=route.required
    )


def _route_error(context: RunContext, route: Route, worker: RouteWorker | None) -> str | None:
    if worker is not None and worker.error is not None:
        return sentence(worker.error)
    mine = [error for (name, _stream), error in context.failures.deliveries.items() if name == route.name]
    return sentence(mine[0]) if mine else None


def _state(
    context: RunContext,
    outcomes: Outcomes | None,
    workers: Mapping[str, RouteWorker],
    routes: Mapping[str, RouteResult],
) -> tuple[RunState, str | None]:
    """The run's state, and the first reason if it is not ``succeeded``."""
    if context.failures.fenced is not None:
        return "failed", sentence(context.failures.fenced)
    if (error := context.failures.source) is not None:
        return ("stopped" if context.stop.is_set() else "failed"), sentence(error)
    if (unbalanced := _unbalanced(routes)) is not None:
        return "failed", unbalanced
    if (bug := _bug(context, outcomes)) is not None:
        return "failed", sentence(bug)
    if (reason := _behind(context.pipeline, outcomes, routes)) is not None:
        return ("stopped" if context.stop.is_set() else "partial"), reason
    return "succeeded", None


def _unbalanced(routes: Mapping[str, RouteResult]) -> str | None:
    for name, route in routes.items():
        for stream, result in route.streams.items():
            if not result.balanced:
                return (
                    f"the account of route {name!r}, stream {stream!r} does not balance: {result}; this is a "
                    "bug in Muxly: please report it and attach the store"
                )
    return None


def _bug(context: RunContext, outcomes: Outcomes | None) -> BaseException | None:
    """An error nobody raised on purpose, in reading or on a required route."""
    required = {route.name for route in context.pipeline.routes if route.required}
    reading = list(outcomes.errors.values()) if outcomes is not None else []
    delivering = [error for (route, _stream), error in context.failures.deliveries.items() if route in required]
    return next((error for error in [*reading, *delivering] if not isinstance(error, MuxlyError)), None)


def _behind(pipeline: Pipeline, outcomes: Outcomes | None, routes: Mapping[str, RouteResult]) -> str | None:
    if outcomes is not None:
        for name, result in outcomes.results.items():
            if result.error is not None:
                return f"stream {name!r}: {result.error}"
    for name, route in routes.items():
        if route.required and route.error is not None:
            return route.error if route.error.startswith("route ") else f"route {name!r}: {route.error}"
    if outcomes is not None and outcomes.behind:
        return f"stream {min(outcomes.behind)!r} has not been read to its end"
    for name, route in routes.items():
        if route.required and (route.pending or route.quarantined):
            return f"route {name!r} has {route.pending + route.quarantined} records left to deliver"
    return None
