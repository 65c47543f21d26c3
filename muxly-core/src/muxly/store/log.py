"""The log of a stream: its segments in the order of their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from muxly.errors import StreamError
from muxly.store import json_codec
from muxly.store.rows import StoredSegment
from muxly.store.schema.tables import segments

if TYPE_CHECKING:
    from sqlalchemy import Row

    from muxly.store.ledger import Ledger
    from muxly.store.rows import RoutePosition, StoredDelivery


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
        replaces=tuple(json_codec.decode(row.replaces)) if row.replaces else (),
        state=row.state,
    )


def behind(ledger: Ledger, here: RoutePosition) -> tuple[Any, Any, Any]:
    """Chooses the segments behind a route's position."""
    return (
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == here.stream,
        segments.c.position > here.position,
    )


def quarantined(stream: str, position: int, why: str = "") -> StreamError:
    """The error of a segment that is set aside, with the ways out."""
    return StreamError(
        f"{why}{'; it' if why else f'the segment {position} of stream {stream!r}'} is quarantined and holds the "
        f"stream up: `muxly segments drop {stream} {position}` gives it up, `muxly state set` reads it again"
    )
