"""Dead letters: records that could not be read or delivered, kept with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from attrs import frozen
from sqlalchemy import Connection, func, insert, select, update

from muxly._ids import new_id
from muxly.store import json_codec
from muxly.store.ledger import Ledger
from muxly.store.rows import Letter, columns_of, value_of
from muxly.store.schema.tables import dead_letters

_RECORDS = 500  # far below what a database takes in one statement


@frozen(kw_only=True)
class StoredLetter:
    """A dead letter as it is stored.

    Args:
        id: A ULID.
        route: The route that gave up on it; empty = reading.
        run: The run in which that happened.
        created_at: When.
        letter: What is kept of it.
    """

    id: str
    route: str
    run: str
    created_at: datetime
    letter: Letter


def store(connection: Connection, ledger: Ledger, route: str, letters: Iterable[Letter], now: datetime) -> None:
    """Store dead letters in the transaction that accounts for them; the order of their ids is theirs."""
    letters = list(letters)
    ids = sorted(new_id() for _ in letters)  # those of one millisecond are random
    rows = [
        columns_of(
            letter,
            id=id,
            pipeline=ledger.pipeline,
            route=route,
            run=ledger.run,
            place=None if letter.place is None else json_codec.readable(letter.place),
            reason=json_codec.readable(letter.reason),
            created_at=now,
        )
        for id, letter in zip(ids, letters, strict=True)
    ]
    if rows:
        connection.execute(insert(dead_letters), rows)


def waiting(
    ledger: Ledger,
    *,
    route: str | None = None,
    stream: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[StoredLetter]:
    """Dead letters that were not replayed, oldest first; of one route, one stream, or at most 1,000 ids."""
    query = select(dead_letters).where(dead_letters.c.pipeline == ledger.pipeline, dead_letters.c.replayed_at.is_(None))
    if route is not None:
        query = query.where(dead_letters.c.route == route)
    if stream is not None:
        query = query.where(dead_letters.c.stream == stream)
    if ids is not None:
        query = query.where(dead_letters.c.id.in_(ids))
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(dead_letters.c.id).limit(limit)).all()
    return [value_of(StoredLetter, row, letter=value_of(Letter, row)) for row in rows]


def unread_before(ledger: Ledger, stream: str, records: Sequence[bytes]) -> set[tuple[str | None, bytes]]:
    """Which of these records earlier runs could not read either, each with its place."""
    found: set[tuple[str | None, bytes]] = set()
    with ledger.read() as connection:
        for start in range(0, len(records), _RECORDS):
            query = select(dead_letters.c.place, dead_letters.c.record).where(
                dead_letters.c.pipeline == ledger.pipeline,
                dead_letters.c.route == "",
                dead_letters.c.stream == stream,
                dead_letters.c.run != ledger.run,
                dead_letters.c.record.in_(records[start : start + _RECORDS]),
            )
            found |= {(row.place, row.record) for row in connection.execute(query)}
    return found


def count(ledger: Ledger) -> dict[tuple[str, str], int]:
    """How many wait, by route and stream."""
    query = (
        select(dead_letters.c.route, dead_letters.c.stream, func.count().label("n"))
        .where(dead_letters.c.pipeline == ledger.pipeline, dead_letters.c.replayed_at.is_(None))
        .group_by(dead_letters.c.route, dead_letters.c.stream)
    )
    with ledger.read() as connection:
        return {(row.route, row.stream): row.n for row in connection.execute(query)}


def waiting_ids(ledger: Ledger, route: str) -> dict[str, list[str]]:
    """Ids of a route's dead letters that were not replayed, by stream, in the order of its log."""
    query = select(dead_letters.c.stream, dead_letters.c.id).where(
        dead_letters.c.pipeline == ledger.pipeline,
        dead_letters.c.route == route,
        dead_letters.c.replayed_at.is_(None),
    )
    found: dict[str, list[str]] = {}
    with ledger.read() as connection:
        for row in connection.execute(
            query.order_by(dead_letters.c.position, dead_letters.c.number, dead_letters.c.id)
        ):
            found.setdefault(row.stream, []).append(row.id)
    return found


def mark_replayed(connection: Connection, ledger: Ledger, ids: Sequence[str]) -> None:
    """Say that they were delivered after all."""
    connection.execute(
        update(dead_letters)
        .where(dead_letters.c.pipeline == ledger.pipeline, dead_letters.c.id.in_(ids))
        .values(replayed_at=ledger.now(connection))
    )
