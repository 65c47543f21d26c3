"""The webhook router keeps the contract of routers, and a receiver that drops repeats has each record once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from muxly import Secret
from muxly_routers.webhook import Webhook
from muxly_testing import RouterConformance
from tests.http_receiver import Receiver, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Received(RouterConformance):
    """A webhook router with a real server on loopback."""

    options: ClassVar[dict[str, Any]] = {}
    crash_points = 6
    big_batches = 48
    server: ClassVar[Receiver]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with Receiver() as cls.server:
            yield

    @pytest.fixture(autouse=True)
    def _no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    def router(self, tmp_path: Path) -> Webhook:
        self.server.forget()
        return self.made_for(self.server.url)

    def made_for(self, url: str, **options: Any) -> Webhook:
        return Webhook(url=Secret(url), **{"signing_secrets": [SECRET], "max_records": 3, **self.options, **options})

    def broken(self, tmp_path: Path) -> Webhook:
        return self.made_for("http://127.0.0.1:1/hook?token=hunter2-in-the-url")

    def slow(self, tmp_path: Path) -> Webhook:
        router = self.router(tmp_path)
        self.server.script(Reply(429, headers=(("Retry-After", "1"),)))
        return router

    def hanging(self, tmp_path: Path) -> Webhook:
        router = self.made_for(self.server.url, total_seconds=1.0)
        self.server.script(Reply(hold=True, apply=False))
        return router

    def arrived(self) -> list[dict[str, Any]]:
        return [record for one in self.server.applied for record in one.json()]


class TestAnyReceiver(Received):
    """A receiver that takes every request it is sent."""


class TestReceiverThatDropsRepeats(Received):
    """A receiver that knows the ids it has seen, as Standard Webhooks asks for: nothing comes twice."""

    crash_points = 12
    big_batches = 8  # memory is looked at above
    options: ClassVar[dict[str, Any]] = {"max_in_flight": 3, "max_records": 2}

    @pytest.fixture(autouse=True)
    def _promised(self, _declared: None) -> None:
        """What the receiver adds to the router's own promise."""
        self._promise = "effectively_once"

    def arrived(self) -> list[dict[str, Any]]:
        return [record for one in self.server.distinct() for record in one.json()]

    def test_known_id_with_other_content_is_a_conflict(self) -> None:  # type: ignore[override]
        pytest.skip("the receiver drops it: it knows the id")
