"""The webhook router in real runs: what a receiver did not take waits, and comes once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import muxly
from muxly import Secret
from muxly.testing import CollectingRouter, FakeConnector
from muxly_routers.webhook import Webhook
from tests.http_receiver import Receiver, Reply, Seen, records

if TYPE_CHECKING:
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
