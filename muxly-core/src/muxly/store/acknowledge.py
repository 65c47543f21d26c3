"""Acknowledging: a delivery that is durable at its destination ends, and the route's position moves past it.

All of it is one transaction: the delivery's row is deleted, the position moves, the sums are added to, and the dead
letters and the receipt's state are stored. A crash before its commit leaves the delivery open, so it comes again
under the same id and the destination recognises the repeat; a crash after it leaves nothing to do. There is no moment
in which records count as delivered that the position does not cover, or the other way round, and so the accounts of a
run always balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from muxly.errors import FencedError, StoppedError
from muxly.store import accounts, dead_letters, json_codec, positions
from muxly.store.ledger import Ledger
from muxly.store.rows import Letter, StoredDelivery
from muxly.store.schema.tables import deliveries, route_positions, segments

STATE_LIMIT_BYTES = 1 << 20


def acknowledge(
    ledger: Ledger,
    delivery: StoredDelivery,
    *,
    delivered: int,
    filtered: int,
    rejected: Sequence[Letter] = (),
    state: Any = None,
) -> None:
    """End a delivery that is durable at its destination: the position moves, the sums grow.

    Args:
        ledger: The ledger of this run.
        delivery: The delivery; the first open one of its route and stream.
        delivered: Records delivered.
        filtered: Records that ``where`` left out.
        rejected: Records the destination refused.
        state: The receipt's state; None = unchanged.

    Raises:
        FencedError: The lease is lost; nothing was written.
        StoppedError: The route was left behind and detached meanwhile; nothing was written.
        ValueError: The three numbers do not add up to the delivery's records, or the state
            is larger than 1 MiB.
    """
    if delivered + filtered + len(rejected) != delivery.records:
        raise ValueError(
            f"delivery {delivery.id}: {delivered} delivered + {filtered} filtered + {len(rejected)} rejected "
            f"do not add up to its {delivery.records} records"
        )
    moved = _moved(state)
    with ledger.write() as connection:
        if connection.execute(deliveries.delete().where(deliveries.c.id == delivery.id)).rowcount != 1:
            raise FencedError(f"the delivery {delivery.id} was ended by another run")
        if delivery.letters:
            dead_letters.mark_replayed(connection, ledger, delivery.letters)
        else:
            _refuse_detached(connection, ledger, delivery)
            moved |= _behind(connection, ledger, delivery)
            _count_damaged(connection, ledger, delivery)
        if moved:
            positions.change(connection, ledger, delivery.route, delivery.stream, **moved)
        dead_letters.store(connection, ledger, delivery.route, rejected, ledger.now(connection))
        accounts.add(
            connection, ledger, delivery.route, delivery.stream,
            delivered=delivered, filtered=filtered, rejected=len(rejected),
        )  # fmt: skip
        if rejected:
            _count_rejected(connection, ledger, delivery, len(rejected))


def _moved(state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    text = json_codec.encode(state)
    if len(text) > STATE_LIMIT_BYTES:
        raise ValueError(f"the receipt's state is {len(text)} bytes; the limit is 1 MiB")
    return {"state": text}


def _refuse_detached(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> None:
    """What was counted as dropped must not be counted as delivered too; a replay delivers it under the same id."""
    if positions.get(connection, ledger, delivery.route, delivery.stream).detached:
        raise StoppedError(f"route {delivery.route!r} was detached while it delivered stream {delivery.stream!r}")


def _behind(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> dict[str, int]:
    """The position behind a delivery; a segment that is wholly delivered is passed."""
    query = select(segments.c.records).where(
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == delivery.stream,
        segments.c.position == delivery.last_position,
    )
    if connection.execute(query).scalar_one() == delivery.last_offset:
        return {"position": delivery.last_position, "offset": 0}
    return {"position": delivery.last_position - 1, "offset": delivery.last_offset}


def _count_damaged(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> None:
    """Take back what was counted as quarantined: another route found the damage after this one had read it."""
    query = select(segments.c.position, segments.c.records).where(
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == delivery.stream,
        segments.c.position.between(delivery.first_position, delivery.last_position),
        segments.c.state == "quarantined",
    )
    count = 0
    for row in connection.execute(query):
        begin, end = delivery.part_of(row.position, row.records)
        count += end - begin
    accounts.add(connection, ledger, delivery.route, delivery.stream, quarantined=-count)


def _count_rejected(connection: Connection, ledger: Ledger, delivery: StoredDelivery, count: int) -> None:
    connection.execute(
        update(route_positions)
        .where(
            route_positions.c.pipeline == ledger.pipeline,
            route_positions.c.route == delivery.route,
            route_positions.c.stream == delivery.stream,
        )
        .values(rejected=route_positions.c.rejected + count)
    )
