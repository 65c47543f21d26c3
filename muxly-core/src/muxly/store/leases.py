"""Leases: one writer per pipeline, with a token that fences off the ones before."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from muxly.errors import FencedError, LeaseHeldError, StoreError
from muxly.store.database import engine as engines
from muxly.store.ledger import Ledger
from muxly.store.schema.tables import leases, route_positions, segments

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TTL_SECONDS = 30.0


def acquire_lease(
    engine: Engine, pipeline: str, run: str, *, holder: str, spool: str, ttl_seconds: float = TTL_SECONDS
) -> Ledger:
    """Take the pipeline's lease.

    Call it while holding the spool's lock: a holder of the same spool that does not hold the
    lock any more is dead, and is taken over at once.

    Args:
        engine: The store.
        pipeline: The pipeline's name.
        run: The run's ULID.
        holder: How to name this holder to others: host, process number, run.
        spool: Names the spool whose lock is held; empty = no lock is held.
        ttl_seconds: How long the lease lasts without a heartbeat.

    Raises:
        LeaseHeldError: Another holder's lease has not run out.
        StoreError: Records wait in another spool than this one.
    """
    with engines.transaction(engine) as connection:
        row = _row(connection, pipeline)
        _refuse_other_spool(connection, pipeline, row.spool, spool)
        now = engines.now(connection)
        alive = row.holder is not None and row.expires_at > now
        if alive and not (spool and row.spool == spool):
            raise LeaseHeldError(_held(pipeline, row.holder), holder=row.holder)
        token = row.token + 1
        connection.execute(
            update(leases)
            .where(leases.c.pipeline == pipeline)
            .values(token=token, holder=holder, spool=spool, expires_at=now + timedelta(seconds=ttl_seconds))
        )
    return Ledger(engine, pipeline, run, token)


def _refuse_other_spool(connection: Connection, pipeline: str, before: str | None, spool: str) -> None:
    """A ledger whose pending segments lie elsewhere must not take them for lost."""
    if not before or not spool or before == spool:
        return
    needed = (
        select(segments.c.position)
        .join(
            route_positions,
            (route_positions.c.pipeline == segments.c.pipeline)
            & (route_positions.c.stream == segments.c.stream)
            & (route_positions.c.position < segments.c.position)
            & route_positions.c.detached_at.is_(None),
        )
        .where(segments.c.pipeline == pipeline, segments.c.file.is_not(None))
    )
    if connection.execute(needed.limit(1)).first() is not None:
        raise StoreError(
            f"records of the pipeline {pipeline!r} wait in another spool than the one here; run it where that spool "
            "is, or bring its folder (`spool` below `home`) here"
        )


def _held(pipeline: str, holder: str) -> str:
    """The sentence that refuses a second run."""
    return f"the pipeline {pipeline!r} is being run by {holder}; wait for it, or stop it"


def _row(connection: Connection, pipeline: str) -> Any:
    query = (
        select(leases.c.token, leases.c.holder, leases.c.spool, leases.c.expires_at)
        .where(leases.c.pipeline == pipeline)
        .with_for_update()
    )
    row: Any = connection.execute(query).one_or_none()
    if row is None:
        # Two machines may begin the first run at once; the second waits here for the first one's row.
        connection.execute(_insert(connection)(leases).values(pipeline=pipeline, token=0).on_conflict_do_nothing())
        row = connection.execute(query).one()
    return row


def _insert(connection: Connection) -> Any:
    # Each dialect takes long to import, PostgreSQL's longest: only the one in use.
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert
    from sqlalchemy.dialects import postgresql

    return postgresql.insert


def renew_lease(ledger: Ledger, *, ttl_seconds: float = TTL_SECONDS) -> None:
    """The heartbeat.

    Raises:
        FencedError: Another run holds the lease now.
    """
    with engines.transaction(ledger.engine) as connection:
        changed = connection.execute(
            update(leases)
            .where(leases.c.pipeline == ledger.pipeline, leases.c.token == ledger.token)
            .values(expires_at=engines.now(connection) + timedelta(seconds=ttl_seconds))
        )
        if changed.rowcount == 0:
            raise FencedError(f"another run has taken over the pipeline {ledger.pipeline!r}")


def release_lease(ledger: Ledger) -> None:
    """Let go; the token stays, so that nothing late can be written under it."""
    with engines.transaction(ledger.engine) as connection:
        connection.execute(
            update(leases)
            .where(leases.c.pipeline == ledger.pipeline, leases.c.token == ledger.token)
            .values(holder=None, expires_at=None, token=ledger.token + 1)
        )
