"""Full reads of a stream: which are in its log, and which are passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from muxly.store import accounts, positions
from muxly.store.rows import StreamGenerations
from muxly.store.schema.tables import segments, streams

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


def generations_of(ledger: Ledger, stream: str) -> StreamGenerations:
    """Which full reads of a stream are in its log."""
    with ledger.read() as connection:
        row = connection.execute(
            select(streams.c.generation, streams.c.sealed_generation, streams.c.head).where(
                streams.c.pipeline == ledger.pipeline, streams.c.stream == stream
            )
        ).one_or_none()
    if row is None:
        return StreamGenerations(newest=0, sealed=0, head=0)
    return StreamGenerations(newest=row.generation, sealed=row.sealed_generation, head=row.head)


def supersede(ledger: Ledger, route: str, stream: str, *, generation: int) -> int:
    """Pass over what an older generation left undelivered, because a newer one is whole.

    Returns:
        How many records were superseded.
    """
    with ledger.write() as connection:
        here = positions.get(connection, ledger, route, stream)
        if here.detached:
            return 0
        old = (
            select(segments.c.position, segments.c.records, segments.c.state)
            .where(
                segments.c.pipeline == ledger.pipeline,
                segments.c.stream == stream,
                segments.c.position > here.position,
                segments.c.generation < generation,
            )
            .order_by(segments.c.position)
        )
        rows = connection.execute(old).all()
        if not rows:
            return 0
        waiting = [
            row.records - (here.offset if row.position == here.position + 1 else 0)
            for row in rows
            if row.state == "sealed"
        ]
        count = int(sum(waiting))
        positions.give_up_deliveries(connection, ledger, route, stream)
        positions.change(connection, ledger, route, stream, position=rows[-1].position, offset=0, rejected=0)
        accounts.add(connection, ledger, route, stream, superseded=count)
        return count
