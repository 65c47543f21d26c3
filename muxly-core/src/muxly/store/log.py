"""The log of a stream: its segments in the order of their positions, and the versions of its schema."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, func, select

from muxly.errors import StreamError
from muxly.store import json_codec
from muxly.store.ledger import Ledger
from muxly.store.rows import RoutePosition, StoredDelivery, StoredSegment, value_of
from muxly.store.schema.tables import schema_versions, segments


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
    return value_of(StoredSegment, row, replaces=tuple(json_codec.decode(row.replaces)) if row.replaces else ())


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
        f"{why}{'; it' if why else f'the segment {position} of stream {stream!r}'} is quarantined and blocks the "
        f"stream: `muxly segments drop {stream} {position}` discards it, `muxly state set` reads it again"
    )


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
