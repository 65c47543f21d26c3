"""The Slack router keeps the contract of routers: as messages for records, and as digests with a file."""

from __future__ import annotations

import csv
import html
import io
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from muxly.options import Secret
from muxly_routers.slack import Slack
from muxly_testing import RouterConformance
from tests.slack_server import CHANNEL, Fault, SlackServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Posted(RouterConformance):
    """A router that posts to the loopback server; each router that is made finds it empty."""

    options: ClassVar[dict[str, Any]] = {}
    server: ClassVar[SlackServer]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with SlackServer() as cls.server:
            yield

    def router(self, tmp_path: Path) -> Slack:
        self.server.clear()
        return self.bot()

    def bot(self, **more: Any) -> Slack:
        given: dict[str, Any] = {
            "token": Secret(self.server.token),
            "channel": CHANNEL,
            "base_url": self.server.base_url,
            "messages_per_second": 1000.0,
        }
        return Slack(**{**given, **self.options, **more})

    def expect_arrived(self, numbers: Iterable[int], contract: str, *, tries: int = 1) -> None:
        """The bot may read the history, so that nothing comes twice, however often it is tried."""
        super().expect_arrived(numbers, contract, tries=1)

    def broken(self, tmp_path: Path) -> Slack:
        return self.bot(token=Secret("xoxb-of-another-workspace"))

    def hanging(self, tmp_path: Path) -> Slack:
        self.server.clear()
        self.server.faults.append(Fault("chat.postMessage", way="hang", times=1000))
        return self.bot(timeout_seconds=1.0)

    def slow(self, tmp_path: Path) -> Slack:
        self.server.clear()
        self.server.faults.append(Fault("chat.postMessage", status=429, headers={"Retry-After": "1"}))
        return self.bot()


class TestMessages(Posted):
    """A message for each record."""

    options: ClassVar[dict[str, Any]] = {"message": "{id}|{text}"}
    crash_points = 8
    big_batches = 2  # each has 128 records, and each record is a request

    def arrived(self) -> list[dict[str, Any]]:
        found = []
        for message in self.server.posted():
            name, _, text = html.unescape(message["text"]).partition("|")
            cut = len(message["text"]) > 39_000
            found.append({"id": name} if cut else {"id": name, "text": text})
        return found


class TestMessagesInThreads(TestMessages):
    """The same, as answers to the first message of the run."""

    options: ClassVar[dict[str, Any]] = {"message": "{id}|{text}", "threads": "run"}
    crash_points = 4
    big_batches = 1


class TestDigestsWithFiles(Posted):
    """A digest for each delivery; the records are in its file."""

    options: ClassVar[dict[str, Any]] = {"attach": "csv"}
    crash_points = 8

    def arrived(self) -> list[dict[str, Any]]:
        csv.field_size_limit(1 << 20)
        shown = {file["id"] for message in self.server.messages for file in message.get("files", ())}
        rows: list[dict[str, Any]] = []
        for name, file in self.server.files.items():
            if name in shown:
                rows.extend(csv.DictReader(io.StringIO(file["content"].decode(), newline=""), strict=True))
        return rows
