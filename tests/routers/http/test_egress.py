"""The guard lets nothing through that is not on the public internet, whatever it is called."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

import muxly
from muxly_routers._http import egress
from muxly_routers._http.egress import Guard, addresses, check_url, forbidden

GUARD = Guard(on=True)

FORBIDDEN = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:0:53aa:64c::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "4000::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_addresses_that_are_not_public_are_forbidden(text: str) -> None:
    assert forbidden(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_not_forbidden(text: str) -> None:
    assert forbidden(ip_address(text)) is None


def test_all_addresses_of_a_name_are_checked() -> None:
    with pytest.raises(muxly.RouteError, match="one of its addresses is link-local") as caught:
        addresses("twofold.example", 443, GUARD, lambda host, port: ["8.8.8.8", "169.254.169.254"])
    assert "169.254" not in str(caught.value)


def test_public_name_keeps_the_order_of_its_addresses() -> None:
    found = addresses("public.example", 443, GUARD, lambda host, port: ["8.8.8.8", "1.1.1.1"])
    assert found == ["8.8.8.8", "1.1.1.1"]


def test_guard_that_is_off_allows_everything() -> None:
    assert addresses("127.0.0.1", 80, Guard()) == ["127.0.0.1"]
    check_url("http://127.0.0.1/", Guard())


def test_operator_allows_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(egress.ALLOW_VARIABLE, "10.1.0.0/16, fd12::/48")
    guard = Guard.of_machine(on=True)
    assert guard.problem(ip_address("10.1.2.3")) is None
    assert guard.problem(ip_address("fd12::9")) is None
    assert guard.problem(ip_address("10.2.0.1")) == "private"
    assert guard.allowed == (ip_network("10.1.0.0/16"), ip_network("fd12::/48"))


def test_wrong_list_of_networks_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(egress.ALLOW_VARIABLE, "10.1.0.0/16,everything")
    with pytest.raises(muxly.ConfigurationError, match="MUXLY_EGRESS_ALLOW: 'everything'"):
        Guard.of_machine(on=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://user@127.0.0.1/",
        "http://8.8.8.8@127.0.0.1/",
        "http://127.0.0.1:22/",
        "https://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
    ],
)
def test_url_of_the_inside_is_refused(url: str) -> None:
    with pytest.raises(muxly.RouteError, match="may not be connected to"):
        check_url(url, GUARD)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://8.8.8.8/", "//8.8.8.8/", "http://", "http://[::1", ""])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="not a URL that begins with http"):
        check_url(url, GUARD)


@pytest.mark.parametrize("host", ["." * 3, "a" * 64 + ".example"])
def test_name_that_is_none_has_no_address(host: str) -> None:
    with pytest.raises(OSError, match=r"host|Name"):
        egress.system_lookup(host, 80)


def test_name_without_address_may_have_one_later() -> None:
    def nothing(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(muxly.RetryableError, match=r"away\.example has no address: .*; is the name right"):
        check_url("https://away.example/", GUARD, nothing)
