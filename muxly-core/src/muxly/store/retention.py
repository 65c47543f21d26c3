"""Retention: pruning what nobody needs, and setting aside what is damaged.

A segment's row goes before its file, never the other way round. Between the two, and after a crash there, the spool
holds a file that no row names: nobody looks for it, and the next run's sweep deletes it. In the other order a crash
would leave a row whose file is gone, which is a damaged segment that holds its stream up. A file may hold several
segments, so it goes only when no row names it any more, which is asked in the transaction that deletes the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from muxly.store import accounts
from muxly.store.ledger import Ledger
from muxly.store.log import segment_of
from muxly.store.rows import StoredSegment
from muxly.store.schema.tables import deliveries, route_positions, segments

T = TypeVar("T")
_NAMES = 1000  # far below what a database takes in one statement


def log(ledger: Ledger, stream: str | None = None) -> list[StoredSegment]:
    """The segments whose rows are kept, by stream and position."""
    query = select(segments).where(segments.c.pipeline == ledger.pipeline)
    if stream is not None:
        query = query.where(segments.c.stream == stream)
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(segments.c.stream, segments.c.position))
        return [segment_of(row) for row in rows]


def files(ledger: Ledger) -> set[str]:
    """The spool's files that some row names."""
    with ledger.read() as connection:
        query = select(segments.c.file).where(segments.c.pipeline == ledger.pipeline, segments.c.file.is_not(None))
        return {name for name in connection.execute(query.distinct()).scalars() if name is not None}


def prune(ledger: Ledger, *, keep_seconds: float, keep_bytes: int) -> list[str]:
    """Delete the rows of what every route has and retention does not keep.

    Args:
        ledger: The ledger of this run.
        keep_seconds: Delivered segments are kept so long,
        keep_bytes: and at most so many bytes of them, the newest.

    Returns:
        Files that no row names any more: delete them now that the rows are gone.
    """
    with ledger.write() as connection:
        oldest = ledger.now(connection) - timedelta(seconds=keep_seconds)
        going = _going(connection, ledger, oldest, keep_bytes)
        _delete(connection, ledger, going)
        return _unnamed(connection, ledger, {row.file for row in going if row.file})


def _going(connection: Connection, ledger: Ledger, oldest: datetime, keep_bytes: int) -> Sequence[Any]:
    """What retention does not keep; all is looked at only if there are too many bytes."""
    delivered = (segments.c.pipeline == ledger.pipeline, _delivered_everywhere(ledger))
    total = connection.execute(select(func.coalesce(func.sum(segments.c.length), 0)).where(*delivered)).scalar_one()
    query = select(segments.c.stream, segments.c.position, segments.c.length, segments.c.file, segments.c.sealed_at)
    if total <= keep_bytes:
        return connection.execute(query.where(*delivered, segments.c.sealed_at < oldest)).all()
    kept_bytes = 0
    going: list[Any] = []
    for row in connection.execute(
        query.where(*delivered).order_by(segments.c.sealed_at.desc(), segments.c.position.desc())
    ):
        kept_bytes += row.length
        if row.sealed_at < oldest or kept_bytes > keep_bytes:
            going.append(row)
    return going


def _delete(connection: Connection, ledger: Ledger, going: Sequence[Any]) -> None:
    gone: dict[str, list[int]] = {}
    for row in going:
        gone.setdefault(row.stream, []).append(row.position)
    for stream, chosen in gone.items():
        for chunk in _chunks(chosen):
            here = (segments.c.pipeline == ledger.pipeline, segments.c.stream == stream)
            connection.execute(segments.delete().where(*here, segments.c.position.in_(chunk)))


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in parts that fit into one statement."""
    for start in range(0, len(values), _NAMES):
        yield values[start : start + _NAMES]


def _segment_at(ledger: Ledger, stream: str, position: int) -> ColumnElement[bool]:
    return and_(
        segments.c.pipeline == ledger.pipeline,
        segments.c.stream == stream,
        segments.c.position == position,
    )


def _delivered_everywhere(ledger: Ledger) -> ColumnElement[bool]:
    """Segments that no attached route still needs, and no open delivery of a detached one."""
    behind = (
        select(route_positions.c.route)
        .where(
            route_positions.c.pipeline == ledger.pipeline,
            route_positions.c.stream == segments.c.stream,
            route_positions.c.position < segments.c.position,
            route_positions.c.detached_at.is_(None),
        )
        .exists()
    )
    # What was tried under an id is tried again under it, once the route is taken up again.
    tried = (
        select(deliveries.c.id)
        .where(
            deliveries.c.pipeline == ledger.pipeline,
            deliveries.c.stream == segments.c.stream,
            segments.c.position.between(deliveries.c.first_position, deliveries.c.last_position),
        )
        .exists()
    )
    return ~behind & ~tried


def _unnamed(connection: Connection, ledger: Ledger, names: set[str]) -> list[str]:
    still_named: set[str | None] = set()
    for chunk in _chunks(sorted(names)):
        here = (segments.c.pipeline == ledger.pipeline, segments.c.file.in_(chunk))
        still_named |= set(connection.execute(select(segments.c.file).where(*here)).scalars())
    return sorted(names - still_named)


def quarantine(ledger: Ledger, segment: StoredSegment) -> None:
    """Set a damaged segment aside: it blocks its stream on its routes, and nothing else."""
    with ledger.write() as connection:
        changed = connection.execute(
            update(segments)
            .where(_segment_at(ledger, segment.stream, segment.position), segments.c.state == "sealed")
            .values(state="quarantined")
        )
        if changed.rowcount:
            for route, count in accounts.left_of(connection, ledger, segment.stream, segment.position).items():
                accounts.add(connection, ledger, route, segment.stream, quarantined=count)


def drop(ledger: Ledger, stream: str, chosen: Iterable[int]) -> tuple[int, list[str]]:
    """Give segments up by hand; counted as dropped on each route that did not have them.

    Open deliveries that cover them are given up; what remains gets new ids.

    Returns:
        How many records were dropped, over all routes, and files no row needs any more.
    """
    total, names = 0, set()
    with ledger.write() as connection:
        for position in chosen:
            row = connection.execute(select(segments).where(_segment_at(ledger, stream, position))).one_or_none()
            if row is None or row.state == "dropped":
                continue
            for route, count in accounts.left_of(connection, ledger, stream, position).items():
                back = count if row.state == "quarantined" else 0
                accounts.add(connection, ledger, route, stream, dropped=count, quarantined=-back)
                total += count
            connection.execute(
                update(segments).where(_segment_at(ledger, stream, position)).values(state="dropped", file=None)
            )
            _give_up_deliveries(connection, ledger, stream, position)
            names |= {row.file} if row.file else set()
        return total, _unnamed(connection, ledger, names)


def _give_up_deliveries(connection: Connection, ledger: Ledger, stream: str, position: int) -> None:
    connection.execute(
        deliveries.delete().where(
            deliveries.c.pipeline == ledger.pipeline,
            deliveries.c.stream == stream,
            deliveries.c.first_position <= position,
            deliveries.c.last_position >= position,
        )
    )


def missing(kept: Sequence[StoredSegment], after: int, head: int) -> int | None:
    """The first position after ``after``, and up to the head, that cannot be delivered any more."""
    whole = {segment.position for segment in kept if segment.state == "sealed"}
    return next((position for position in range(after + 1, head + 1) if position not in whole), None)
