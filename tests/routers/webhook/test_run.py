"""The webhook router in real runs: what a receiver did not take waits, and comes once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import muxly
from muxly import Secret
from muxly_routers.webhook import Webhook
from muxly_testing import CollectingRouter, FakeConnector
from tests.http_receiver import Receiver, Reply, Seen, records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pipeline(receiver: Receiver, **route: Any) -> muxly.Pipeline:
    options = {"max_records": 7, **route.pop("options", {})}
    quick = muxly.Backoff(first_seconds=0.01, limit_seconds=0.02, attempts=2)
    return muxly.Pipeline(
        "orders",
        FakeConnector(records=60, batch_records=10),
        routes=[
            muxly.Route("hook", Webhook(url=Secret(receiver.url), **options), mode="append", retry=quick, **route),
            muxly.Route("other", CollectingRouter(), mode="append"),
        ],
    )


def identities(seen: list[Seen]) -> list[str]:
    return sorted(str(sorted(record.items())) for record in records(seen))


def test_receiver_that_was_away_gets_everything_once_and_nobody_else_twice(receiver: Receiver, tmp_path: Path) -> None:
    receiver.respond = lambda seen: Reply(503, apply=len(receiver.seen) % 2 == 0)
    first = muxly.run(pipeline(receiver), home=tmp_path)
    assert (first.routes["hook"].delivered, first.routes["other"].pending) == (0, 0)
    assert "answered 503" in str(first.routes["hook"].error)
    receiver.respond = lambda seen: Reply()
    second = muxly.run(pipeline(receiver), home=tmp_path)
    assert second.routes["hook"].pending == 0
    assert second.routes["hook"].delivered == first.routes["other"].delivered + second.routes["other"].delivered
    taken = identities(receiver.distinct())
    assert len(taken) == second.routes["hook"].delivered
    assert len(set(taken)) == len(taken)


def test_rejected_records_become_dead_letters(receiver: Receiver, tmp_path: Path) -> None:
    def respond(seen: Seen) -> Reply:
        return Reply(422, b"odd") if any(record["id"] == 3 for record in seen.json()) else Reply()

    receiver.respond = respond
    result = muxly.run(pipeline(receiver, max_rejected=5), home=tmp_path)
    hook = result.routes["hook"]
    assert (hook.rejected, hook.pending) == (1, 0)
    assert hook.delivered == result.routes["other"].delivered - 1


def test_more_rejected_records_than_allowed_fail_the_route(receiver: Receiver, tmp_path: Path) -> None:
    receiver.respond = lambda seen: Reply(400, b"what is that?")
    result = muxly.run(pipeline(receiver), home=tmp_path)
    assert "refused each of the first 25 records" in str(result.routes["hook"].error)
    assert result.routes["other"].pending == 0


CONFIGURATION = """\
version: 1
pipelines:
  orders:
    connector: {type: "muxly_testing:FakeConnector", records: 60, batch_records: 60}
    routes:
      hook: {router: {type: webhook, url: "${HOOK}", max_records: 7, max_in_flight: 3}, mode: append}
"""


def test_process_that_is_killed_while_it_sends_goes_on_with_the_same_ids(receiver: Receiver, tmp_path: Path) -> None:
    """The receiver has acted on a request when the sender dies, before it has the answer."""
    (tmp_path / "muxly.yaml").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "muxly", "run", "-q"]
    for first in (3, 6, None):
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "HOOK": receiver.url}) as sender:
            receiver.respond = _killing(sender, receiver, first)
            try:
                assert sender.wait(60) == (0 if first is None else -signal.SIGKILL)
            finally:
                sender.kill()
    bodies: dict[str, set[bytes]] = {}
    for one in receiver.seen:
        bodies.setdefault(one.id, set()).add(one.body)
    assert [name for name, different in bodies.items() if len(different) > 1] == []
    assert len(receiver.seen) > len(bodies)
    assert sorted(record["id"] for record in records(receiver.distinct())) == list(range(60))


def _killing(sender: subprocess.Popen[bytes], receiver: Receiver, first: int | None) -> Callable[[Seen], Reply]:
    """Kill the sender with its request of that number in all, and act on the request all the same."""

    def respond(seen: Seen) -> Reply:
        if first is None or len(receiver.seen) + 1 < first:
            return Reply()
        sender.kill()
        return Reply(cut="lost")

    return respond
