"""Sealing: groups that are durable in the spool become part of their streams' logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from muxly.errors import FencedError
from muxly.store import accounts, letters, plans, positions, texts, values
from muxly.store.rows import StoredSegment
from muxly.store.tables import partitions, schema_versions, segments, streams
from muxly.store.tables import plans as plans_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from muxly.store.ledger import Ledger
    from muxly.store.rows import WrittenGroup, WrittenSegment


def seal(
    ledger: Ledger, groups: Sequence[WrittenGroup], routes_of: Callable[[str], Sequence[str]]
) -> list[StoredSegment]:
    """Give each segment its position, and move the cursors, in one transaction.

    From here the source is not asked for these records again, and routes may deliver them.

    Args:
        ledger: The ledger of this run.
        groups: Their files are durable in the spool.
        routes_of: The routes that a stream is delivered by; asked for streams seen first now.

    Raises:
        FencedError: The lease is lost, or a partition's cursor is not the one that its
            reading continues from; nothing was sealed.
    """
    sealed: list[StoredSegment] = []
    with ledger.write() as connection:
        now = ledger.now(connection)
        for group in groups:
            _move_cursor(connection, group)
            _store_schemas(connection, ledger, group, now)
            sealed += _append(connection, ledger, group, routes_of, now)
            _count(connection, ledger, group, now)
        for plan in dict.fromkeys(group.plan for group in groups if group.done):
            _finish_plan(connection, ledger, plan)
    return sealed


def _move_cursor(connection: Connection, group: WrittenGroup) -> None:
    before = None if group.cursor_before is None else values.encode(group.cursor_before)
    moved: dict[str, Any] = {"done": int(group.done)}
    if group.own_boundaries or group.done:
        moved["boundaries"] = values.encode(dict(group.own_boundaries)) if not group.done else None
    if group.cursor_after is not None:
        moved["cursor"] = values.encode(group.cursor_after)
    here = partitions.c.cursor.is_(None) if before is None else partitions.c.cursor == before
    open_plan = select(plans_table.c.id).where(plans_table.c.id == group.plan, plans_table.c.state == "open")
    changed = connection.execute(
        update(partitions)
        .where(
            partitions.c.plan.in_(open_plan),
            partitions.c.ordinal == group.ordinal,
            partitions.c.done == 0,
            here,
        )
        .values(**moved)
    )
    if changed.rowcount != 1:
        raise FencedError(f"the partition {group.partition!r} was read on by somebody else; this reading is given up")


def _store_schemas(connection: Connection, ledger: Ledger, group: WrittenGroup, now: datetime) -> None:
    for stream, version, schema in group.schemas:
        here = {"pipeline": ledger.pipeline, "stream": stream, "version": version}
        known = select(schema_versions.c.version).filter_by(**here)
        if connection.execute(known).first() is None:
            connection.execute(insert(schema_versions).values(**here, schema=schema, created_at=now))


def _append(
    connection: Connection,
    ledger: Ledger,
    group: WrittenGroup,
    routes_of: Callable[[str], Sequence[str]],
    now: datetime,
) -> list[StoredSegment]:
    """Insert the group's segments, each at the next position of its stream."""
    heads: dict[str, tuple[int, int]] = {}
    first: dict[str, int] = {}
    found: list[StoredSegment] = []
    for one in group.segments:
        if one.stream not in heads:
            heads[one.stream] = _head(connection, ledger, one, group.plan, routes_of(one.stream), now)
        head, generation = heads[one.stream]
        heads[one.stream] = (head + 1, generation)
        found.append(_stored(one, head + 1, first.setdefault(one.stream, head + 1), generation))
    if found:
        rows = [_row(ledger, group, one, now) for one in found]
        connection.execute(insert(segments), rows)
    for stream, (head, _generation) in heads.items():
        connection.execute(update(streams).where(*_is(ledger, stream)).values(head=head, updated_at=now))
    for stream, kept in group.boundaries.items():
        connection.execute(update(streams).where(*_is(ledger, stream)).values(boundary=values.encode(kept)))
    return found


def _is(ledger: Ledger, stream: str) -> tuple[Any, Any]:
    return streams.c.pipeline == ledger.pipeline, streams.c.stream == stream


def _head(
    connection: Connection,
    ledger: Ledger,
    segment: WrittenSegment,
    plan: str,
    routes: Sequence[str],
    now: datetime,
) -> tuple[int, int]:
    """The stream's last position, and the generation of the plan being read."""
    generation = connection.execute(select(plans_table.c.generation).where(plans_table.c.id == plan)).scalar_one()
    query = select(streams.c.head, streams.c.generation).where(*_is(ledger, segment.stream))
    row = connection.execute(query).one_or_none()
    if row is None:
        positions.add_stream(connection, ledger, segment.stream, routes, parent=segment.parent, now=now)
        row = connection.execute(query).one()
    if row.generation < generation:
        connection.execute(update(streams).where(*_is(ledger, segment.stream)).values(generation=generation))
    return row.head, generation


def _stored(one: WrittenSegment, position: int, group: int, generation: int) -> StoredSegment:
    return StoredSegment(
        stream=one.stream,
        position=position,
        key=one.key,
        group=group,
        generation=generation,
        schema_version=one.schema_version,
        records=one.records,
        bytes=one.bytes,
        file=one.file,
        offset=one.offset,
        length=one.length,
        digest=one.digest,
        replaces=one.replaces,
    )


def _row(ledger: Ledger, group: WrittenGroup, one: StoredSegment, now: datetime) -> dict[str, Any]:
    return {
        "pipeline": ledger.pipeline,
        "stream": one.stream,
        "position": one.position,
        "key": one.key,
        "group": one.group,
        "generation": one.generation,
        "schema_version": one.schema_version,
        "records": one.records,
        "bytes": one.bytes,
        "file": one.file,
        "offset": one.offset,
        "length": one.length,
        "digest": one.digest,
        "plan": group.plan,
        "partition": texts.stored(group.partition),
        "cursor_before": _encoded(group.cursor_before),
        "cursor_after": _encoded(group.cursor_after),
        "replaces": values.encode(list(one.replaces)) if one.replaces else None,
        "state": "sealed",
        "sealed_at": now,
    }


def _encoded(value: Any) -> str | None:
    return None if value is None else values.encode(value)


def _count(connection: Connection, ledger: Ledger, group: WrittenGroup, now: datetime) -> None:
    for stream in {one.stream for one in group.segments}:
        records = sum(one.records for one in group.segments if one.stream == stream)
        accounts.add(connection, ledger, "", stream, sealed=records)
        for route in positions.detached(connection, ledger, stream):
            accounts.add(connection, ledger, route, stream, dropped=records)
    for stream in {one.stream for one in group.letters}:
        mine = [one for one in group.letters if one.stream == stream]
        accounts.add(connection, ledger, "", stream, rejected=len(mine))
    letters.store(connection, ledger, "", group.letters, now)


def _finish_plan(connection: Connection, ledger: Ledger, plan: str) -> None:
    still_open = select(partitions.c.ordinal).where(partitions.c.plan == plan, partitions.c.done == 0).limit(1)
    if connection.execute(still_open).first() is None:
        plans.finish(connection, ledger, plan)
