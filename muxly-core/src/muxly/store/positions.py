"""Positions: how far each route has come in the log of each stream.

A position begins with ``register``, or with ``add_stream`` where a stream is first seen while it is sealed. Four
functions move it from there, each in the transaction that also counts the records it passes:
``acknowledge.acknowledge`` past what was delivered, ``deliveries.following`` past segments that were dropped,
``supersede`` past full reads that a newer one replaces, and ``replay`` back to where delivering begins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from muxly.store import accounts, json_codec
from muxly.store.ledger import Ledger
from muxly.store.rows import RoutePosition, StreamGenerations, value_of
from muxly.store.schema.tables import deliveries, route_positions, segments, streams


def register(
    ledger: Ledger, subscriptions: Mapping[str, Sequence[str]], definitions: Mapping[str, Mapping[str, Any]]
) -> list[RoutePosition]:
    """Make the rows of streams and routes that this run uses.

    A route that is new to a stream starts at the stream's head, and with the full read after the
    newest one: it has not seen the beginning of that, so it may never call it complete.

    Args:
        ledger: The ledger of this run.
        subscriptions: The routes of each stream.
        definitions: The definition of each stream: ``parent`` and the keys; kept so that a
            backlog can be delivered while the source is away.

    Returns:
        The positions that start at the head of a stream that was read before, and so skip its backlog.
    """
    late: list[RoutePosition] = []
    with ledger.write() as connection:
        now = ledger.now(connection)
        known = _heads(connection, ledger)
        served = {(position.route, position.stream) for position in _all(connection, ledger)}
        for stream, routes in subscriptions.items():
            if stream not in known:
                parent = definitions.get(stream, {}).get("parent")
                add_stream(connection, ledger, stream, (), parent=parent, now=now)
            for route in routes:
                if (route, stream) not in served:
                    late += _add(connection, ledger, route, stream, *known.get(stream, (0, 0)), now)
        _define(connection, ledger, definitions)
    return late


def _define(connection: Connection, ledger: Ledger, definitions: Mapping[str, Mapping[str, Any]]) -> None:
    for stream, definition in definitions.items():
        text = json_codec.encode(dict(definition))
        connection.execute(
            update(streams)
            .where(
                streams.c.pipeline == ledger.pipeline,
                streams.c.stream == stream,
                (streams.c.definition != text) | streams.c.definition.is_(None),
            )
            .values(definition=text)
        )


def definitions(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The definition of every stream of the ledger, by stream, as ``register`` was given it."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(streams.c.stream, streams.c.definition).where(streams.c.pipeline == ledger.pipeline)
        )
        return {row.stream: json_codec.decode(row.definition) if row.definition else {} for row in rows}


def add_stream(
    connection: Connection,
    ledger: Ledger,
    stream: str,
    routes: Sequence[str],
    *,
    parent: str | None,
    now: datetime,
) -> None:
    """Begin the log of a stream, with its routes at its beginning."""
    connection.execute(insert(streams).values(pipeline=ledger.pipeline, stream=stream, parent=parent, updated_at=now))
    for route in routes:
        _add(connection, ledger, route, stream, 0, 0, now)


def _heads(connection: Connection, ledger: Ledger) -> dict[str, tuple[int, int]]:
    """The last position of each stream, and its newest full read if some of that is in the log."""
    query = select(streams.c.stream, streams.c.head, streams.c.generation).where(streams.c.pipeline == ledger.pipeline)
    return {row.stream: (row.head, row.generation if row.head else 0) for row in connection.execute(query)}


def _add(
    connection: Connection, ledger: Ledger, route: str, stream: str, head: int, generation: int, now: datetime
) -> list[RoutePosition]:
    connection.execute(
        insert(route_positions).values(
            pipeline=ledger.pipeline,
            route=route,
            stream=stream,
            position=head,
            completed=generation,
            created_at=now,
            updated_at=now,
        )
    )
    return [RoutePosition(route=route, stream=stream, position=head)] if head else []


def every(ledger: Ledger) -> list[RoutePosition]:
    """All routes and streams the ledger knows, also removed routes."""
    with ledger.read() as connection:
        return _all(connection, ledger)


def _all(connection: Connection, ledger: Ledger) -> list[RoutePosition]:
    query = (
        select(route_positions)
        .where(route_positions.c.pipeline == ledger.pipeline)
        .order_by(route_positions.c.route, route_positions.c.stream)
    )
    return [_position(row) for row in connection.execute(query)]


def get(connection: Connection, ledger: Ledger, route: str, stream: str) -> RoutePosition:
    """One route's position in one stream; the row exists."""
    row = connection.execute(select(route_positions).where(*_this_route(ledger, route, stream))).one()
    return _position(row)


def _position(row: Row[Any]) -> RoutePosition:
    return value_of(
        RoutePosition, row, state=json_codec.decode_optional(row.state), detached=row.detached_at is not None
    )


def change(connection: Connection, ledger: Ledger, route: str, stream: str, **changes: Any) -> None:
    """Change columns of one route's position."""
    connection.execute(
        update(route_positions)
        .where(*_this_route(ledger, route, stream))
        .values(updated_at=ledger.now(connection), **changes)
    )


