"""The way out that the options choose, opened."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import muxly
from muxly_routers._failures import needs
from muxly_routers._http import authorization
from muxly_routers.prometheus import names, operations
from muxly_routers.prometheus.collect import Delivering, Outlet
from muxly_routers.prometheus.endpoint import Endpoint, Listening
from muxly_routers.prometheus.push import Sending
from muxly_routers.prometheus.pushgateway import Pushgateway
from muxly_routers.prometheus.remote import RemoteWrite
from muxly_routers.prometheus.scrape_server import Address
from muxly_routers.prometheus.textfile import Textfile

if TYPE_CHECKING:
    from pathlib import Path

    from muxly_routers._http.client import Client
    from muxly_routers.prometheus import Prometheus
    from muxly_routers.prometheus.settings import Settings

__all__ = ["opened"]


def opened(router: Prometheus, run: muxly.Run, settings: Settings) -> Delivering | Sending:
    """What delivers to the router's way out.

    Raises:
        ConfigurationError: An option turned out to be wrong.
        RouteError: Another program listens at the address.
    """
    if router.remote_write is not None:
        client = _client(router, router.remote_write, run, "remote_write")
        return Sending(run, settings, RemoteWrite(client, router.remote_write, _authorization(router)))
    return Delivering(run, settings, _outlet(router, run), folder(router))


def folder(router: Prometheus) -> Path | None:
    """Where the series are kept; None = in the ledger."""
    if router.keep is not None:
        return router.keep.absolute()
    return None if router.textfile is None else router.textfile.absolute() / ".muxly"


def _outlet(router: Prometheus, run: muxly.Run) -> Outlet:
    if router.textfile is not None:
        return Textfile(router.textfile.absolute(), run.token)
    if router.listen is not None:
        return _listening(router, run, Address(*names.address(router.listen)))
    assert router.pushgateway is not None
    return Pushgateway(
        _client(router, router.pushgateway, run, "pushgateway"),
        router.pushgateway,
        _authorization(router),
        job=router.job or run.pipeline,
        stream_label=router.stream_label or "stream",
        grouping=router.grouping,
    )


def _listening(router: Prometheus, run: muxly.Run, address: Address) -> Listening:
    wanted = _authorization(router)
    local = _is_local(address.host)
    if not local and run.guarded:
        raise muxly.ConfigurationError(
            f"{address} is open to the network, and this pipeline was not written by the operator; listen at 127.0.0.1",
            path=("listen",),
        )
    if not local and wanted is None:
        raise muxly.ConfigurationError(
            f"{address} is open to the network; say with `bearer` or `basic` who may read, or listen at 127.0.0.1",
            path=("listen",),
        )
    endpoint = run.shared(f"muxly_routers.prometheus {address}", lambda: Endpoint(address, wanted))
    if not endpoint.asks_for(wanted):
        raise muxly.ConfigurationError(
            f"another route listens at {address} with other `bearer` or `basic`; give both the same, or choose another "
            "port",
            path=("listen",),
        )
    if router.operations:
        endpoint.operations = operations.of_all_runs()
    return Listening(endpoint, router.expire_seconds)


def _is_local(host: str) -> bool:
    """Whether only this machine can reach it; a name may lead anywhere, whatever it begins with."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _authorization(router: Prometheus) -> muxly.Secret | None:
    """The header that says who we are, or who may read; a secret, as what it is made of."""
    if router.bearer is not None:
        return muxly.Secret(f"Bearer {router.bearer.reveal()}")
    if router.basic is not None:
        return muxly.Secret(authorization.basic(router.basic.user, router.basic.password))
    return None


def _client(router: Prometheus, url: muxly.Secret, run: muxly.Run, option: str) -> Client:
    with needs("prometheus"):
        from muxly_routers._http.client import Client, Limits
    from muxly_routers._http.egress import Guard

    limits = Limits(total_seconds=router.timeout_seconds)
    try:
        return Client(url.reveal(), limits=limits, tls=router.tls, guard=Guard.of_machine(on=run.guarded))
    except muxly.ConfigurationError as error:
        if error.path == ("url",):
            raise muxly.ConfigurationError(f"{option}: {error}", path=(option,)) from None
        raise
