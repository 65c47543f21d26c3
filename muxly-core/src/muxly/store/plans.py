"""Plans: stored before their first read, finished before the next one is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from muxly._ids import new_id
from muxly.batch import Cursor
from muxly.connector import Partition
from muxly.store import json_codec
from muxly.store.ledger import Ledger
from muxly.store.rows import StoredPartition, StoredPlan, value_of
from muxly.store.schema.tables import partitions, plans, segments, streams


def stream_cursor(ledger: Ledger, stream: str) -> Cursor:
    """How far the stream has been read; None = never, or reset."""
    with ledger.read() as connection:
        text = connection.execute(select(streams.c.cursor).where(*_this_stream(ledger, stream))).scalar()
    return json_codec.decode_optional(text)


def boundary(ledger: Ledger, stream: str) -> Any:
    """What is kept to recognise repeats at the cursor; None = nothing."""
    with ledger.read() as connection:
        text = connection.execute(select(streams.c.boundary).where(*_this_stream(ledger, stream))).scalar()
    return json_codec.decode_optional(text)


def own_boundaries(ledger: Ledger, plan: str, ordinal: int) -> Mapping[str, Any]:
    """What is kept, by stream, to recognise what a partition of a plan has sealed itself."""
    query = select(partitions.c.boundaries).where(partitions.c.plan == plan, partitions.c.ordinal == ordinal)
    with ledger.read() as connection:
        return json_codec.decode_optional(connection.execute(query).scalar()) or {}


def unfinished(ledger: Ledger, stream: str, options_digest: str | None = None) -> StoredPlan | None:
    """The stream's unfinished plan, if it was made under the same options; None = under any."""
    query = select(plans).where(plans.c.pipeline == ledger.pipeline, plans.c.stream == stream, plans.c.state == "open")
    if options_digest is not None:
        query = query.where(plans.c.options_digest == options_digest)
    with ledger.read() as connection:
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        parts = connection.execute(
            select(partitions).where(partitions.c.plan == row.id).order_by(partitions.c.ordinal)
        ).all()
    return value_of(
        StoredPlan,
        row,
        cursor=json_codec.decode_optional(row.cursor),
        boundaries=json_codec.decode_optional(row.boundaries) or {},
        partitions=tuple(_partition(part) for part in parts),
    )


def _partition(row: Row[Any]) -> StoredPartition:
    return value_of(
        StoredPartition,
        row,
        id=json_codec.decode_name(row.partition),
        start=json_codec.decode_optional(row.start),
        cursor=json_codec.decode_optional(row.cursor),
        payload=json_codec.decode_optional(row.payload),
        done=bool(row.done),
    )


def store(
    ledger: Ledger,
    stream: str,
    *,
    partitions_planned: Iterable[Partition],
    cursor: Cursor,
    options_digest: str,
    from_start: bool,
    children: Iterable[str] = (),
    schema: bytes | None = None,
) -> StoredPlan:
    """Store a plan before its first read; unfinished ones of the stream are discarded.

    Args:
        ledger: The ledger of this run.
        stream: The stream; its row exists.
        partitions_planned: What is to be read. None at all: the plan is done at once.
        cursor: What the stream's cursor becomes; None = from the partitions.
        options_digest: Names the options it was made under.
        from_start: Whether it reads from the start, which begins a generation.
        children: Streams whose records come with this one's.
        schema: Arrow IPC bytes of the schema, if known.
    """
    children = list(children)
    planned = tuple(_unread(number, partition) for number, partition in enumerate(partitions_planned))
    with ledger.write() as connection:
        _discard_unfinished(connection, ledger, stream)
        plan = StoredPlan(
            id=new_id(),
            stream=stream,
            generation=_generation(connection, ledger, stream, children, from_start),
            cursor=cursor,
            boundaries=_boundaries(connection, ledger, [stream, *children]),
            schema=schema,
            partitions=planned,
        )
        _insert(connection, ledger, plan, options_digest)
        if not planned:
            finish(connection, ledger, plan.id)
    return plan


def _unread(number: int, partition: Partition) -> StoredPartition:
    """A partition of which nothing has been read."""
    return StoredPartition(
        ordinal=number,
        id=partition.id,
        start=partition.cursor,
        cursor=partition.cursor,
        payload=partition.payload,
        records=partition.records,
    )


def _insert(connection: Connection, ledger: Ledger, plan: StoredPlan, options_digest: str) -> None:
    connection.execute(
        insert(plans).values(
            id=plan.id,
            pipeline=ledger.pipeline,
            stream=plan.stream,
            generation=plan.generation,
            options_digest=options_digest,
            cursor=json_codec.encode_optional(plan.cursor),
            boundaries=json_codec.encode_optional(plan.boundaries or None),
            schema=plan.schema,
            state="open",
            created_at=ledger.now(connection),
        )
    )
    if plan.partitions:
        connection.execute(insert(partitions), [_partition_row(plan.id, part) for part in plan.partitions])


