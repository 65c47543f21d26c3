"""Accounts: sums in records by run, route and stream, and the backlog that they leave.

The sums are written by the very transactions that seal, deliver, drop or replay the records. The backlog is not written
anywhere: it is counted from the positions and the log. So the two check each other, and a record that was lost or
counted twice shows in ``RouteResult.balanced``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case, func, insert, select, update

from muxly.store.ledger import Ledger
from muxly.store.schema.tables import SUMS, accounts, deliveries, route_positions, segments


def add(connection: Connection, ledger: Ledger, route: str, stream: str, **sums: int) -> None:
    """Add to the sums of this run; route ``""`` is reading.

    Args:
        connection: The transaction that moves the records.
        ledger: Whose run it is.
        route: The route's name.
        stream: The stream's name.
        **sums: Any of ``tables.SUMS``.
    """
    changes = {name: count for name, count in sums.items() if count}
    if not changes:
        return
    here = (
        accounts.c.run == ledger.run,
        accounts.c.route == route,
        accounts.c.stream == stream,
    )
    added = {name: accounts.c[name] + count for name, count in changes.items()}
    if connection.execute(update(accounts).where(*here).values(**added)).rowcount == 0:
        connection.execute(
            insert(accounts).values(run=ledger.run, pipeline=ledger.pipeline, route=route, stream=stream, **changes)
        )


def open_run(ledger: Ledger, pending: Mapping[tuple[str, str], int]) -> None:
    """Record the backlog as the run begins."""
    with ledger.write() as connection:
        for (route, stream), count in pending.items():
            add(connection, ledger, route, stream, pending_before=count)


def of_run(ledger: Ledger) -> dict[tuple[str, str], dict[str, int]]:
    """The sums of this run by route and stream."""
    with ledger.read() as connection:
        return of_run_in(connection, ledger)


def of_run_in(connection: Connection, ledger: Ledger) -> dict[tuple[str, str], dict[str, int]]:
    """As ``of_run``, inside a transaction."""
    rows = connection.execute(select(accounts).where(accounts.c.run == ledger.run)).mappings()
    return {(row["route"], row["stream"]): {name: row[name] for name in SUMS} for row in rows}


def pending(ledger: Ledger) -> dict[tuple[str, str], int]:
    """Records that wait, by route and stream; detached routes wait for nothing in the log."""
    with ledger.read() as connection:
        return pending_in(connection, ledger)


def pending_in(
    connection: Connection, ledger: Ledger, route: str | None = None, stream: str | None = None
) -> dict[tuple[str, str], int]:
    """As ``pending``, inside a transaction, of all routes and streams or only of some."""
    query = (
        select(route_positions.c.route, route_positions.c.stream, func.coalesce(func.sum(_left()), 0).label("n"))
        .select_from(route_positions)
        .outerjoin(segments, _waiting())
        .where(route_positions.c.pipeline == ledger.pipeline, *_narrowed(route_positions, route, stream))
        .group_by(route_positions.c.route, route_positions.c.stream)
    )
    waiting = {(row.route, row.stream): int(row.n) for row in connection.execute(query)}
    for pair, count in letters_in(connection, ledger, route, stream).items():
        waiting[pair] = waiting.get(pair, 0) + count
    return waiting


def letters_in(
    connection: Connection, ledger: Ledger, route: str | None, stream: str | None
) -> dict[tuple[str, str], int]:
    """Dead letters that are being delivered again; they wait for nothing in the log."""
    query = (
        select(deliveries.c.route, deliveries.c.stream, func.sum(deliveries.c.records).label("n"))
        .where(
            deliveries.c.pipeline == ledger.pipeline,
            deliveries.c.letters.is_not(None),
            *_narrowed(deliveries, route, stream),
        )
        .group_by(deliveries.c.route, deliveries.c.stream)
    )
    return {(row.route, row.stream): int(row.n) for row in connection.execute(query)}


def _narrowed(table: Table, route: str | None, stream: str | None) -> list[ColumnElement[bool]]:
    chosen = ((table.c.route, route), (table.c.stream, stream))
    return [column == name for column, name in chosen if name is not None]


def _left() -> Any:
    """Records of a waiting segment that are not acknowledged yet."""
    begun = segments.c.position == route_positions.c.position + 1
    return case((begun, segments.c.records - route_positions.c.offset), else_=segments.c.records)


def _waiting() -> Any:
    return (
        (segments.c.pipeline == route_positions.c.pipeline)
        & (segments.c.stream == route_positions.c.stream)
        & (segments.c.position > route_positions.c.position)
        & (segments.c.state == "sealed")
        & route_positions.c.detached_at.is_(None)
    )


def left_of(connection: Connection, ledger: Ledger, stream: str, position: int) -> dict[str, int]:
    """Records of one segment that each attached route has still to deliver, by route."""
    query = (
        select(route_positions.c.route, _left().label("n"))
        .select_from(route_positions)
        .join(
            segments,
            (segments.c.pipeline == route_positions.c.pipeline)
            & (segments.c.stream == route_positions.c.stream)
            & (segments.c.position > route_positions.c.position),
        )
        .where(
            route_positions.c.pipeline == ledger.pipeline,
            route_positions.c.detached_at.is_(None),
            segments.c.stream == stream,
            segments.c.position == position,
        )
    )
    return {row.route: int(row.n) for row in connection.execute(query)}


def pending_bytes(ledger: Ledger) -> int:
    """Bytes in the spool that some attached route still needs, each segment once."""
    with ledger.read() as connection:
        needed = (
            select(segments.c.stream, segments.c.position, segments.c.length)
            .join(route_positions, _waiting())
            .where(segments.c.pipeline == ledger.pipeline)
            .distinct()
            .subquery()
        )
        return int(connection.execute(select(func.coalesce(func.sum(needed.c.length), 0))).scalar_one())


def waiting_size(ledger: Ledger, route: str, stream: str) -> tuple[int, int]:
    """Records and bytes in memory of the segments behind a route's position."""
    with ledger.read() as connection:
        sums = (
            select(func.sum(_left()), func.sum(segments.c.bytes))
            .select_from(route_positions)
            .join(segments, _waiting())
            .where(route_positions.c.pipeline == ledger.pipeline, *_narrowed(route_positions, route, stream))
        )
        records, size = connection.execute(sums).one()
    return int(records or 0), int(size or 0)
