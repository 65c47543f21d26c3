"""Runs: every execution, and every command that wrote the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update

from muxly.store import json_codec
from muxly.store.ledger import Ledger
from muxly.store.schema.tables import accounts, runs

KEPT_RUNS = 1000


def start(ledger: Ledger, *, holder: str, command: str, params: Mapping[str, Any]) -> None:
    """Begin a run; runs that a dead holder left running are marked as crashed."""
    with ledger.write() as connection:
        now = ledger.now(connection)
        connection.execute(
            update(runs)
            .where(runs.c.pipeline == ledger.pipeline, runs.c.state == "running")
            .values(state="crashed", finished_at=now)
        )
        connection.execute(
            insert(runs).values(
                id=ledger.run,
                pipeline=ledger.pipeline,
                token=ledger.token,
                holder=holder,
                command=command,
                state="running",
                params=json_codec.encode(dict(params)) if params else None,
                started_at=now,
            )
        )


def finish(ledger: Ledger, *, state: str, error: str | None, result: Mapping[str, Any]) -> None:
    """End a run with what it did."""
    with ledger.write() as connection:
        connection.execute(
            update(runs)
            .where(runs.c.id == ledger.run)
            .values(
                state=state,
                error=None if error is None else json_codec.readable(error),
                result=json_codec.encode(dict(result)),
                finished_at=ledger.now(connection),
            )
        )


def previous_state(ledger: Ledger) -> str | None:
    """How the pipeline's run before this one ended; None = there was none."""
    query = (
        select(runs.c.state)
        .where(runs.c.pipeline == ledger.pipeline, runs.c.id != ledger.run, runs.c.command.in_(("run", "replay")))
        .order_by(runs.c.started_at.desc(), runs.c.id.desc())
        .limit(1)
    )
    with ledger.read() as connection:
        return connection.execute(query).scalar()


def forget_old(ledger: Ledger, keep: int = KEPT_RUNS) -> None:
    """Forget all but the newest runs of the pipeline, with their accounts; dead letters stay."""
    newest = (
        select(runs.c.id)
        .where(runs.c.pipeline == ledger.pipeline)
        .order_by(runs.c.started_at.desc(), runs.c.id.desc())
        .offset(keep)
    )
    with ledger.read() as connection:
        old = list(connection.execute(newest.limit(KEPT_RUNS)).scalars())
    if old:
        with ledger.write() as connection:
            connection.execute(accounts.delete().where(accounts.c.run.in_(old)))
            connection.execute(runs.delete().where(runs.c.id.in_(old)))


def recent(ledger: Ledger, limit: int = 20) -> list[dict[str, Any]]:
    """The newest runs of the pipeline."""
    query = select(runs).where(runs.c.pipeline == ledger.pipeline).order_by(runs.c.started_at.desc())
    with ledger.read() as connection:
        return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]