def _boundaries(connection: Connection, ledger: Ledger, family: list[str]) -> dict[str, Any]:
    """The tie boundaries of a stream and its children, where there are any."""
    names = [*family, *_children(connection, ledger, family[0])]
    query = select(streams.c.stream, streams.c.boundary).where(
        streams.c.pipeline == ledger.pipeline, streams.c.stream.in_(names), streams.c.boundary.is_not(None)
    )
    return {name: json_codec.decode(text) for name, text in connection.execute(query)}


def _partition_row(plan: str, part: StoredPartition) -> dict[str, Any]:
    start = json_codec.encode_optional(part.start)
    return {
        "plan": plan,
        "ordinal": part.ordinal,
        "partition": json_codec.encode_name(part.id),
        "start": start,
        "cursor": start,
        "payload": json_codec.encode_optional(part.payload),
        "records": part.records,
        "done": 0,
    }


def _generation(connection: Connection, ledger: Ledger, stream: str, children: Iterable[str], from_start: bool) -> int:
    """The generation of a new plan; a plan from the start begins the next one."""
    family = [stream, *children, *_children(connection, ledger, stream)]
    mine = streams.c.pipeline == ledger.pipeline
    known = connection.execute(select(streams.c.generation).where(mine, streams.c.stream.in_(family))).scalars()
    generation = max(known, default=0)
    if from_start:
        generation += 1
        connection.execute(
            update(streams).where(mine, streams.c.stream.in_(family)).values(generation=generation, boundary=None)
        )
    return generation


def _discard_unfinished(connection: Connection, ledger: Ledger, stream: str) -> None:
    connection.execute(
        update(plans)
        .where(plans.c.pipeline == ledger.pipeline, plans.c.stream == stream, plans.c.state == "open")
        .values(state="discarded")
    )


def finish(connection: Connection, ledger: Ledger, plan: str) -> None:
    """End a plan whose partitions are all sealed: the stream's cursor moves, a generation is whole."""
    row = connection.execute(select(plans).where(plans.c.id == plan)).one()
    parts = connection.execute(
        select(partitions.c.partition, partitions.c.cursor)
        .where(partitions.c.plan == plan)
        .order_by(partitions.c.ordinal)
    ).all()
    cursor = row.cursor if row.cursor is not None else _reached([(part.partition, part.cursor) for part in parts])
    change: dict[str, Any] = {"sealed_generation": row.generation, "updated_at": ledger.now(connection)}
    family = {row.stream, *_children(connection, ledger, row.stream)}
    mine = streams.c.pipeline == ledger.pipeline
    connection.execute(update(streams).where(mine, streams.c.stream.in_(family)).values(**change))
    if cursor is not None:
        connection.execute(update(streams).where(*_this_stream(ledger, row.stream)).values(cursor=cursor))
    connection.execute(update(plans).where(plans.c.id == plan).values(state="done"))
    _forget_older(connection, ledger, row.stream, plan)


def _children(connection: Connection, ledger: Ledger, stream: str) -> list[str]:
    query = select(streams.c.stream).where(streams.c.pipeline == ledger.pipeline, streams.c.parent == stream)
    return list(connection.execute(query).scalars())


def _reached(parts: list[tuple[str, str | None]]) -> str | None:
    """The stream's cursor where the plan names none, encoded."""
    if len(parts) == 1:
        return parts[0][1]
    cursors = {json_codec.decode_name(name): json_codec.decode(text) for name, text in parts if text is not None}
    return json_codec.encode(cursors) if cursors else None


def _forget_older(connection: Connection, ledger: Ledger, stream: str, newest: str) -> None:
    """Ended plans are kept no longer than the next one's end."""
    old = select(plans.c.id).where(
        plans.c.pipeline == ledger.pipeline,
        plans.c.stream == stream,
        plans.c.state != "open",
        plans.c.id != newest,
    )
    connection.execute(partitions.delete().where(partitions.c.plan.in_(old)))
    connection.execute(plans.delete().where(plans.c.id.in_(old)))


def set_cursor(ledger: Ledger, stream: str, cursor: Cursor) -> None:
    """Set the stream's cursor by hand; its unfinished plan is discarded, its boundary forgotten."""
    with ledger.write() as connection:
        _discard_unfinished(connection, ledger, stream)
        connection.execute(
            update(streams)
            .where(*_this_stream(ledger, stream))
            .values(cursor=json_codec.encode_optional(cursor), boundary=None)
        )


def reset(ledger: Ledger, names: Iterable[str]) -> None:
    """Forget how far the streams were read; the next run plans them from the start."""
    for name in names:
        set_cursor(ledger, name, None)


def discard(ledger: Ledger, stream: str) -> None:
    """Give up the stream's unfinished plan."""
    with ledger.write() as connection:
        _discard_unfinished(connection, ledger, stream)


def cursor_before(ledger: Ledger, stream: str, position: int) -> Cursor:
    """The cursor that was reached before the segment at that position was read."""
    with ledger.read() as connection:
        text = connection.execute(
            select(segments.c.cursor_before).where(
                segments.c.pipeline == ledger.pipeline,
                segments.c.stream == stream,
                segments.c.position == position,
            )
        ).scalar()
    return json_codec.decode_optional(text)


def _this_stream(ledger: Ledger, stream: str) -> tuple[Any, Any]:
    return streams.c.pipeline == ledger.pipeline, streams.c.stream == stream
