"""The scrape endpoint under clients that are slow, greedy, or in no hurry to leave."""

from __future__ import annotations

import http.client
import socket
import time
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from muxly_routers.prometheus import endpoint
from muxly_routers.prometheus.endpoint import ScrapeConnections, ScrapeEndpoint
from tests.routers.prometheus.test_endpoint import Open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def listening() -> Iterator[Callable[[], Open]]:
    """Makes routers that listen and show one series, and closes them."""
    made: list[Open] = []

    def make(port: int | None = None) -> Open:
        made.append(Open(port=port))
        made[-1].deliver([{"k": "a", "n": len(made)}])
        return made[-1]

    yield make
    for one in made:
        one.close()


def connected(to: Open) -> socket.socket:
    """A connection; closed with a ``with`` statement."""
    return socket.create_connection(("127.0.0.1", to.port), timeout=20)


def all_of(connection: socket.socket) -> bytes:
    """What it brings until it is cut."""
    found = b""
    try:
        while more := connection.recv(1 << 16):
            found += more
    except ConnectionError:
        pass
    return found


def test_connection_that_is_kept_open_does_not_outlive_the_endpoint(listening: Callable[..., Open]) -> None:
    """Prometheus asks again on the connection that it has, and would be shown the old series for ever."""
    first = listening()
    kept = http.client.HTTPConnection("127.0.0.1", first.port, timeout=20)
    kept.auto_open = False
    kept.connect()
    kept.request("GET", "/metrics")
    assert b'latest{k="a",stream="orders"} 1\n' in kept.getresponse().read()
    first.close()
    listening(port=first.port)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        kept.request("GET", "/metrics")
        kept.getresponse()
    kept.close()


def test_client_that_sends_a_byte_now_and_then_is_cut_off(
    listening: Callable[..., Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_STEP_SECONDS", 0.2)
    with connected(listening()) as slow:
        slow.setblocking(False)
        for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 400:
            try:
                slow.send(bytes([byte]))
                if slow.recv(1) == b"":
                    return
            except BlockingIOError:
                time.sleep(0.02)
            except ConnectionError:
                return
    pytest.fail("it may go on for ever")


def test_new_connection_takes_the_place_of_the_one_that_waits_longest(listening: Callable[..., Open]) -> None:
    one = listening()
    idle = [connected(one) for _ in range(40)]
    try:
        assert one.ask()[0] == 200, "idle connections keep nobody out"
        assert [connection.recv(1) for connection in idle[:9]] == [b""] * 9
        idle[20].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"latest{" in all_of(idle[20])
    finally:
        for connection in idle:
            connection.close()


def test_connection_that_has_ended_makes_room_again(listening: Callable[..., Open]) -> None:
    one = listening()
    with connected(one) as first:
        assert [one.ask()[0] for _ in range(40)] == [200] * 40
        first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"latest{" in all_of(first)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /metrics HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(40)) + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["many headers", "a long header", "a long path"],
)
def test_request_with_a_huge_head_is_not_read(listening: Callable[..., Open], request_head: bytes) -> None:
    one = listening()
    with connected(one) as greedy:
        try:
            greedy.sendall(request_head)
        except ConnectionError:
            return
        assert b"latest{" not in all_of(greedy)
    assert one.ask()[0] == 200


def test_body_of_a_request_is_not_taken_for_the_next_one(listening: Callable[..., Open]) -> None:
    inner = b"GET /metrics HTTP/1.1\r\n\r\n"
    with connected(listening()) as smuggling:
        smuggling.sendall(b"GET /metrics HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner))
        assert all_of(smuggling).count(b"latest{") == 1


def test_mistake_of_ours_is_logged_and_a_client_that_leaves_is_not(
    listening: Callable[..., Open], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = listening()

    failing = Mock(side_effect=[BrokenPipeError("gone"), ValueError("our mistake")])
    monkeypatch.setattr(ScrapeEndpoint, "content", failing)
    for logged in (0, 1):
        with pytest.raises(http.client.RemoteDisconnected, match=r"without response"):
            one.ask()
        assert len(caplog.records) == logged
    assert "a scrape could not be answered" in caplog.text
    assert "our mistake" in caplog.text


def test_connections_that_are_answered_end_with_their_answer() -> None:
    all = ScrapeConnections(3, step_seconds=1000)
    pairs = [socket.socketpair() for _ in range(3)]
    (asking, one), (answered, two), (gone, _) = pairs
    for connection in (asking, answered, gone):
        all.enter(connection)
    all.is_answered(answered)
    all.leave(gone)
    assert all.asks(asking)
    all.close()
    assert one.recv(1) == b"", "cut"
    two.setblocking(False)
    with pytest.raises(BlockingIOError, match=r"temporarily unavailable"):
        two.recv(1)
    assert not all.asks(answered), "there is no next request"
    for pair in pairs:
        for connection in pair:
            connection.close()
