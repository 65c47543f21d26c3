"""Deliveries: chosen from the log, and stored before their first attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve
from sqlalchemy import insert, select, update

from muxly._ids import new_id
from muxly.errors import FencedError
from muxly.store import accounts, json_codec, log, positions
from muxly.store.ranges import choose
from muxly.store.rows import StoredDelivery, StoredSegment
from muxly.store.schema.tables import deliveries, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from muxly.store.ledger import Ledger
    from muxly.store.rows import RoutePosition

_LOOK_AHEAD = 500


def following(
    ledger: Ledger,
    route: str,
    stream: str,
    *,
    options: Mapping[str, Any],
    records: int | None,
    bytes: int,
    whole_groups: bool,
    check: Callable[[], None] = lambda: None,
) -> StoredDelivery | None:
    """The delivery to work on: the open one, or the next, stored now.

    Args:
        ledger: The ledger of this run.
        route: The route's name.
        stream: The stream's name.
        options: The route's mode, columns and filter; kept with a new delivery.
        records: At most so many records in a new one.
        bytes: At most so many bytes in a new one.
        whole_groups: Whether a new one is exactly one group.
        check: Called before a new one is stored; what it raises leaves nothing behind.

    Returns:
        None = nothing waits.

    Raises:
        StreamError: The next segment is quarantined; says how to go on.
    """
    with ledger.read() as connection:
        here = positions.get(connection, ledger, route, stream)
        if here.detached:
            return None
        if found := _open(connection, ledger, route, stream):
            _refuse_quarantined(connection, ledger, found)
            return found
        waiting = _waiting(connection, ledger, here, whole_groups=whole_groups)
        if not waiting:
            return None
        if waiting[0].state == "quarantined":
            raise log.quarantined(stream, waiting[0].position)
    check()
    with ledger.write() as connection:
        waiting, offset = _pass_dropped(connection, ledger, here, waiting)
        chosen = choose(waiting, offset, records=records, bytes=bytes, whole_groups=whole_groups)
        if chosen is None:
            _refuse_damaged_group(waiting)
            return None
        delivery = StoredDelivery(
            id=new_id(),
            route=route,
            stream=stream,
            first_position=chosen.first_position,
            first_offset=chosen.first_offset,
            last_position=chosen.last_position,
            last_offset=chosen.last_offset,
            records=chosen.records,
            generation=chosen.generation,
            options=options,
        )
        _insert(connection, ledger, delivery)
        return delivery


def _refuse_damaged_group(waiting: Sequence[StoredSegment]) -> None:
    damaged = (one for one in waiting if one.group == waiting[0].group and one.state == "quarantined")
    for one in damaged:
        raise log.quarantined(one.stream, one.position)


def _open(connection: Connection, ledger: Ledger, route: str, stream: str) -> StoredDelivery | None:
    query = (
        select(deliveries)
        .where(*_is(ledger, route, stream), deliveries.c.letters.is_(None))
        .order_by(deliveries.c.first_position, deliveries.c.first_offset)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _delivery(row)


def _refuse_quarantined(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> None:
    """Hold a delivery back if one of its segments has been quarantined since."""
    query = select(segments.c.position).where(
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == delivery.stream,
        segments.c.position.between(delivery.first_position, delivery.last_position),
        segments.c.state == "quarantined",
    )
    position = connection.execute(query.limit(1)).scalar()
    if position is not None:
        raise log.quarantined(delivery.stream, position)


def _is(ledger: Ledger, route: str, stream: str) -> tuple[Any, Any, Any]:
    return (
        deliveries.c.pipeline == ledger.pipeline,
        deliveries.c.route == route,
        deliveries.c.stream == stream,
    )


def _waiting(connection: Connection, ledger: Ledger, here: RoutePosition, *, whole_groups: bool) -> list[StoredSegment]:
    """The next segments; of whole groups all up to the end of the first that was not dropped."""
    query = select(segments).where(*log.behind(ledger, here)).order_by(segments.c.position)
    if whole_groups:
        kept = select(segments.c.group).where(*log.behind(ledger, here), segments.c.state != "dropped")
        group = connection.execute(kept.order_by(segments.c.position).limit(1)).scalar()
        if group is not None:
            query = query.where(segments.c.group <= group)
    else:
        query = query.limit(_LOOK_AHEAD)
    return [log.segment_of(row) for row in connection.execute(query)]


def _pass_dropped(
    connection: Connection, ledger: Ledger, here: RoutePosition, waiting: list[StoredSegment]
) -> tuple[list[StoredSegment], int]:
    """Move the position over segments that were dropped before it."""
    count = next((n for n, one in enumerate(waiting) if one.state != "dropped"), len(waiting))
    if count == 0:
        return waiting, here.offset
    last = waiting[count - 1].position
    positions.change(connection, ledger, here.route, here.stream, position=last, offset=0)
    return waiting[count:], 0


def _delivery(row: Row[Any]) -> StoredDelivery:
    return StoredDelivery(
        id=row.id,
        route=row.route,
        stream=row.stream,
        first_position=row.first_position,
        first_offset=row.first_offset,
        last_position=row.last_position,
        last_offset=row.last_offset,
        records=row.records,
        generation=row.generation,
        options=json_codec.decode(row.options),
        letters=tuple(json_codec.decode(row.letters)) if row.letters else (),
        marked=row.marked,
    )


def _insert(connection: Connection, ledger: Ledger, one: StoredDelivery) -> None:
    connection.execute(
        insert(deliveries).values(
            id=one.id,
            pipeline=ledger.pipeline,
            route=one.route,
            stream=one.stream,
            first_position=one.first_position,
            first_offset=one.first_offset,
            last_position=one.last_position,
            last_offset=one.last_offset,
            records=one.records,
            generation=one.generation,
            options=json_codec.encode(dict(one.options)),
            letters=json_codec.encode(list(one.letters)) if one.letters else None,
            marked=one.marked,
            created_at=ledger.now(connection),
        )
    )


def mark(ledger: Ledger, delivery: StoredDelivery, count: int) -> None:
    """Keep that the first ``count`` records, after filters, are delivered."""
    with ledger.write() as connection:
        _change(connection, delivery, marked=count)


def _change(connection: Connection, delivery: StoredDelivery, **changes: Any) -> None:
    found = connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**changes))
    if found.rowcount != 1:
        raise FencedError(f"the delivery {delivery.id} was ended by somebody else")


def withdraw(ledger: Ledger, delivery: StoredDelivery) -> None:
    """Take back a delivery that no router has seen; its records wait, and are chosen again.

    One of several parts stays: they came of an attempt.
    """
    with ledger.write() as connection:
        same = (*_is(ledger, delivery.route, delivery.stream), deliveries.c.letters.is_(None))
        ids = connection.execute(select(deliveries.c.id).where(*same)).scalars().all()
        if ids == [delivery.id] and not delivery.marked:
            connection.execute(deliveries.delete().where(deliveries.c.id == delivery.id))


def split(ledger: Ledger, delivery: StoredDelivery, parts: Sequence[StoredDelivery]) -> list[StoredDelivery]:
    """Put parts in the place of a delivery, each under an id of its own, before any is tried.

    Args:
        ledger: The ledger of this run.
        delivery: The delivery that a destination rejected.
        parts: Consecutive ranges that cover it; their ids are made here.
    """
    named = [evolve(one, id=new_id()) for one in parts]
    with ledger.write() as connection:
        if connection.execute(deliveries.delete().where(deliveries.c.id == delivery.id)).rowcount != 1:
            raise FencedError(f"the delivery {delivery.id} was ended by somebody else")
        for one in named:
            _insert(connection, ledger, one)
    return named


def store_letters_delivery(
    ledger: Ledger, route: str, stream: str, ids: Sequence[str], options: Mapping[str, Any], *, start: int = 0
) -> StoredDelivery:
    """A delivery of dead letters, outside the log's order.

    Args:
        ledger: The ledger of this run.
        route: The route's name.
        stream: The stream's name.
        ids: Of the dead letters, at most 1,000.
        options: The route's mode, columns and filter.
        start: The number of the first one among all that are delivered again.
    """
    delivery = StoredDelivery(
        id=new_id(),
        route=route,
        stream=stream,
        first_position=0,
        first_offset=start,
        last_position=0,
        last_offset=start + len(ids),
        records=len(ids),
        generation=0,
        options=options,
        letters=tuple(ids),
    )
    with ledger.write() as connection:
        _insert(connection, ledger, delivery)
        accounts.add(connection, ledger, route, stream, replayed=len(ids))
    return delivery


def open_letters(
    ledger: Ledger, route: str, stream: str | None = None, *, limit: int | None = None
) -> list[StoredDelivery]:
    """Deliveries of dead letters that have not ended, of all streams or of one, in order."""
    with ledger.read() as connection:
        query = select(deliveries).where(
            deliveries.c.pipeline == ledger.pipeline,
            deliveries.c.route == route,
            deliveries.c.letters.is_not(None),
            *([] if stream is None else [deliveries.c.stream == stream]),
        )
        return [
            _delivery(row)
            for row in connection.execute(query.order_by(deliveries.c.first_offset, deliveries.c.id).limit(limit))
        ]
