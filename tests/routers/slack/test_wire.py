"""How a request reaches Slack: over TLS that is checked, through the proxy of the environment, within a deadline."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.request import Request

import pytest
import trustme

import muxly
from muxly_routers.slack.client import SlackConnection, UnansweredError
from tests.loopback import Loopback
from tests.slack_server import Fault, SlackServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def secure_server(authority: trustme.CA) -> Iterator[SlackServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with SlackServer(context) as server:
        yield server


def ask(url: str, connection: SlackConnection | None = None) -> int:
    """Call a method that there is without a token."""
    request = Request(f"{url}auth.test", data=b"{}", method="POST")
    return (connection or SlackConnection(5.0)).send(request, what="auth.test").status


def unanswered(url: str, connection: SlackConnection) -> str:
    """The error of a request without an answer; where the machine is too busy to connect in time, with more time."""
    try:
        ask(url, connection)
    except UnansweredError as error:
        return str(error)
    except muxly.RetryableError:
        connection.timeout_seconds *= 2
        return unanswered(url, connection)
    raise AssertionError("there was an answer")


def test_certificate_of_a_known_authority_is_trusted(
    secure_server: SlackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ask(secure_server.base_url) == 200


def test_certificate_of_an_unknown_authority_stops_the_route(secure_server: SlackServer) -> None:
    with pytest.raises(muxly.RouteError, match=r"certificate of 127\.0\.0\.1 is not valid here.*SSL_CERT_FILE"):
        ask(secure_server.base_url)


def test_certificate_of_another_host_stops_the_route(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("slack.example").configure_cert(context)
    with SlackServer(context) as server, pytest.raises(muxly.RouteError, match="not valid here"):
        ask(server.base_url)


def test_handshake_that_fails_is_no_uncertainty(slack_server: SlackServer) -> None:
    """Nothing of the request was sent, so that no message may be there."""
    with pytest.raises(muxly.RetryableError, match=r"no connection to 127\.0\.0\.1, port \d+: ") as caught:
        ask(slack_server.base_url.replace("http:", "https:"))
    assert not isinstance(caught.value, UnansweredError)


def test_proxy_that_refuses_is_no_uncertainty(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", slack_server.root)
    with pytest.raises(muxly.RetryableError, match=r"no connection to slack\.example, port 443: ") as caught:
        ask("https://slack.example/api/")
    assert not isinstance(caught.value, UnansweredError)


def test_deadline_ends_an_answer_over_tls(
    secure_server: SlackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    secure_server.faults.append(Fault("auth.test", way="drip", times=99))
    connection = SlackConnection(0.5)
    assert "in time" in unanswered(secure_server.base_url, connection)
    secure_server.faults.clear()
    connection.timeout_seconds = 20.0
    assert ask(secure_server.base_url, connection) == 200, "the next request is not ended"


def test_connection_that_comes_after_the_deadline_is_not_used(
    slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, connect = SlackConnection(0.01), socket.create_connection

    def slow(*arguments: Any) -> socket.socket:
        time.sleep(0.1)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", slow)
    with pytest.raises(muxly.RetryableError, match=r"no connection to 127\.0\.0\.1, port \d+: not in time"):
        ask(slack_server.base_url, connection)
    assert slack_server.calls == []


def test_proxy_of_the_environment_is_used(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", slack_server.root)
    assert ask("http://slack.example/api/") == 200
    monkeypatch.setenv("no_proxy", "slack.invalid")
    with pytest.raises(muxly.RetryableError, match=r"slack\.invalid has no address"):
        ask("http://slack.invalid/api/")


def test_guarded_request_goes_past_the_proxy(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", slack_server.root)
    with pytest.raises(muxly.RouteError, match="one of its addresses is loopback"):
        ask(slack_server.base_url, SlackConnection(5.0, guarded=True))
    assert slack_server.calls == []


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_nothing_but_http_is_opened(scheme: str) -> None:
    with pytest.raises(muxly.RouteError, match=f"over http and https only, not {scheme}"):
        SlackConnection(1.0).send(Request(f"{scheme}:///etc/passwd"), what="the webhook")


def test_host_without_address_is_told_by_name() -> None:
    told = r"auth\.test: no connection to a\.invalid, port 80: a\.invalid has no address: .*; is the name right"
    with pytest.raises(muxly.RetryableError, match=told):
        ask("http://a.invalid/api/")


def test_large_body_has_more_time() -> None:
    assert SlackConnection(20.0).deadline_seconds(0) == 20
    assert SlackConnection(20.0).deadline_seconds(128 << 20) == 20 + 1024


def slow_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def test_deadline_ends_an_answer_whose_headers_never_end() -> None:
    with Loopback(slow_headers) as server:
        told = unanswered(f"http://127.0.0.1:{server.port}/api/", SlackConnection(0.3))
    assert told.startswith("auth.test: no whole answer from 127.0.0.1 in time; is the server stuck or busy?")
