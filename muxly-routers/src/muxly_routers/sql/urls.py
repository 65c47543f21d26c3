"""URLs of databases: parsed, displayed without credentials, checked, and those of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import muxly
from muxly_routers import _failures
from muxly_routers._failures import needs

if TYPE_CHECKING:
    from sqlalchemy import URL

    from muxly_routers._http.egress import Lookup

__all__ = [
    "checked_url",
    "database_file",
    "display_name",
    "make_parent_folder",
    "missing_file",
    "parse_url",
    "resolved_file",
]

_GUARDED_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_GUARDED_OPTIONS = {"application_name", "charset", "sslmode", "ssl_disabled", "ssl_verify_cert"}


def parse_url(secret: muxly.Secret) -> URL:
    """The URL in its parts; printed, it has no credentials.

    Raises:
        ConfigurationError: It is not one; the message does not show it, for it holds a password.
        PluginError: SQLAlchemy is not installed.
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
    """The URL, printed without credentials: a traceback with local variables may show it."""

    class QuietUrl(type(url)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return display_name(self)

        __str__ = __repr__

    return cast("URL", QuietUrl._make(url))


def display_name(url: URL) -> str:
    """The database, without credentials: ``postgresql host:5432/database``."""
    host = f"{url.host}:{url.port}" if url.port else url.host or ""
    return f"{url.get_backend_name()} {host}{'/' if host else ''}{url.database or ''}"


def checked_url(url: URL, lookup: Lookup | None = None) -> URL:
    """The URL of a pipeline that somebody else than the operator wrote, with an address in it that was checked.

    Such a pipeline may deliver to servers of the public network only. A file of this machine, a Unix socket,
    an option that names a file, and a driver that nobody reviewed are not to be taken from a stranger.

    Args:
        url: As it was written.
        lookup: The resolver; default the system's.

    Raises:
        ConfigurationError: It is not the address of a database server, or has an option that is not allowed.
        RouteError: Its host is in a private network.
        RetryableError: Its host has no address now.
    """
    from muxly_routers._http.egress import Guard, addresses  # loads an HTTP client

    kind = url.get_backend_name()
    if kind not in _GUARDED_PORTS or not url.host:
        raise muxly.ConfigurationError(
            "a pipeline that was not written by the operator delivers to PostgreSQL, MySQL and MariaDB servers only, "
            "each with its host in the URL",
            path=("url",),
        )
    if forbidden := sorted(set(url.query) - _GUARDED_OPTIONS):
        allowed = ", ".join(sorted(_GUARDED_OPTIONS))
        raise muxly.ConfigurationError(
            f"the option {forbidden[0]!r} of the URL is for the operator only; there are {allowed}",
            path=("url",),
        )
    try:
        public = addresses(url.host, url.port or _GUARDED_PORTS[kind], Guard.of_machine(on=True), lookup)
    except OSError as error:
        raise muxly.RetryableError(_failures.with_next_step(f"{url.host} has no address: {error}")) from error
    # The connection goes to the address that was checked, not to the name, which may resolve to another one by
    # then. PostgreSQL keeps the name beside it, for the certificate.
    return url.update_query_dict({"hostaddr": public[0]}) if kind == "postgresql" else url.set(host=public[0])


def database_file(url: URL) -> Path:
    """The file of a database that is one file.

    Raises:
        ConfigurationError: The URL names a database in memory, which would be gone with the run.
    """
    if not url.database or url.database.startswith((":memory:", "file:")):
        kind = url.get_backend_name()
        raise muxly.ConfigurationError(
            f"a {kind} URL needs a file, as in {kind}:////absolute/path/records.db", path=("url",)
        )
    return Path(url.database).absolute()


def resolved_file(url: URL) -> str:
    """The path of the database's file with symbolic links resolved: one for each file."""
    return str(database_file(url).resolve())


def missing_file(path: Path) -> str | None:
    """A remark that a database's file is not there yet; None = it is."""
    return None if path.exists() else f"the file {path} is not there yet; the first delivery makes it"


def make_parent_folder(path: Path) -> None:
    """Make the folder of a database's file.

    Raises:
        RouteError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise muxly.RouteError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
