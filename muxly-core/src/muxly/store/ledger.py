"""The ledger of one pipeline as one run may write it: engine, pipeline, run, and fencing token."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen
from sqlalchemy import select

from muxly.errors import FencedError
from muxly.store.database import engine as engines
from muxly.store.schema.tables import leases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Engine


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
        """A look at one consistent state."""
        with engines.reading(self.engine) as connection:
            yield connection

    def now(self, connection: Connection) -> datetime:
        """The database's clock, in UTC."""
        return engines.now(connection)

    def _check(self, connection: Connection) -> None:
        query = select(leases.c.token).where(leases.c.pipeline == self.pipeline).with_for_update()
        if connection.execute(query).scalar() != self.token:
            raise FencedError(f"another run has taken over the pipeline {self.pipeline!r}; this one stops")
