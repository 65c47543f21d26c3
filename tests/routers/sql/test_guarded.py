"""Whose address it is decides where it may lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

import muxly
from muxly_routers.sql import Sql
from muxly_routers.sql.urls import checked_url, parse_url
from tests.routers.sql.database import numbered

if TYPE_CHECKING:
    from pathlib import Path

    from muxly_routers._http.egress import Lookup


def resolver(*found: str) -> Lookup:
    return lambda host, port: list(found)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////etc/passwd",
        "duckdb:////tmp/x.duckdb",
        "postgresql:///shop",
        "postgresql:///shop?host=/var/run/postgresql",
        "oracle://me@db.example/shop",
    ],
)
def test_stranger_names_servers_only(url: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="MariaDB servers only"):
        checked_url(make_url(url), resolver("8.8.8.8"))


@pytest.mark.parametrize("option", ["host=/tmp", "sslkey=/etc/key", "passfile=/home/me/.pgpass", "hostaddr=127.0.0.1"])
def test_option_that_names_files_or_hosts_is_the_operators(option: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="operator only"):
        checked_url(make_url(f"postgresql://me@db.example/shop?{option}"), resolver("8.8.8.8"))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "64:ff9b::7f00:1"])
def test_private_network_is_not_for_strangers(address: str) -> None:
    with pytest.raises(muxly.RouteError, match="may not be connected to"):
        checked_url(make_url("postgresql://me@db.example/shop"), resolver("8.8.8.8", address))


def test_connection_goes_to_the_address_that_was_checked() -> None:
    checked = checked_url(make_url("postgresql://me@db.example/shop?sslmode=require"), resolver("8.8.8.8"))
    assert (checked.host, checked.query["hostaddr"], checked.query["sslmode"]) == ("db.example", "8.8.8.8", "require")
    assert checked_url(make_url("mysql://me@db.example/shop"), resolver("8.8.8.8")).host == "8.8.8.8"


def test_guarded_run_does_not_write_files(tmp_path: Path) -> None:
    router = Sql(url=muxly.Secret(f"sqlite:///{tmp_path}/mine.db"))
    router.open(muxly.Run("01JW000000MUXLYTESTRUN0000", "shop", route="lake", guarded=True))
    with pytest.raises(muxly.ConfigurationError, match="servers only"):
        router.deliver(numbered([1]))
    router.close()
    assert not list(tmp_path.iterdir())


def test_url_is_shown_without_credentials() -> None:
    url = parse_url(muxly.Secret("postgresql://me:canary-4711@db.example:5433/shop?password=canary-0815"))
    assert "canary" not in f"{url} {url!r} {url.set(database='x')!r} {[url]}"
    assert repr(url) == "postgresql db.example:5433/shop"


@pytest.mark.parametrize("text", ["no url", "postgresql://me:canary@db:port/shop", "://", ""])
def test_text_that_is_no_url_is_not_shown(text: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match=r"not one of a database; it looks like postgresql://") as caught:
        parse_url(muxly.Secret(text))
    assert "canary" not in str(caught.value)
