"""Which kind of database a URL is for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

import muxly
from muxly_routers._failures import needs

if TYPE_CHECKING:
    from sqlalchemy import URL

    from muxly_routers.sql.dialect import Dialect

__all__ = ["dialect_of", "parsed", "shown"]

_OWN = {
    "postgresql": "postgres:Postgres",
    "sqlite": "sqlite:Sqlite",
    "mysql": "mysql:Mysql",
    "mariadb": "mysql:Mysql",
    "duckdb": "duckdb:Duckdb",
}


def parsed(secret: muxly.Secret) -> URL:
    """The URL in its parts; printed, it has no credentials.

    Raises:
        ConfigurationError: It is not one; the message does not show it, for it holds a password.
    """
    with needs("sql"):
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

    try:
        return _quiet(make_url(secret.reveal()))
    except (ArgumentError, ValueError):
        raise muxly.ConfigurationError(
            "the URL is not one of a database; it looks like postgresql://user:password@host:5432/database "
            "or sqlite:////absolute/path/records.db (special characters in the password percent-encoded)",
            path=("url",),
        ) from None


def _quiet(url: URL) -> URL:
    """The URL, so that a traceback with local variables can show it."""

    class QuietUrl(type(url)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return shown(self)

        __str__ = __repr__

    return cast("URL", QuietUrl._make(url))


def shown(url: URL) -> str:
    """Where the database is, without credentials."""
    where = f"{url.host}:{url.port}" if url.port else url.host or ""
    return f"{url.get_backend_name()} {where}{'/' if where else ''}{url.database or ''}"


def dialect_of(url: URL, *, fast: bool) -> Dialect:
    """The words of that kind of database.

    Args:
        url: Of the database.
        fast: Whether a bulk path of its own is used, where it has one.
    """
    where = _OWN.get(url.get_backend_name()) if fast else None
    module, _, name = (where or "generic:Generic").partition(":")
    made = getattr(import_module(f"muxly_routers.sql.{module}.dialect"), name)
    return cast("Dialect", made() if where else made(url))
