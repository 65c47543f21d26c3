"""Addresses that may be connected to when someone other than the operator wrote the URL.

The list is our own: ``ipaddress.is_global`` takes several ways into the machine's own network for global,
among them ``64:ff9b::7f00:1``, ``::127.0.0.1`` and the address of Azure's host, and it changes between
versions of Python. All addresses of a name are checked, and the connection goes to one that was.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from attrs import frozen

import muxly
from muxly_routers import _failures

__all__ = ["ALLOW_VARIABLE", "IPAddress", "Guard", "Lookup", "addresses", "check_url", "forbidden"]

IPAddress = IPv4Address | IPv6Address
Lookup = Callable[[str, int], list[str]]
"""Gives the addresses of a name, for a port; raises ``OSError`` where there are none."""

ALLOW_VARIABLE = "MUXLY_EGRESS_ALLOW"

# IANA's special-purpose registries and what clouds keep beside them. Everything outside of 2000::/3 is
# no public IPv6 address, which takes care of ::1, ::/96, ::ffff:0:0/96, 64:ff9b::/96, fc00::/7 and others.
_NO_V4: dict[str, tuple[str, ...]] = {
    "this host": ("0.0.0.0/8",),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "shared": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8",),
    "link-local": ("169.254.0.0/16",),
    "cloud metadata": ("168.63.129.16/32",),
    "reserved": (
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
    ),
    "multicast": ("224.0.0.0/4",),
}
_NO_V6: dict[str, tuple[str, ...]] = {
    "reserved": ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"),
    "a tunnel to an IPv4 address": ("2002::/16",),
}
_V4 = tuple((why, IPv4Network(text)) for why, texts in _NO_V4.items() for text in texts)
_V6 = tuple((why, IPv6Network(text)) for why, texts in _NO_V6.items() for text in texts)
_PUBLIC_V6 = IPv6Network("2000::/3")


def forbidden(address: IPAddress) -> str | None:
    """Why an address is not one of the public internet, in a word or two; None if it is one."""
    if isinstance(address, IPv4Address):
        return next((why for why, network in _V4 if address in network), None)
    if address not in _PUBLIC_V6:
        return "not public"
    return next((why for why, network in _V6 if address in network), None)


@frozen
class Guard:
    """Decides which addresses may be connected to.

    Args:
        on: Whether addresses are checked at all.
        allowed: Networks that the operator of this machine allows all the same.
    """

    on: bool = False
    allowed: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of_machine(cls, *, on: bool) -> Guard:
        """A guard that allows the networks in ``MUXLY_EGRESS_ALLOW``, such as ``10.1.0.0/16,fd12::/48``.

        The variable belongs to who runs Muxly; what an API user writes cannot change it.

        Raises:
            ConfigurationError: The variable holds something that is not a network.
        """
        if not on:
            return cls()
        words = os.environ.get(ALLOW_VARIABLE, "").replace(",", " ").split()
        try:
            return cls(on=True, allowed=tuple(ip_network(word) for word in words))
        except ValueError as error:
            raise muxly.ConfigurationError(f"the environment variable {ALLOW_VARIABLE}: {error}") from None

    def problem(self, address: IPAddress) -> str | None:
        """Why the address may not be connected to; None if it may."""
        if not self.on or any(address in network for network in self.allowed):
            return None
        return forbidden(address)


def addresses(host: str, port: int, guard: Guard, lookup: Lookup | None = None) -> list[str]:
    """The addresses of a host, every one of them checked; connect to these and to nothing else.

    Args:
        host: A name or an address, in any of the forms that the system's resolver takes.
        port: The port, for the resolver.
        guard: What may be connected to.
        lookup: The resolver; default the system's.

    Raises:
        RouteError: One of the addresses is forbidden. The error does not name it, for what a name
            means inside a network is nobody else's business.
        OSError: The name has no address.
    """
    found = (lookup or system_lookup)(host, port)
    for text in found:
        why = guard.problem(ip_address(text))
        if why is not None:
            raise muxly.RouteError(
                f"{host} may not be connected to: one of its addresses is {why}, and this pipeline was not written "
                f"by the operator, who can allow networks in the environment variable {ALLOW_VARIABLE}"
            )
    return found


def check_url(url: str, guard: Guard, lookup: Lookup | None = None) -> None:
    """Check where a URL leads, before anything is loaded to go there.

    A name can mean another address a moment later: who connects checks the address once more.

    Raises:
        ConfigurationError: It is no http or https URL with a host.
        RetryableError: The host has no address now.
        RouteError: One of its addresses is forbidden.
    """
    if not guard.on:
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        raise muxly.ConfigurationError("this is not a URL that begins with http:// or https:// and names a host")
    try:
        addresses(host, port or (443 if parts.scheme == "https" else 80), guard, lookup)
    except OSError as error:
        raise muxly.RetryableError(_failures.with_next_step(f"{host} has no address: {error}")) from error


def system_lookup(host: str, port: int) -> list[str]:
    """Ask the system's resolver.

    Raises:
        OSError: The name has no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 bytes, or none
        raise OSError(f"{host!r} is no name of a host") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
