"""Sealing: groups that are durable in the spool become part of their streams' logs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from muxly.errors import FencedError
from muxly.store import accounts, dead_letters, json_codec, plans, positions
from muxly.store.rows import StoredSegment
from muxly.store.schema.tables import partitions, schema_versions, segments, streams
from muxly.store.schema.tables import plans as plans_table

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
    with ledger.write() as connection:
        sealing = _Sealing(connection, ledger, routes_of)
        for group in groups:
            sealing.add(group)
        sealing.write()
        for plan in dict.fromkeys(group.plan for group in groups if group.done):
            _finish_plan(connection, ledger, plan)
    return [segment for _group, segment in sealing.segments]


class _Sealing:
    """One transaction that seals groups; what concerns a stream is read and written once for all of them.

    Args:
        connection: The transaction.
        ledger: The ledger of this run.
        routes_of: The routes that a stream is delivered by.
    """

    def __init__(self, connection: Connection, ledger: Ledger, routes_of: Callable[[str], Sequence[str]]) -> None:
        self._connection, self._ledger, self._routes_of = connection, ledger, routes_of
        self._now = ledger.now(connection)
        self._generations: dict[str, int] = {}
        self._streams: dict[str, dict[str, Any]] = {}
        self._sums: dict[str, Counter[str]] = {}
        self.segments: list[tuple[WrittenGroup, StoredSegment]] = []

    def add(self, group: WrittenGroup) -> None:
        """Move the partition's cursor, and give the group's segments their positions."""
        _move_cursor(self._connection, group)
        _store_schemas(self._connection, self._ledger, group, self._now)
        first: dict[str, int] = {}
        for one in group.segments:
            stream = self._stream(one, group.plan)
            stream["head"] += 1
            begin = first.setdefault(one.stream, stream["head"])
            self.segments.append((group, _stored(one, stream["head"], begin, self._generation(group.plan))))
            self._count(one.stream, sealed=one.records)
        for name, kept in group.boundaries.items():
            self._streams[name]["boundary"] = json_codec.encode(kept)
        for letter in group.letters:
            self._count(letter.stream, rejected=1)
        dead_letters.store(self._connection, self._ledger, "", group.letters, self._now)

    def _count(self, stream: str, **sums: int) -> None:
        self._sums.setdefault(stream, Counter()).update(sums)

    def _generation(self, plan: str) -> int:
        if plan not in self._generations:
            query = select(plans_table.c.generation).where(plans_table.c.id == plan)
            self._generations[plan] = self._connection.execute(query).scalar_one()
        return self._generations[plan]

    def _stream(self, segment: WrittenSegment, plan: str) -> dict[str, Any]:
        """What is to be written of the segment's stream: its last position, the plan's generation."""
        if segment.stream not in self._streams:
            self._streams[segment.stream] = {"head": self._head(segment), "updated_at": self._now}
        stream, generation = self._streams[segment.stream], self._generation(plan)
        if stream.get("generation", 0) < generation:
            stream["generation"] = generation
        return stream

    def _head(self, segment: WrittenSegment) -> int:
        query = select(streams.c.head).where(*_is(self._ledger, segment.stream))
        head = self._connection.execute(query).scalar()
        if head is None:
            routes = self._routes_of(segment.stream)
            positions.add_stream(
                self._connection, self._ledger, segment.stream, routes, parent=segment.parent, now=self._now
            )
            head = self._connection.execute(query).scalar_one()
        return int(head)

    def write(self) -> None:
        """Write segments, heads, boundaries and sums."""
        if self.segments:
            rows = [_row(self._ledger, group, one, self._now) for group, one in self.segments]
            self._connection.execute(insert(segments), rows)
        for name, changes in self._streams.items():
            self._connection.execute(update(streams).where(*_is(self._ledger, name)).values(**changes))
        for name, sums in self._sums.items():
            accounts.add(self._connection, self._ledger, "", name, **sums)
            for route in positions.detached(self._connection, self._ledger, name) if sums["sealed"] else ():
                accounts.add(self._connection, self._ledger, route, name, dropped=sums["sealed"])


def _move_cursor(connection: Connection, group: WrittenGroup) -> None:
    before = None if group.cursor_before is None else json_codec.encode(group.cursor_before)
    moved: dict[str, Any] = {"done": int(group.done)}
    if group.own_boundaries or group.done:
        moved["boundaries"] = json_codec.encode(dict(group.own_boundaries)) if not group.done else None
    if group.cursor_after is not None:
        moved["cursor"] = json_codec.encode(group.cursor_after)
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


def _is(ledger: Ledger, stream: str) -> tuple[Any, Any]:
    return streams.c.pipeline == ledger.pipeline, streams.c.stream == stream


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
        "partition": json_codec.stored(group.partition),
        "cursor_before": _encoded(group.cursor_before),
        "cursor_after": _encoded(group.cursor_after),
        "replaces": json_codec.encode(list(one.replaces)) if one.replaces else None,
        "state": "sealed",
        "sealed_at": now,
    }


def _encoded(value: Any) -> str | None:
    return None if value is None else json_codec.encode(value)


def _finish_plan(connection: Connection, ledger: Ledger, plan: str) -> None:
    still_open = select(partitions.c.ordinal).where(partitions.c.plan == plan, partitions.c.done == 0).limit(1)
    if connection.execute(still_open).first() is None:
        plans.finish(connection, ledger, plan)
