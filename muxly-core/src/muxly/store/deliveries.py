"""Deliveries: chosen from the log behind a route's position, and stored before their first attempt.

A delivery is stored under its id before a router sees it, with the bounds and the options it was made with. So after a
crash, wherever it happened, the same records come again under the same id, and the destination can tell a repeat from
new records. For the same reason its records never change: to find a bad one it is replaced by parts with ids of their
own, in one transaction, before any part is tried. It ends in ``acknowledge``, which also moves the position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from sqlalchemy import Connection, Row, insert, select, update

from muxly._ids import new_id
from muxly.errors import FencedError
from muxly.store import accounts, json_codec, log, positions
from muxly.store.ledger import Ledger
from muxly.store.rows import LogRange, RoutePosition, StoredDelivery, StoredSegment, columns_of, value_of
from muxly.store.schema.tables import deliveries, segments

_LOOK_AHEAD = 500


def choose(
    waiting: Sequence[StoredSegment],
    offset: int,
    *,
    records: int | None,
    bytes: int,
    whole_groups: bool,
) -> LogRange | None:
    """The records that the next delivery takes, or None if the next segment cannot be delivered.

    It depends on its arguments alone: it reads no clock and no database.

    Args:
        waiting: Segments behind the position, in order and without dropped ones at the start.
        offset: Records of the first one that are delivered already.
        records: At most so many records; None = no limit.
        bytes: At most so many bytes in memory; a first segment that is larger is cut.
        whole_groups: Whether groups must stay whole, whatever their size.
    """
    if not waiting or waiting[0].state == "quarantined":
        return None
    if whole_groups:
        return _whole_group(waiting, offset)
    first = waiting[0]
    taken = [_cut(first, offset, records, bytes)]
    room_records = None if records is None else records - taken[0].records
    room_bytes = bytes - first.bytes
    if taken[0].last_offset == first.records:
        for segment in waiting[1:]:
            if not _joins(first, segment) or not _fits(segment, room_records, room_bytes):
                break
            room_records = None if room_records is None else room_records - segment.records
            room_bytes -= segment.bytes
            taken.append(_cut(segment, 0, None, segment.bytes))
    return _joined(taken)


def _whole_group(waiting: Sequence[StoredSegment], offset: int) -> LogRange | None:
    """What is left of the first group, without what was dropped; None while a part of it is quarantined.

    Half a group would replace values by half of their records, and the other half would replace those.
    """
    group = [segment for segment in waiting if segment.group == waiting[0].group]
    if any(segment.state == "quarantined" for segment in group):
        return None
    return _joined(
        [
            _cut(segment, offset if segment is group[0] else 0, None, segment.bytes)
            for segment in group
            if segment.state == "sealed"
        ]
    )


def _joined(taken: Sequence[LogRange]) -> LogRange:
    return LogRange(
        first_position=taken[0].first_position,
        first_offset=taken[0].first_offset,
        last_position=taken[-1].last_position,
        last_offset=taken[-1].last_offset,
        records=sum(part.records for part in taken),
        generation=taken[0].generation,
    )


def _joins(first: StoredSegment, segment: StoredSegment) -> bool:
    """Whether one more segment may follow; a delivery has one schema."""
    same_schema = segment.schema_version == first.schema_version
    return segment.state == "sealed" and segment.generation == first.generation and same_schema


def _fits(segment: StoredSegment, room_records: int | None, room_bytes: int) -> bool:
    return segment.bytes <= room_bytes and (room_records is None or segment.records <= room_records)


def _cut(segment: StoredSegment, offset: int, records: int | None, bytes: int) -> LogRange:
    """As much of one segment as fits; at least one record."""
    left = segment.records - offset
    if records is not None:
        left = min(left, records)
    if segment.bytes > bytes:
        left = min(left, max(1, segment.records * bytes // segment.bytes))
    return LogRange(
        first_position=segment.position,
        first_offset=offset,
        last_position=segment.position,
        last_offset=offset + left,
        records=left,
        generation=segment.generation,
    )


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
    # Most calls end in this transaction, which only reads: one that writes would wait for the store's only writer.
    with ledger.read() as connection:
        here = positions.get(connection, ledger, route, stream)
        if here.detached:
            return None
        if delivery := _open(connection, ledger, route, stream):
            _refuse_quarantined(connection, ledger, delivery)
            return delivery
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
        delivery = StoredDelivery(id=new_id(), route=route, stream=stream, options=options, **columns_of(chosen))
        _insert(connection, ledger, delivery)
        return delivery


def _refuse_damaged_group(waiting: Sequence[StoredSegment]) -> None:
    for segment in waiting:
        if segment.group == waiting[0].group and segment.state == "quarantined":
            raise log.quarantined(segment.stream, segment.position)


def _open(connection: Connection, ledger: Ledger, route: str, stream: str) -> StoredDelivery | None:
    query = (
        select(deliveries)
        .where(*_this_log(ledger, route, stream), deliveries.c.letters.is_(None))
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


def _this_log(ledger: Ledger, route: str, stream: str) -> tuple[Any, Any, Any]:
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
    count = next((n for n, segment in enumerate(waiting) if segment.state != "dropped"), len(waiting))
    if count == 0:
        return waiting, here.offset
    last = waiting[count - 1].position
    positions.change(connection, ledger, here.route, here.stream, position=last, offset=0)
    return waiting[count:], 0


def _delivery(row: Row[Any]) -> StoredDelivery:
    return value_of(
        StoredDelivery,
        row,
        options=json_codec.decode(row.options),
        letters=tuple(json_codec.decode(row.letters)) if row.letters else (),
    )


def _insert(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> None:
    columns = columns_of(
        delivery,
        pipeline=ledger.pipeline,
        options=json_codec.encode(dict(delivery.options)),
        letters=json_codec.encode(list(delivery.letters)) if delivery.letters else None,
        created_at=ledger.now(connection),
    )
    connection.execute(insert(deliveries).values(columns))


def mark(ledger: Ledger, delivery: StoredDelivery, count: int) -> None:
    """Keep that the first ``count`` records, after filters, are delivered."""
    with ledger.write() as connection:
        _change(connection, delivery, marked=count)


def _change(connection: Connection, delivery: StoredDelivery, **changes: Any) -> None:
    changed = connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**changes))
    if changed.rowcount != 1:
        raise FencedError(f"the delivery {delivery.id} was ended by another run")


def withdraw(ledger: Ledger, delivery: StoredDelivery) -> None:
    """Take back a delivery that no router has seen; its records wait, and are chosen again.

    One of several parts stays: they came of an attempt.
    """
    with ledger.write() as connection:
        same = (*_this_log(ledger, delivery.route, delivery.stream), deliveries.c.letters.is_(None))
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
    named = [evolve(part, id=new_id()) for part in parts]
    with ledger.write() as connection:
        if connection.execute(deliveries.delete().where(deliveries.c.id == delivery.id)).rowcount != 1:
            raise FencedError(f"the delivery {delivery.id} was ended by another run")
        for part in named:
            _insert(connection, ledger, part)
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
