"""Corners that the model found, on the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly._runner.options import Replay
from muxly._runner.session import Home, open_session
from muxly.pipeline import RunResult
from muxly.store import positions
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector
from muxly_testing._faults import Fault

FULL = {"numbers": {"read": "full"}}


def connector(**options: Any) -> FakeConnector:
    return FakeConnector(**({"keyed": False, "records": 40, "partitions": 2, "batch_records": 10} | options))


def run(
    home: Path, source: FakeConnector, routes: dict[str, CollectingRouter], *, full: bool = False, **options: Any
) -> RunResult:
    pipeline = muxly.Pipeline(
        "corners",
        source,
        routes=[muxly.Route(name, router, max_rejected=5) for name, router in routes.items()],
        streams=FULL if full else {},
        segment_bytes=1000,
    )
    return muxly.run(pipeline, home=home, **options)


def ids(router: CollectingRouter) -> list[int]:
    return sorted(record["id"] for record in router.records())


def methods(router: CollectingRouter) -> list[str]:
    return [call.method for call in router.calls]


def test_a_route_added_inside_a_generation_shows_nothing_until_the_next_one_is_whole(tmp_path: Path) -> None:
    early, late = CollectingRouter(), CollectingRouter()
    breaks = Fault(method="read", action="StreamError", partition="from-20", at=1)
    source = connector(faults=[breaks])
    assert run(tmp_path, source, {"early": early}, full=True).state == "partial"
    assert run(tmp_path, source, {"early": early, "late": late}, full=True).state == "succeeded"
    assert (ids(early), ids(late)) == (list(range(40)), [])
    assert run(tmp_path, source, {"early": early, "late": late}, full=True).state == "succeeded"
    assert ids(late) == list(range(40))


def test_a_route_added_after_a_generation_does_not_show_it_empty(tmp_path: Path) -> None:
    early, late = CollectingRouter(), CollectingRouter()
    source = connector(faults=[Fault(method="plan", action="StreamError", at=1)])
    assert run(tmp_path, source, {"early": early}, full=True).state == "succeeded"
    assert run(tmp_path, source, {"early": early, "late": late}, full=True).state == "partial"
    assert "complete" not in methods(late)


def test_a_replay_fills_a_replace_route_that_was_added_later(tmp_path: Path) -> None:
    early, late = CollectingRouter(), CollectingRouter()
    source = connector()
    run(tmp_path, source, {"early": early}, full=True)
    replayed = run(tmp_path, source, {"early": early, "late": late}, full=True, replay=Replay(route="late"))
    assert replayed.state == "succeeded"
    assert ids(late) == list(range(40))


def test_a_replay_does_not_double_the_generation_that_is_visible(tmp_path: Path) -> None:
    router = CollectingRouter()
    source = connector()
    run(tmp_path, source, {"only": router}, full=True)
    replayed = run(tmp_path, source, {"only": router}, full=True, replay=Replay(route="only"))
    assert (replayed.state, replayed.routes["only"].balanced) == ("succeeded", True)
    assert ids(router) == list(range(40))


def test_a_detached_route_goes_on_where_it_was_under_the_same_delivery(tmp_path: Path) -> None:
    answer_lost = Fault(method="deliver", action="RouteError", at=1, after=True)
    router = ChaosRouter(faults=[answer_lost])
    first = run(tmp_path, connector(records=20), {"slow": router})
    assert first.state == "succeeded"
    broken = run(tmp_path, connector(records=60), {"slow": router})
    assert (broken.state, len(ids(router)) > 20) == ("partial", True)
    with open_session(Home(folder=tmp_path), "corners", command="test") as session:
        positions.detach(session.ledger, "slow", ["numbers"])
    result = run(tmp_path, connector(records=60), {"slow": router}, replay=Replay(route="slow"))
    assert (result.state, result.routes["slow"].replayed) == ("succeeded", 40)
    assert ids(router) == list(range(60))


@pytest.mark.parametrize("again", [0, 1])
def test_dead_letters_that_wait_to_be_delivered_again_are_pending(tmp_path: Path, again: int) -> None:
    refused = ChaosRouter(reject=[3])
    assert run(tmp_path, connector(), {"picky": refused}).routes["picky"].rejected == 1
    down = ChaosRouter(faults=[Fault(method="deliver", action="RouteError", times=0)])
    waiting = run(tmp_path, connector(), {"picky": down}, replay=Replay(route="picky", dead_letters=True))
    for _ in range(again):
        waiting = run(tmp_path, connector(), {"picky": down})
    assert (waiting.state, waiting.routes["picky"].pending) == ("partial", 1)
    up = ChaosRouter()
    healed = run(tmp_path, connector(), {"picky": up})
    assert (healed.state, healed.routes["picky"].pending_before, healed.routes["picky"].delivered) == (
        "succeeded",
        1,
        1,
    )
    assert ids(up) == [3]
