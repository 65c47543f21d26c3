"""Deliveries: stored before their first attempt, ended by an acknowledgement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve
from sqlalchemy import func, insert, select, update

from muxly._ids import new_id
from muxly.errors import FencedError, StreamError
from muxly.store import accounts, letters, positions, values
from muxly.store.ranges import choose
from muxly.store.rows import Generations, StoredDelivery, StoredSegment
from muxly.store.tables import deliveries, route_positions, schema_versions, segments, streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from muxly.store.ledger import Ledger
    from muxly.store.rows import Letter, RoutePosition

_LOOK_AHEAD = 500
STATE_LIMIT_BYTES = 1 << 20


def following(
    ledger: Ledger,
    route: str,
    stream: str,
    *,
    options: Mapping[str, Any],
    records: int | None,
    bytes: int,
    whole_groups: bool,
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
            raise quarantined(stream, waiting[0].position)
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
        raise quarantined(one.stream, one.position)


def waiting_size(ledger: Ledger, route: str, stream: str) -> tuple[int, int]:
    """Records and bytes in memory of the segments behind a route's position."""
    with ledger.read() as connection:
        here = positions.get(connection, ledger, route, stream)
        sums = select(func.sum(segments.c.records), func.sum(segments.c.bytes)).where(
            *_behind(ledger, here), segments.c.state == "sealed"
        )
        records, size = connection.execute(sums).one()
    return int(records or 0), int(size or 0)


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
        raise quarantined(delivery.stream, position)


def quarantined(stream: str, position: int, why: str = "") -> StreamError:
    """The error of a segment that is set aside, with the ways out."""
    return StreamError(
        f"{why}{'; it' if why else f'the segment {position} of stream {stream!r}'} is quarantined and holds the "
        f"stream up: `muxly segments drop {stream} {position}` gives it up, `muxly state set` reads it again"
    )


def _is(ledger: Ledger, route: str, stream: str) -> tuple[Any, Any, Any]:
    return (
        deliveries.c.pipeline == ledger.pipeline,
        deliveries.c.route == route,
        deliveries.c.stream == stream,
    )


def _behind(ledger: Ledger, here: RoutePosition) -> tuple[Any, Any, Any]:
    return (
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == here.stream,
        segments.c.position > here.position,
    )


def _waiting(connection: Connection, ledger: Ledger, here: RoutePosition, *, whole_groups: bool) -> list[StoredSegment]:
    """The next segments; of whole groups all up to the end of the first that was not dropped."""
    query = select(segments).where(*_behind(ledger, here)).order_by(segments.c.position)
    if whole_groups:
        kept = select(segments.c.group).where(*_behind(ledger, here), segments.c.state != "dropped")
        group = connection.execute(kept.order_by(segments.c.position).limit(1)).scalar()
        if group is not None:
            query = query.where(segments.c.group <= group)
    else:
        query = query.limit(_LOOK_AHEAD)
    return [segment_of(row) for row in connection.execute(query)]


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


def segment_of(row: Row[Any]) -> StoredSegment:
    """A segment's row as a value."""
    return StoredSegment(
        stream=row.stream,
        position=row.position,
        key=row.key,
        group=row.group,
        generation=row.generation,
        schema_version=row.schema_version,
        records=row.records,
        bytes=row.bytes,
        file=row.file,
        offset=row.offset,
        length=row.length,
        digest=row.digest,
        replaces=tuple(values.decode(row.replaces)) if row.replaces else (),
        state=row.state,
    )


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
        options=values.decode(row.options),
        letters=tuple(values.decode(row.letters)) if row.letters else (),
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
            options=values.encode(dict(one.options)),
            letters=values.encode(list(one.letters)) if one.letters else None,
            marked=one.marked,
            created_at=ledger.now(connection),
        )
    )


def segments_of(ledger: Ledger, delivery: StoredDelivery) -> list[StoredSegment]:
    """The segments a delivery covers, in order; dropped ones are left out."""
    query = (
        select(segments)
        .where(
            segments.c.pipeline == ledger.pipeline,
            segments.c.stream == delivery.stream,
            segments.c.position.between(delivery.first_position, delivery.last_position),
            segments.c.state != "dropped",
        )
        .order_by(segments.c.position)
    )
    with ledger.read() as connection:
        return [segment_of(row) for row in connection.execute(query)]


