"""Fixtures of tests that speak HTTP: a server on loopback that goes wrong as it is told, and certificates."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.http_receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """An HTTP server that keeps what it is sent."""
    forget_proxies(monkeypatch)
    with Receiver() as started:
        yield started


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """An authority that signs certificates, and that no machine trusts."""
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's own certificate, for those who trust it."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def secure_receiver(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Receiver]]:
    """Starts HTTPS servers: call it with a certificate, or none for a good one; ``ask=True`` wants the client's."""
    forget_proxies(monkeypatch)
    started: list[Receiver] = []

    def start(certificate: trustme.LeafCert | None = None, *, ask: bool = False) -> Receiver:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        (certificate or authority.issue_cert("127.0.0.1", "localhost")).configure_cert(context)
        if ask:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        started.append(Receiver(tls=context).__enter__())
        return started[-1]

    yield start
    for one in started:
        one.__exit__()


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is not behind a company's proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