def _this_route(ledger: Ledger, route: str, stream: str) -> tuple[Any, Any, Any]:
    return (
        route_positions.c.pipeline == ledger.pipeline,
        route_positions.c.route == route,
        route_positions.c.stream == stream,
    )


def detach(ledger: Ledger, route: str, names: Iterable[str]) -> None:
    """Give up the route's backlog: counted as dropped, and kept in the spool only by retention."""
    with ledger.write() as connection:
        for stream in names:
            waiting = accounts.pending_in(connection, ledger, route, stream).get((route, stream), 0)
            letters = accounts.letters_in(connection, ledger, route, stream).get((route, stream), 0)
            accounts.add(connection, ledger, route, stream, dropped=waiting - letters)
            change(connection, ledger, route, stream, detached_at=ledger.now(connection))


def detached(connection: Connection, ledger: Ledger, stream: str) -> list[str]:
    """The routes that are detached from the stream."""
    query = select(route_positions.c.route).where(
        route_positions.c.pipeline == ledger.pipeline,
        route_positions.c.stream == stream,
        route_positions.c.detached_at.is_not(None),
    )
    return list(connection.execute(query).scalars())


def replay(ledger: Ledger, route: str, stream: str, after: int) -> int:
    """Set a route back, so that it delivers everything after that position again.

    Open deliveries of the log are given up: what is delivered again gets new ids. Only a
    detached route that goes on where it was keeps them, for they may have arrived already.

    Returns:
        How many records that are.
    """
    with ledger.write() as connection:
        here = get(connection, ledger, route, stream)
        before = accounts.pending_in(connection, ledger, route, stream).get((route, stream), 0)
        changes: dict[str, Any] = {"position": after, "detached_at": None}
        if not (here.detached and here.position == after):
            changes["offset"] = 0
            give_up_deliveries(connection, ledger, route, stream)
        if here.completed > here.begun:
            changes["completed"] = 0  # it joined late and has seen no full read; now it gets one
        change(connection, ledger, route, stream, **changes)
        count = accounts.pending_in(connection, ledger, route, stream).get((route, stream), 0) - before
        accounts.add(connection, ledger, route, stream, replayed=count)
    return count


def give_up_deliveries(connection: Connection, ledger: Ledger, route: str, stream: str) -> None:
    """Forget what is being delivered of the stream's log; dead letters stay."""
    connection.execute(
        deliveries.delete().where(
            deliveries.c.pipeline == ledger.pipeline,
            deliveries.c.route == route,
            deliveries.c.stream == stream,
            deliveries.c.letters.is_(None),
        )
    )


def rename(ledger: Ledger, old: str, new: str) -> int:
    """Give a route's positions, deliveries and dead letters to another name."""
    from muxly.store.schema.tables import accounts as accounts_table
    from muxly.store.schema.tables import dead_letters

    with ledger.write() as connection:
        moved = 0
        for table in (route_positions, deliveries, dead_letters, accounts_table):
            changed = connection.execute(
                update(table).where(table.c.pipeline == ledger.pipeline, table.c.route == old).values(route=new)
            )
            moved = moved or changed.rowcount
    return moved


def forget(ledger: Ledger, route: str, names: Iterable[str] | None = None) -> int:
    """Give up a route, or some of its streams: the backlog counts as dropped, the positions are deleted.

    Args:
        ledger: The ledger of this run.
        route: The route's name.
        names: Its streams to give up; None = all.

    Returns:
        How many records were waiting.
    """
    with ledger.write() as connection:
        waiting = accounts.pending_in(connection, ledger, route)
        chosen = [stream for _route, stream in waiting] if names is None else list(names)
        for stream in chosen:
            accounts.add(connection, ledger, route, stream, dropped=waiting.get((route, stream), 0))
        for table in (deliveries, route_positions):
            here = (table.c.pipeline == ledger.pipeline, table.c.route == route, table.c.stream.in_(chosen))
            connection.execute(table.delete().where(*here))
    return sum(waiting.get((route, stream), 0) for stream in chosen)


def generations_of(ledger: Ledger, stream: str) -> StreamGenerations:
    """Which full reads of a stream are in its log."""
    with ledger.read() as connection:
        row = connection.execute(
            select(streams.c.generation, streams.c.sealed_generation, streams.c.head).where(
                streams.c.pipeline == ledger.pipeline, streams.c.stream == stream
            )
        ).one_or_none()
    if row is None:
        return StreamGenerations(newest=0, sealed=0, head=0)
    return StreamGenerations(newest=row.generation, sealed=row.sealed_generation, head=row.head)


def supersede(ledger: Ledger, route: str, stream: str, *, generation: int) -> int:
    """Pass over what an older generation left undelivered, because a newer one is whole.

    Returns:
        How many records were superseded.
    """
    with ledger.write() as connection:
        here = get(connection, ledger, route, stream)
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
        give_up_deliveries(connection, ledger, route, stream)
        change(connection, ledger, route, stream, position=rows[-1].position, offset=0, rejected=0)
        accounts.add(connection, ledger, route, stream, superseded=count)
        return count
