"""A component that hangs is left behind: it holds up nobody, and whatever it does later does not count."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import muxly
import muxly._runner.prepared  # now: the time that it takes would count as a stall, as short as that is here
from muxly._runner.events import EventLog
from muxly.testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_rules_reading import scripted
from tests.core.runner.test_run import every, ids, pipeline


class Waking(CollectingRouter):
    """Hangs in its first delivery until it is woken, then goes on as it is told."""

    wakes: str = "returns"

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        GATES[self.wakes].wait(60)
        if not GATES[self.wakes].is_set():
            pytest.fail("nobody woke it")
        TRIED[self.wakes].append(delivery.id)
        try:
            if self.wakes == "marks":
                delivery.mark(1)
            if self.wakes == "retries":
                raise muxly.RetryableError("busy")
            if self.wakes == "refuses":
                raise muxly.RejectedError("a record is bad")
            return super().deliver(delivery)
        finally:
            ENDED[self.wakes].set()


WAYS = ("returns", "marks", "retries", "refuses")
GATES = {way: threading.Event() for way in WAYS}
ENDED = {way: threading.Event() for way in WAYS}
TRIED: dict[str, list[str]] = {way: [] for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_stalled_router_does_later_does_not_count(tmp_path: Path, way: str) -> None:
    """The run is still under way when it wakes up, and another route is busy."""
    slow = FakeConnector(records=400, batch_records=50, batch_seconds=0.7)
    woken: list[bool] = []

    def watch(active: Any) -> None:
        if any("stalled" in str(error) for error in active.failed.values()) and not woken:
            woken.append(True)
            GATES[way].set()

    chosen = pipeline(slow, Waking(wakes=way), CollectingRouter(), stall_seconds=3, segment_seconds=0.1)
    result = muxly.run(chosen, home=tmp_path, on_change=watch)
    GATES[way].set()
    assert ENDED[way].wait(10)
    assert result.state == "partial"
    assert (result.routes["r0"].delivered, result.routes["r0"].pending) == (0, 400)
    assert result.routes["r1"].delivered == 400
    assert all(route.balanced for route in result.routes.values())
    assert len(TRIED[way]) == 1
    again = muxly.run(pipeline(FakeConnector(records=400), CollectingRouter(), CollectingRouter()), home=tmp_path)
    assert again.routes["r0"].delivered == 400


def test_stalled_route_says_what_and_where_and_what_to_do_and_observers_hear_of_it(tmp_path: Path) -> None:
    log = EventLog()
    hung = ChaosRouter(faults=[Fault(method="deliver", action="hang", seconds=20)])
    result = muxly.run(pipeline(FakeConnector(), hung, stall_seconds=2), home=tmp_path, observers=[log])
    said = "route 'r0' is stalled: it made no progress for 2 s, and is left behind; look whether its destination"
    assert str(result.error).startswith(said)
    (failed,) = [record for record in log.records if record["event"] == "delivery_failed"]
    assert (failed["route"], failed["stream"], failed["message"]) == ("r0", "numbers", result.error)


def test_stalled_route_that_is_not_required_does_not_count(tmp_path: Path) -> None:
    hung = ChaosRouter(faults=[Fault(method="deliver", action="hang", seconds=20)])
    chosen = pipeline(FakeConnector(), hung, stall_seconds=2, route={"required": False})
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, "stalled" in str(result.routes["r0"].error)) == ("succeeded", True)


def test_reading_that_hangs_is_left_behind_and_what_was_sealed_is_delivered(tmp_path: Path) -> None:
    source = FakeConnector(
        records=300, batch_records=100, faults=[Fault(method="read", action="hang", at=2, seconds=20)]
    )
    router = CollectingRouter()
    result = muxly.run(pipeline(source, router, stall_seconds=2, segment_seconds=0), home=tmp_path)
    assert str(result.error).startswith("stream 'numbers': stream 'numbers' is stalled: it made no progress for 2 s")
    assert ids(router) == every(200)
    again = CollectingRouter()
    assert muxly.run(pipeline(source, again), home=tmp_path).state == "succeeded"
    assert ids(again) == [number for number in every(300) if number >= 200]


def test_check_that_hangs_in_a_dry_run_is_left_behind(tmp_path: Path) -> None:
    hung = ChaosRouter(faults=[Fault(method="check", action="hang", seconds=20)])
    result = muxly.run(pipeline(FakeConnector(), hung, stall_seconds=2), home=tmp_path, dry_run=True)
    assert (result.state, "stalled" in str(result.error)) == ("partial", True)


class Chewing(CollectingRouter):
    """Takes its batches slowly, and marks nothing."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        batches = list[object]()
        for batch in delivery.batches():
            time.sleep(0.5)
            batches.append(batch)
        assert len(batches) > 3
        return super().deliver(delivery)


def test_router_that_takes_batches_is_not_stalled(tmp_path: Path) -> None:
    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Any:
        for number in range(5):
            yield muxly.Batch([{"id": number, "text": "x" * 9_000_000}], cursor=number)

    router = Chewing()
    source = scripted([muxly.Stream("wide", ("id",), sorted=True)], batches)
    result = muxly.run(pipeline(source, router, stall_seconds=1.6), home=tmp_path)
    assert (result.state, ids(router, "wide")) == ("succeeded", every(5))


@pytest.mark.parametrize("method", ["open", "deliver"])
def test_router_that_waits_as_it_was_asked_is_not_stalled(tmp_path: Path, method: str) -> None:
    router = ChaosRouter(faults=[Fault(method=method, action="sleep", seconds=4)])
    result = muxly.run(pipeline(FakeConnector(records=100), router, stall_seconds=3.5), home=tmp_path)
    assert (result.state, ids(router)) == ("succeeded", every(100))


@pytest.mark.parametrize("method", ["open", "read"])
def test_connector_that_waits_as_it_was_asked_is_not_stalled(tmp_path: Path, method: str) -> None:
    source = FakeConnector(records=100, faults=[Fault(method=method, action="sleep", seconds=4)])
    router = CollectingRouter()
    result = muxly.run(pipeline(source, router, stall_seconds=3.5), home=tmp_path)
    assert (result.state, ids(router)) == ("succeeded", every(100))


class Polling(CollectingRouter):
    """Asks, shortly after each other, for something that never comes."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        assert self._run is not None
        while True:
            self._run.sleep(0.05)


def test_router_that_polls_for_ever_is_stalled(tmp_path: Path) -> None:
    result = muxly.run(pipeline(FakeConnector(records=100), Polling(), stall_seconds=2), home=tmp_path)
    assert (result.state, "stalled" in str(result.error)) == ("partial", True)


PROGRAM = """
import sys
import muxly._runner.prepared
from muxly.testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
kind, method = sys.argv[1:3]
faults = [Fault(method=method, action="hang", seconds=3600)]
source = FakeConnector(records=100, faults=faults if kind == "connector" else [])
router = ChaosRouter(faults=faults if kind == "router" else [])
routes = [muxly.Route("hangs", router), muxly.Route("good", CollectingRouter())]
pipeline = muxly.Pipeline("daily", source, routes=routes, stall_seconds=1.5)
print(muxly.run(pipeline, home=sys.argv[3]).state)
"""


@pytest.mark.parametrize(
    ("kind", "method"), [("router", "deliver"), ("router", "close"), ("connector", "read"), ("connector", "open")]
)
def test_process_ends_although_a_thread_hangs(tmp_path: Path, kind: str, method: str) -> None:
    command = [sys.executable, "-c", PROGRAM, kind, method, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("succeeded", "partial", "failed")
