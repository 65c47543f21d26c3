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
import muxly._runner.deliver.segment_delivery  # now: its import would count as a stall, as short as that is here
from muxly._runner.events import EventLog
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
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


def test_whatever_a_stalled_router_does_later_does_not_count(tmp_path: Path) -> None:
    """The run is still under way when they wake up, and another route is busy."""
    slow = FakeConnector(records=400, batch_records=50, batch_seconds=0.7)
    names = {way: f"r{number}" for number, way in enumerate(WAYS)}

    def watch(context: Any) -> None:
        stalled = {
            name for (name, _stream), error in list(context.failures.deliveries.items()) if "stalled" in str(error)
        }
        for way, name in names.items():
            if name in stalled:
                GATES[way].set()

    routers = [Waking(wakes=way) for way in WAYS]
    chosen = pipeline(slow, *routers, CollectingRouter(), stall_seconds=3, segment_seconds=0.1)
    result = muxly.run(chosen, home=tmp_path, on_change=watch)
    assert result.state == "partial"
    assert result.routes["r4"].delivered == 400
    assert all(route.balanced for route in result.routes.values())
    for way, name in names.items():
        assert ENDED[way].wait(10), way
        assert (result.routes[name].delivered, result.routes[name].pending) == (0, 400), way
        assert len(TRIED[way]) == 1, way
    again = pipeline(FakeConnector(records=400), *[CollectingRouter() for _ in range(5)])
    assert {route.delivered for route in muxly.run(again, home=tmp_path).routes.values()} == {0, 400}


def test_stalled_route_says_what_and_where_and_what_to_do_and_observers_hear_of_it(tmp_path: Path) -> None:
    log = EventLog()
    hung = ChaosRouter(faults=[Fault(method="deliver", action="hang", seconds=20)])
    result = muxly.run(pipeline(FakeConnector(), hung, stall_seconds=2), home=tmp_path, observers=[log])
    said = "route 'r0' is stalled: it made no progress for 2 s, and was abandoned; check that its destination"
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


def test_router_that_waits_as_it_was_asked_is_not_stalled(tmp_path: Path) -> None:
    routers = [ChaosRouter(faults=[Fault(method=method, action="sleep", seconds=4)]) for method in ("open", "deliver")]
    result = muxly.run(pipeline(FakeConnector(records=100), *routers, stall_seconds=3.5), home=tmp_path)
    assert (result.state, *map(ids, routers)) == ("succeeded", every(100), every(100))


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
import muxly._runner.deliver.segment_delivery
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
kind, method = sys.argv[1:3]
faults = [Fault(method=method, action="hang", seconds=3600)]
source = FakeConnector(records=100, faults=faults if kind == "connector" else [])
router = ChaosRouter(faults=faults if kind == "router" else [])
routes = [muxly.Route("hangs", router), muxly.Route("good", CollectingRouter())]
pipeline = muxly.Pipeline("daily", source, routes=routes, stall_seconds=1.5)
print(muxly.run(pipeline, home=sys.argv[3]).state)
"""


def test_process_ends_although_a_thread_hangs(tmp_path: Path) -> None:
    hanging = [("router", "deliver"), ("router", "close"), ("connector", "read"), ("connector", "open")]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind, method, str(tmp_path / f"{kind}-{method}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind, method in hanging
    ]
    try:
        for process, what in zip(started, hanging, strict=True):
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, ""), what
            assert out.strip() in ("succeeded", "partial", "failed"), what
    finally:
        for process in started:
            process.kill()
