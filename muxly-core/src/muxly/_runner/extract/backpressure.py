"""Room in the spool: reading waits while routes that hold it back make progress."""

from __future__ import annotations

from muxly._runner.context import RunContext
from muxly.component import Notice
from muxly.errors import QuotaError, StoppedError
from muxly.store import accounts, positions, retention

_LOOK_SECONDS = 1.0


def wait_for_room(context: RunContext) -> None:
    """Wait until pending segments take less than the spool's budget.

    Raises:
        QuotaError: The routes that hold the spool cannot deliver; reading ends at the last
            cursor, and the run is ``partial``.
        StoppedError: The run stops.
    """
    if not context.budget.is_full():
        return
    with context.budget.waiting():
        while context.budget.is_full():
            if context.stop.is_set():
                raise StoppedError("the run was asked to stop")
            holding = {pair for pair, count in accounts.pending(context.ledger).items() if count}
            # Nobody holds it any more: the last one let go between the two looks.
            if holding and all(context.failures.are_final(*pair) for pair in holding):
                _give_way(context, holding)
                continue
            context.progress.wait(_LOOK_SECONDS)


def _give_way(context: RunContext, holding: set[tuple[str, str]]) -> None:
    """Detach the routes that may be detached, or end reading."""
    detachable = {route.name for route in context.pipeline.routes if route.backlog == "detach"}
    leaving = {(route, stream) for route, stream in holding if route in detachable}
    if not leaving:
        names = ", ".join(sorted({route for route, _stream in holding}))
        raise QuotaError(
            f"the spool holds {context.budget.pending_bytes()} bytes, its budget is {context.pipeline.spool_bytes}, "
            f"and the routes that have not delivered it cannot deliver ({names}); fix them, or set `backlog: detach`"
        )
    for route, stream in sorted(leaving):
        positions.detach(context.ledger, route, [stream])
        context.run.notice(
            Notice(
                "route_detached",
                f"route {route!r} cannot deliver stream {stream!r} and the spool is full, so it was detached; "
                f"`muxly replay --route {route}` attaches it again",
                stream=stream,
            )
        )
    context.progress.notify()
    context.spool.delete(
        retention.prune(
            context.ledger,
            keep_seconds=context.pipeline.retention_seconds,
            keep_bytes=max(0, context.pipeline.spool_bytes // 2),
        )
    )
