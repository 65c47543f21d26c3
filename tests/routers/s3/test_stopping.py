"""Connections to a store that wait in steps: for as long as they may, and no longer once the run stops."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from muxly_routers.s3.connections import StopGrace, StoppableSocket, StoppableTlsSocket, connecting_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDLESS = 3600.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our side of a connection, and a server's that does nothing by itself."""
    theirs, ours = socket.socketpair()
    with theirs, StoppableSocket(ours.family, ours.type, ours.proto, ours.detach()) as patient:
        yield patient, theirs


@pytest.fixture
def tls_pair(pair: tuple[socket.socket, socket.socket]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same with TLS."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("store.example").configure_cert(serving)
    authority.configure_trust(trusting)
    trusting.sslsocket_class = StoppableTlsSocket
    accepted: list[ssl.SSLSocket] = []
    server = threading.Thread(target=lambda: accepted.append(serving.wrap_socket(pair[1], server_side=True)))
    server.start()
    with trusting.wrap_socket(pair[0], server_hostname="store.example") as ours:
        server.join()
        with accepted[0] as theirs:
            yield ours, theirs


def receive(ours: socket.socket) -> int:
    return ours.recv_into(bytearray(10))


def send(ours: socket.socket) -> None:
    ours.sendall(bytes(8 << 20))


@pytest.mark.parametrize("kind", ["pair", "tls_pair"])
@pytest.mark.parametrize("operation", [receive, send])
def test_stopping_run_waits_for_its_grace_and_then_no_more(
    request: pytest.FixtureRequest, kind: str, operation: Callable[[socket.socket], object]
) -> None:
    ours, _theirs = request.getfixturevalue(kind)
    ours.settimeout(ENDLESS)
    asked: list[None] = []

    def stopping() -> bool:
        asked.append(None)
        return len(asked) > 2

    grace = StopGrace(stopping, grace_seconds=0.3)
    with grace.request(), pytest.raises(TimeoutError, match="timed out"):
        operation(ours)
    assert len(asked) == 3, "it looked after each step, and the grace began then"
    assert grace.grace_seconds == 0, "nothing else is waited for"
    assert ours.gettimeout() == ENDLESS


@pytest.mark.parametrize("kind", ["pair", "tls_pair"])
def test_bytes_arrive_whole_however_slowly_they_are_taken(request: pytest.FixtureRequest, kind: str) -> None:
    """A timeout is for silence: a part that takes longer than it in all is sent all the same."""
    ours, theirs = request.getfixturevalue(kind)
    ours.settimeout(0.4)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    content, taken = bytes(range(256)) * (1 << 12), bytearray()

    def take() -> None:
        while len(taken) < len(content):
            taken.extend(theirs.recv(1 << 14))
            threading.Event().wait(0.02)

    taking = threading.Thread(target=take)
    taking.start()
    ours.sendall(content)
    taking.join()
    assert taken == content


@pytest.mark.parametrize("timeout", [0.1, 0.6])
def test_silence_ends_with_the_timeout(pair: tuple[socket.socket, socket.socket], timeout: float) -> None:
    ours, _theirs = pair
    ours.settimeout(timeout)
    with StopGrace(lambda: False).request(), pytest.raises(TimeoutError, match="timed out"):
        receive(ours)
    assert ours.gettimeout() == timeout


def test_connecting_takes_less_time_where_the_run_stops() -> None:
    assert connecting_seconds(10) == 10
    with StopGrace(lambda: False).request():
        assert connecting_seconds(10) == 10
    grace = StopGrace(lambda: True, grace_seconds=3)
    with grace.request():
        assert connecting_seconds(10) == 3
        grace.use_up()
        assert connecting_seconds(10) == 0.25
    assert connecting_seconds(10) == 10
