"""Fixtures of tests that post to Slack: a loopback server, empty at the beginning of each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slack_server import SlackServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def slack_server() -> Iterator[SlackServer]:
    """A workspace with a bot, the channel ``CHANNEL`` and an incoming webhook."""
    with SlackServer() as server:
        yield server
