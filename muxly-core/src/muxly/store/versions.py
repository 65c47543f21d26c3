"""Versions of streams' schemas, as they were sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from muxly.store.schema.tables import schema_versions

if TYPE_CHECKING:
    from muxly.store.ledger import Ledger


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
