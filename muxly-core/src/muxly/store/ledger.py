"""The ledger of one pipeline, and the lease that gives one run the right to write it.

A lease alone cannot keep two writers apart: a run that was suspended, or cut off from the database, may wake up after
its lease ran out and another run took over, and go on as if nothing had happened. So each lease has a token, greater
than every token of that pipeline before, and each transaction that writes first locks the lease's row and compares its
token with the row's (``Ledger.write``). A run that was overtaken finds a greater token, is refused with
``FencedError``, and has written nothing: the check and what it protects commit together. The lock on the row also makes
the next run's ``acquire_lease`` wait until a transaction under the old token has ended.

Whether a lease has run out is decided by the database's clock, which all machines share. A holder that died is not
waited for where that can be known: the operating system's lock on the spool ends with the process, so who holds that
lock and finds a lease of the same spool knows that its holder is dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen
from sqlalchemy import Connection, Engine, select, update

from muxly.errors import FencedError, LeaseHeldError, StoreError
from muxly.store.database import engine as engines
from muxly.store.schema.tables import leases, route_positions, segments


@frozen
class Ledger:
    """The right to write one pipeline's rows, as long as its token is the newest.

    Args:
        engine: The store.
        pipeline: The pipeline's name; every row carries it.
        run: The run's ULID; accounts and dead letters carry it.
        token: The fencing token that ``acquire_lease`` gave.

    Reading needs no token: ``token`` 0 is a ledger that can only read.
    """

    engine: Engine
    pipeline: str
    run: str = ""
    token: int = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that becomes durable as a whole, or not at all.

        Raises:
            FencedError: Another run holds the lease now; nothing was written.
        """
        with engines.transaction(self.engine) as connection:
            self._check(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that only reads, and sees one consistent state."""
        with engines.reading(self.engine) as connection:
            yield connection

    def now(self, connection: Connection) -> datetime:
        """The database's clock, in UTC."""
        return engines.now(connection)

    def _check(self, connection: Connection) -> None:
        # FOR UPDATE: a run that takes over meanwhile waits here, until this transaction has ended.
        query = select(leases.c.token).where(leases.c.pipeline == self.pipeline).with_for_update()
        if connection.execute(query).scalar() != self.token:
            raise FencedError(f"another run has taken over the pipeline {self.pipeline!r}; this one stops")


LEASE_SECONDS = 30.0


def acquire_lease(
    engine: Engine, pipeline: str, run: str, *, holder: str, spool: str, ttl_seconds: float = LEASE_SECONDS
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
            raise LeaseHeldError(
                f"the pipeline {pipeline!r} is already being run by {row.holder}; wait for it to end, or stop it",
                holder=row.holder,
            )
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
            f"records of the pipeline {pipeline!r} are pending in another spool, not in this one; run it where that "
            "spool is, or move its folder (`spool` below `home`) here"
        )


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


def renew_lease(ledger: Ledger, *, ttl_seconds: float = LEASE_SECONDS) -> None:
    """Make the lease last longer; the heartbeat of a run.

    Args:
        ledger: The ledger whose lease is held.
        ttl_seconds: How long it lasts from now on.

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
    """Give the lease back; the token grows once more, so that nothing late can be written under the old one."""
    with engines.transaction(ledger.engine) as connection:
        connection.execute(
            update(leases)
            .where(leases.c.pipeline == ledger.pipeline, leases.c.token == ledger.token)
            .values(holder=None, expires_at=None, token=ledger.token + 1)
        )
