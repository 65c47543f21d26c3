"""A connection that is open, and what is known of the database behind it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muxly_routers.sql.dialect import Dialect
    from muxly_routers.sql.session import Session
    from muxly_routers.sql.tables import Tables

__all__ = ["Link"]

T = TypeVar("T")


@frozen
class Link:
    """A session, its words, and the tables that it has seen.

    Args:
        session: The connection.
        dialect: Of the session.
        tables: What the session knows.
        where: The database, without credentials.
    """

    session: Session
    dialect: Dialect
    tables: Tables
    where: str

    @contextmanager
    def transaction(
        self, prepare: Callable[[], T], stage: Callable[[T], object] = lambda prepared: None
    ) -> Iterator[T]:
        """A transaction, committed at the end; an error leaves it to whoever closes the session.

        Args:
            prepare: Makes the tables that are needed and missing; called again if it made some.
            stage: Makes what only this transaction needs, given what ``prepare`` returned.
        """
        if self.dialect.transactional:
            self.session.begin()
            prepared = prepare()
            if self.tables.take_changed():
                # Whoever needs or reads these tables too would wait until all records are there.
                self.session.commit()
                self.session.begin()
                prepared = prepare()
            stage(prepared)
        else:
            prepared = prepare()
            stage(prepared)
            self.session.begin()
        yield prepared
        self.session.commit()
