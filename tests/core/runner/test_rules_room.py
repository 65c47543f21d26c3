"""The spool's budget: reading waits only while somebody makes room (rule 8)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

import muxly
from muxly._runner.extract import extraction
from muxly._runner.session import Home, open_session
from muxly.pipeline import RunResult
from muxly.store import accounts, positions
from muxly.store.ledger import Ledger
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import every, ids, pipeline
from tests.core.runner.test_run_faults import spool_files

SMALL: dict[str, Any] = {"segment_bytes": 2000, "spool_bytes": 8000}
LOST = [Fault(method="deliver", action="RouteError", after=True)]


def quota(result: RunResult) -> list[str]:
    """What was said when reading ended for want of room."""
    return [notice.message for notice in result.notices if notice.code == "quota"]


def test_route_that_failed_on_one_stream_does_not_hold_reading_up_with_the_other(tmp_path: Path) -> None:
    source = FakeConnector(names=["one", "two"], records=3000)
    dead = ChaosRouter(faults=[Fault(method="deliver", action="RouteError", stream="one", times=0)])
    result = muxly.run(pipeline(source, dead, stall_seconds=5, **SMALL), home=tmp_path)
    assert result.state == "partial"
    assert quota(result)


def test_route_that_this_run_does_not_serve_does_not_hold_reading_up(tmp_path: Path) -> None:
    source, first, second = FakeConnector(records=3000), CollectingRouter(), CollectingRouter()
    result = muxly.run(pipeline(source, first, second, **SMALL), home=tmp_path, routes=["r0"])
    assert result.state == "partial"
    assert "r1" in quota(result)[0]
    assert "r0" not in quota(result)[0]


def test_last_acknowledgement_between_two_looks_does_not_end_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes were counted before the acknowledgement, the waiting records after it."""
    empty = [True]

    class Look:
        @staticmethod
        def pending(ledger: Ledger) -> dict[tuple[str, str], int]:
            return {} if empty and empty.pop() else accounts.pending(ledger)

    monkeypatch.setattr(extraction, "accounts", Look)
    result = muxly.run(pipeline(FakeConnector(records=3000), CollectingRouter(), **SMALL), home=tmp_path)
    assert (quota(result), result.state, empty) == ([], "succeeded", [])


def test_reading_that_waits_for_room_does_not_wait_for_a_fuller_batch(tmp_path: Path) -> None:
    router = CollectingRouter()
    chosen = pipeline(FakeConnector(records=2000), router, route={"batch": {"seconds": 3600.0}}, **SMALL)
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert ids(router) == every(2000)


def test_detached_route_with_an_open_delivery_waits_for_its_replay(tmp_path: Path) -> None:
    source, router = FakeConnector(records=100), ChaosRouter(faults=LOST)
    muxly.run(pipeline(source, router), home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        positions.detach(session.ledger, "r0", ["numbers"])
    result = muxly.run(pipeline(source, router), home=tmp_path)
    assert (result.error, result.routes["r0"].delivered, result.routes["r0"].balanced) == (None, 0, True)


def test_detached_replace_route_supersedes_nothing(tmp_path: Path) -> None:
    source, router = FakeConnector(records=100), ChaosRouter(faults=[Fault(method="deliver", action="RouteError")])
    chosen = pipeline(source, router, streams={"numbers": {"read": "full"}})
    muxly.run(chosen, home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        positions.detach(session.ledger, "r0", ["numbers"])
    for _ in range(2):
        result = muxly.run(chosen, home=tmp_path)
        assert (result.error, result.routes["r0"].balanced) == (None, True)


class Watching(CollectingRouter):
    """Waits in its second delivery until the spool has let go of the first one's segment."""

    home: Path = muxly.option("The run's home.")
    gone: ClassVar[list[bool]] = []
    first: ClassVar[list[Path]] = []

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        if not self.first:
            self.first.append(spool_files(self.home)[0])
        elif not self.gone:
            until = time.monotonic() + 20
            while self.first[0].exists() and time.monotonic() < until:
                time.sleep(0.02)
            self.gone.append(not self.first[0].exists())
        return super().deliver(delivery)


def test_retention_is_kept_to_while_a_long_run_reads_on(tmp_path: Path) -> None:
    """Else a run would need room on the disk for everything that it reads."""
    source, router = FakeConnector(records=600, batch_records=20, batch_seconds=0.05), Watching(home=tmp_path)
    chosen = pipeline(source, router, segment_bytes=2000, segment_seconds=0.0, retention_bytes=0, stall_seconds=60)
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, ids(router), Watching.gone) == ("succeeded", every(600), [True])
