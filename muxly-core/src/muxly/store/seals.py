"""Sealing: groups that are durable in the spool become part of their streams' logs.

The files come first: they, their names and the spool's folder are synced before the transaction begins, so a row never
names bytes that a power cut could still take away. A crash before its commit leaves files that no row names, which are
swept, and cursors that have not moved, so the records are read again. A crash after it leaves nothing to do.

The lease keeps other runs out, and the partition's cursor keeps out late threads of this run: a group is sealed only if
its partition still has the cursor that this reading began from, and its plan is still open. A reading that was left
behind, because it stalled and its partition was read again, or because its plan was discarded, finds another cursor or
no open plan and is refused. Without that, the same records would be sealed twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from muxly.errors import FencedError
from muxly.store import accounts, dead_letters, json_codec, plans, positions
from muxly.store.ledger import Ledger
from muxly.store.rows import StoredSegment, WrittenGroup, WrittenSegment, columns_of
from muxly.store.schema.tables import partitions, schema_versions, segments, streams
from muxly.store.schema.tables import plans as plans_table


def seal(
    ledger: Ledger, groups: Sequence[WrittenGroup], routes_of: Callable[[str], Sequence[str]]
) -> list[StoredSegment]:
    """Give each segment its position, and move the cursors, in one transaction.

    From here the source is not asked for these records again, and routes may deliver them.

    Args:
        ledger: The ledger of this run.
        groups: Their files are durable in the spool.
        routes_of: The routes that a stream is delivered by; called only for streams that the ledger does not know yet.

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
        for written in group.segments:
            stream = self._stream(written, group.plan)
            stream["head"] += 1
            begin = first.setdefault(written.stream, stream["head"])
            segment = StoredSegment.of(
                written, position=stream["head"], group=begin, generation=self._generation(group.plan)
            )
            self.segments.append((group, segment))
            self._count(written.stream, sealed=written.records)
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
        query = select(streams.c.head).where(*_this_stream(self._ledger, segment.stream))
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
            rows = [_row(self._ledger, group, segment, self._now) for group, segment in self.segments]
            self._connection.execute(insert(segments), rows)
        for name, changes in self._streams.items():
            self._connection.execute(update(streams).where(*_this_stream(self._ledger, name)).values(**changes))
        for name, sums in self._sums.items():
            accounts.add(self._connection, self._ledger, "", name, **sums)
            for route in positions.detached(self._connection, self._ledger, name) if sums["sealed"] else ():
                accounts.add(self._connection, self._ledger, route, name, dropped=sums["sealed"])


def _move_cursor(connection: Connection, group: WrittenGroup) -> None:
    before = json_codec.encode_optional(group.cursor_before)
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
        raise FencedError(f"the partition {group.partition!r} was continued by another run; this reading is abandoned")


def _store_schemas(connection: Connection, ledger: Ledger, group: WrittenGroup, now: datetime) -> None:
    for stream, version, schema in group.schemas:
        here = {"pipeline": ledger.pipeline, "stream": stream, "version": version}
        known = select(schema_versions.c.version).filter_by(**here)
        if connection.execute(known).first() is None:
            connection.execute(insert(schema_versions).values(**here, schema=schema, created_at=now))


def _this_stream(ledger: Ledger, stream: str) -> tuple[Any, Any]:
    return streams.c.pipeline == ledger.pipeline, streams.c.stream == stream


def _row(ledger: Ledger, group: WrittenGroup, segment: StoredSegment, now: datetime) -> dict[str, Any]:
    return columns_of(
        segment,
        pipeline=ledger.pipeline,
        plan=group.plan,
        partition=json_codec.encode_name(group.partition),
        cursor_before=json_codec.encode_optional(group.cursor_before),
        cursor_after=json_codec.encode_optional(group.cursor_after),
        replaces=json_codec.encode(list(segment.replaces)) if segment.replaces else None,
        sealed_at=now,
    )


def _finish_plan(connection: Connection, ledger: Ledger, plan: str) -> None:
    still_open = select(partitions.c.ordinal).where(partitions.c.plan == plan, partitions.c.done == 0).limit(1)
    if connection.execute(still_open).first() is None:
        plans.finish(connection, ledger, plan)
