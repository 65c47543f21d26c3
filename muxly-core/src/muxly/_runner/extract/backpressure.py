"""Room in the spool: reading waits while routes that hold it back make progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muxly.component import Notice
from muxly.errors import QuotaError, StoppedError
from muxly.store import accounts, positions, retention

if TYPE_CHECKING:
    from muxly._runner.context import ActiveRun

_LOOK_SECONDS = 1.0


def wait_for_room(active: ActiveRun) -> None:
    """Wait until pending segments take less than the spool's budget.

    Raises:
        QuotaError: The routes that hold the spool cannot deliver; reading ends at the last
            cursor, and the run is ``partial``.
        StoppedError: The run stops.
    """
    if not active.is_full():
        return
    with active.crowding():
        while active.is_full():
            if active.stop.is_set():
                raise StoppedError("the run was asked to stop")
            holding = {pair for pair, count in accounts.pending(active.ledger).items() if count}
            # Nobody holds it any more: the last one let go between the two looks.
            if holding and all(active.hopeless(pair) for pair in holding):
                _give_way(active, holding)
                continue
            active.wait(_LOOK_SECONDS)


def _give_way(active: ActiveRun, holding: set[tuple[str, str]]) -> None:
    """Detach the routes that may be detached, or end reading."""
    detachable = {route.name for route in active.pipeline.routes if route.backlog == "detach"}
    leaving = {(route, stream) for route, stream in holding if route in detachable}
    if not leaving:
        names = ", ".join(sorted({route for route, _stream in holding}))
        raise QuotaError(
            f"the spool holds {active.pending_bytes()} bytes, its budget is {active.pipeline.spool_bytes}, and the "
            f"routes that hold it cannot deliver ({names}); mend them, or write `backlog: detach`"
        )
    for route, stream in sorted(leaving):
        positions.detach(active.ledger, route, [stream])
        active.run.notice(
            Notice(
                "route_detached",
                f"route {route!r} cannot deliver stream {stream!r} and the spool is full: it is detached; "
                f"`muxly replay --route {route}` takes it up again",
                stream=stream,
            )
        )
    active.acknowledged()
    active.spool.delete(
        retention.prune(
            active.ledger,
            keep_seconds=active.pipeline.retention_seconds,
            keep_bytes=max(0, active.pipeline.spool_bytes // 2),
        )
    )
