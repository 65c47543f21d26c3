"""Accounts: sums in records by run, route and stream, kept by the transactions that move them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from muxly.store.schema.tables import SUMS, accounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from muxly.store.ledger import Ledger


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
    """Write down what waits as the run begins."""
    with ledger.write() as connection:
        for (route, stream), count in pending.items():
            add(connection, ledger, route, stream, pending_before=count)


def of_run(ledger: Ledger) -> dict[tuple[str, str], dict[str, int]]:
    """The sums of this run by route and stream."""
    with ledger.read() as connection:
        return of_run_in(connection, ledger)


def of_run_in(connection: Connection, ledger: Ledger) -> dict[tuple[str, str], dict[str, int]]:
    """The same inside a transaction."""
    rows = connection.execute(select(accounts).where(accounts.c.run == ledger.run)).mappings()
    return {(row["route"], row["stream"]): {name: row[name] for name in SUMS} for row in rows}