def schema_of(ledger: Ledger, stream: str, version: int) -> bytes | None:
    """The Arrow IPC bytes of one version of a stream's schema."""
    with ledger.read() as connection:
        query = select(schema_versions.c.schema).where(
            schema_versions.c.pipeline == ledger.pipeline,
            schema_versions.c.stream == stream,
            schema_versions.c.version == version,
        )
        return connection.execute(query).scalar()


def newest_schema(ledger: Ledger, stream: str) -> tuple[int, bytes] | None:
    """The number and Arrow IPC bytes of the stream's newest schema."""
    with ledger.read() as connection:
        row = connection.execute(
            select(schema_versions.c.version, schema_versions.c.schema)
            .where(schema_versions.c.pipeline == ledger.pipeline, schema_versions.c.stream == stream)
            .order_by(schema_versions.c.version.desc())
            .limit(1)
        ).one_or_none()
    return None if row is None else (row.version, row.schema)


def schema_numbers(ledger: Ledger) -> dict[str, int]:
    """The number of each stream's newest schema, by stream."""
    query = (
        select(schema_versions.c.stream, func.max(schema_versions.c.version).label("newest"))
        .where(schema_versions.c.pipeline == ledger.pipeline)
        .group_by(schema_versions.c.stream)
        .order_by(schema_versions.c.stream)
    )
    with ledger.read() as connection:
        return {row.stream: row.newest for row in connection.execute(query)}


def mark(ledger: Ledger, delivery: StoredDelivery, count: int) -> None:
    """Keep that the first ``count`` records, after filters, are delivered."""
    with ledger.write() as connection:
        _change(connection, delivery, marked=count)


def _change(connection: Connection, delivery: StoredDelivery, **changes: Any) -> None:
    found = connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**changes))
    if found.rowcount != 1:
        raise FencedError(f"the delivery {delivery.id} was ended by somebody else")


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
        ValueError: The three numbers do not add up to the delivery's records, or the state
            is larger than 1 MiB.
    """
    if delivered + filtered + len(rejected) != delivery.records:
        raise ValueError(
            f"delivery {delivery.id}: {delivered} delivered + {filtered} filtered + {len(rejected)} rejected "
            f"are not its {delivery.records} records"
        )
    moved = _moved(state)
    with ledger.write() as connection:
        if connection.execute(deliveries.delete().where(deliveries.c.id == delivery.id)).rowcount != 1:
            raise FencedError(f"the delivery {delivery.id} was ended by somebody else")
        if delivery.letters:
            letters.mark_replayed(connection, ledger, delivery.letters)
        else:
            moved |= _end(connection, ledger, delivery)
            _count_damaged(connection, ledger, delivery)
        if moved:
            positions.change(connection, ledger, delivery.route, delivery.stream, **moved)
        letters.store(connection, ledger, delivery.route, rejected, ledger.now(connection))
        accounts.add(
            connection, ledger, delivery.route, delivery.stream,
            delivered=delivered, filtered=filtered, rejected=len(rejected),
        )  # fmt: skip
        if rejected:
            _count_rejected(connection, ledger, delivery, len(rejected))


def _moved(state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    text = values.encode(state)
    if len(text) > STATE_LIMIT_BYTES:
        raise ValueError(f"the receipt's state is {len(text)} bytes; 1 MiB is the most")
    return {"state": text}


def _end(connection: Connection, ledger: Ledger, delivery: StoredDelivery) -> dict[str, int]:
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
        start = delivery.first_offset if row.position == delivery.first_position else 0
        end = delivery.last_offset if row.position == delivery.last_position else row.records
        count += end - start
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
        connection.execute(deliveries.delete().where(*_is(ledger, route, stream), deliveries.c.letters.is_(None)))
        positions.change(connection, ledger, route, stream, position=rows[-1].position, offset=0, rejected=0)
        accounts.add(connection, ledger, route, stream, superseded=count)
        return count


def generations(ledger: Ledger, stream: str) -> Generations:
    """Which full reads of a stream are in its log."""
    with ledger.read() as connection:
        row = connection.execute(
            select(streams.c.generation, streams.c.sealed_generation, streams.c.head).where(
                streams.c.pipeline == ledger.pipeline, streams.c.stream == stream
            )
        ).one_or_none()
    if row is None:
        return Generations(newest=0, sealed=0, head=0)
    return Generations(newest=row.generation, sealed=row.sealed_generation, head=row.head)
