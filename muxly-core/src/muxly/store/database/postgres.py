"""The store in PostgreSQL: its sessions, and the fate of a transaction whose COMMIT got no answer."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, text

from muxly.errors import StoreError

__all__ = ["fate", "open_server", "transaction_number"]

# A dead peer is noticed within a minute.
_CONNECT = {
    "application_name": "muxly",
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# The server gives up the row locks of a process that was stopped inside a transaction, and an
# acknowledged commit survives a crash of the server, whatever its own default is.
_SESSION = (
    "SELECT set_config('idle_in_transaction_session_timeout', '30s', false), "
    "set_config('lock_timeout', '10s', false), "
    "CASE WHEN current_setting('synchronous_commit') = 'off' "
    "THEN set_config('synchronous_commit', 'on', false) END"
)
_NUMBER = text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
_FATE = text("SELECT pg_xact_status(CAST(:number AS xid8))")
_FATE_SECONDS = 30.0
_FATE_PAUSE_SECONDS = 0.25


def open_server(url: URL) -> Engine:
    """An engine for the server at `url`; it connects at the first transaction.

    Raises:
        StoreError: The driver is not installed.
    """
    given = {key: value for key, value in _CONNECT.items() if key not in url.query}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            # Prepared statements do not survive a pooler between us and the server.
            connect_args={**given, "prepare_threshold": None},
            hide_parameters=True,
            pool_size=4,
            max_overflow=12,
            pool_pre_ping=True,
        )
    except ImportError as cause:
        raise StoreError(
            f'a store in PostgreSQL needs its driver ({cause}); install it: pip install "muxly-core[postgres]"'
        ) from cause
    event.listen(engine, "connect", _prepare_session)
    return engine


def _prepare_session(connection: Any, _record: object) -> None:
    connection.execute(_SESSION)
    connection.commit()


def transaction_number(connection: Connection) -> str | None:
    """The number by which the server remembers the connection's transaction; None if it wrote nothing."""
    number: str | None = connection.execute(_NUMBER).scalar_one()
    return number


def fate(engine: Engine, number: str) -> str:
    """The fate of a transaction whose connection was lost: ``committed``, ``aborted`` or ``unknown``.

    The server may still be starting, or not have noticed the loss itself, so it is asked
    for up to 30 seconds.
    """
    deadline = time.monotonic() + _FATE_SECONDS
    while time.monotonic() < deadline:
        try:
            with engine.connect() as connection:
                status = connection.execute(_FATE, {"number": number}).scalar_one()
        except (exc.OperationalError, exc.InterfaceError):
            status = "in progress"
        except exc.DBAPIError:  # a standby that took over and never heard of it
            return "unknown"
        if status != "in progress":
            return status or "unknown"
        time.sleep(_FATE_PAUSE_SECONDS)
    return "unknown"
