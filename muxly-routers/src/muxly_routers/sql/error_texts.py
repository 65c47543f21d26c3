"""What the runner is told when the database refuses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly
from muxly_routers import _failures
from muxly_routers.sql import error_kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_routers.sql.dialect import Dialect
    from muxly_routers.sql.quoting import Fault

__all__ = ["StaleError", "typed"]


class StaleError(Exception):
    """A table is not as we believed; the attempt may be made once more after a new look at it."""


@contextmanager
def typed(dialect: Dialect, where: str) -> Iterator[None]:
    """Let only errors out that the runner knows how to answer.

    Args:
        dialect: Tells what its driver's errors mean.
        where: The database, without credentials.

    Raises:
        StaleError: See there.
        RetryableError: A connection, a lock, a full disk.
        RejectedError: A record.
        StreamError: A table that a person has to change.
        RouteError: A right, a password, or what nothing but a person mends.
    """
    try:
        yield
    except (muxly.MuxlyError, StaleError):
        raise
    except Exception as error:
        fault = dialect.fault(error)
        if fault is None:
            raise
        raise _error(fault, where, dialect) from None


def _error(fault: Fault, where: str, dialect: Dialect) -> Exception:
    # What is said of a value may quote any words.
    name = error_kinds.absent_database(fault.message) if fault.kind in ("retry", "denied", "wrong") else None
    if name is not None:
        create = f"CREATE DATABASE {dialect.quoted(name)}"
        return muxly.RouteError(f"{where}: {fault.message}; create it ({create}), or correct the name in url")
    column = f"column {fault.column!r}: " if fault.column else ""
    if fault.kind == "retry":
        return muxly.RetryableError(f"{where}: {_failures.with_next_step(fault.message)}")
    if fault.kind == "value":
        return muxly.RejectedError(f"{column}{fault.message}")
    if fault.kind == "stale":
        return StaleError(f"{where}: {column}{fault.message}")
    if fault.kind == "table":
        return muxly.StreamError(f"{where}: {column}{fault.message}; {fault.advice}")
    if fault.kind == "denied":
        return muxly.RouteError(
            f"{where}: {fault.message}; give this user the right to it, or correct user and password, database and "
            "options in url"
        )
    return muxly.RouteError(f"{where}: {column}{fault.message}")
