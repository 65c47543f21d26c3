"""One open connection to a database, as all kinds of databases have it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    import muxly
    from muxly_routers.sql.quoting import Place

__all__ = ["Session", "Waits"]


@frozen(kw_only=True)
class Waits:
    """How long a session waits, and how.

    Args:
        connect_seconds: For a connection, 1 or more.
        lock_seconds: For a lock that another program holds, 1 or more.
        sleep: The run's: ends at once, with an error, when the run stops.
    """

    connect_seconds: int = 10
    lock_seconds: int = 10
    sleep: Callable[[float], None]


class Session(ABC):
    """One connection, used by one thread at a time. Its errors are the driver's own.

    ``close`` may be called after any error, and more than once.
    """

    small_letters: bool = False
    """Whether the database keeps the names of tables in small letters only."""

    @abstractmethod
    def begin(self) -> None:
        """Start a transaction; between transactions nothing is kept open at the server."""

    @abstractmethod
    def commit(self) -> None:
        """Return only when all of the transaction is durable."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; a transaction that is open is taken back."""

    @abstractmethod
    def execute(self, sql: str, *parameters: Any) -> None:
        """Run one statement; parameters are ``str``, ``int`` or None."""

    @abstractmethod
    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""

    @abstractmethod
    def load(self, place: Place, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        """Append records to columns of the same names, batch by batch, inside the transaction.

        The batches are in the types of ``Form.wire``. An error that reading them raises has been kept by
        whoever made the reader, so it may be wrapped in any other here.
        """

    @abstractmethod
    def columns(self, place: Place) -> dict[str, str]:
        """The columns of a table with their types, in order; empty if there is no such table."""

    @abstractmethod
    def tables(self, schema: str | None) -> list[str]:
        """Names of all tables of a schema."""

    @abstractmethod
    def version(self) -> str:
        """Name and version of the server, for people: ``"PostgreSQL 18.6"``."""

    def interrupt(self) -> None:  # noqa: B027 (some always look whether the run stops)
        """Give up the statement that another thread waits for, but no commit; its error is one to try again after."""

    def remarks(self) -> list[muxly.Notice]:
        """What a person should know of this server, told once when a run has connected."""
        return []

    def hold(self, place: Place) -> None:  # noqa: B027 (most need not)
        """Let nobody change the columns of a table for the rest of the transaction, if it matters.

        It does where records go in as bytes that mean something else in a column of another type.
        """

    def has_schema(self, schema: str) -> bool:
        """Whether there is such a schema, visible to this user or not."""
        return True

    def may_create(self, schema: str | None) -> bool:
        """Whether this user may create tables there; reads only. True if it cannot be known."""
        return True
