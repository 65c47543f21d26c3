"""Addresses that somebody else than the operator wrote: servers of the public network, and nothing else.

A file of this machine, a Unix socket, an option that names a file, and a driver that nobody looked at
are no addresses to take from a stranger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers import _failures
from muxly_routers._http.egress import Guard, addresses

if TYPE_CHECKING:
    from sqlalchemy import URL

    from muxly_routers._http.egress import Lookup

__all__ = ["allowed"]

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_OPTIONS = {"application_name", "charset", "sslmode", "ssl_disabled", "ssl_verify_cert"}


def allowed(url: URL, lookup: Lookup | None = None) -> URL:
    """The URL, with an address in it that was checked.

    Args:
        url: As it was written.
        lookup: The resolver; default the system's.

    Raises:
        ConfigurationError: It is not the address of a database server, or has an option that is not allowed.
        RouteError: Its host is in a private network.
        RetryableError: Its host has no address now.
    """
    kind = url.get_backend_name()
    if kind not in _PORTS or not url.host:
        raise muxly.ConfigurationError(
            "a pipeline that was not written by the operator delivers to PostgreSQL, MySQL and MariaDB servers only, "
            "each with its host in the URL",
            path=("url",),
        )
    if strange := sorted(set(url.query) - _OPTIONS):
        raise muxly.ConfigurationError(
            f"the option {strange[0]!r} of the URL is for the operator only; there are {', '.join(sorted(_OPTIONS))}",
            path=("url",),
        )
    try:
        found = addresses(url.host, url.port or _PORTS[kind], Guard.of_machine(on=True), lookup)
    except OSError as error:
        raise muxly.RetryableError(_failures.with_next_step(f"{url.host} has no address: {error}")) from error
    # Connected to is what was checked; PostgreSQL keeps the name beside it, for the certificate.
    return url.update_query_dict({"hostaddr": found[0]}) if kind == "postgresql" else url.set(host=found[0])
