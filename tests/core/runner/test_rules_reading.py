"""Rules of reading and sealing (1 to 5), where a connector, a store or a user does the unexpected."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly._runner.extract import committer
from muxly._runner.extract import partition as reading
from muxly._runner.session import Home, open_session
from muxly._runner.threads import DaemonThreads
from muxly.store import dead_letters, plans, seals
from muxly.store.ledger import Ledger
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import every, ids, pipeline, reads


class Scripted(muxly.Connector):
    """Streams, plans and batches as a test gives them."""

    shown: Any = None
    planned: Any = None
    batches: Any = None

    def streams(self) -> Iterable[muxly.Stream]:
        """As given."""
        return list(self.shown)

    def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        """As given."""
        return self.planned(stream, cursor) if self.planned else super().plan(stream, cursor)

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        """As given."""
        yield from self.batches(stream, partition, cursor)


def scripted(streams: list[muxly.Stream], batches: Any, plan: Any = None) -> Scripted:
    """A connector of those streams, batches and plans."""
    connector = Scripted()
    connector.shown, connector.batches, connector.planned = streams, batches, plan
    return connector


def with_busy_store(monkeypatch: pytest.MonkeyPatch, times: int, after: int = 0) -> None:
    """Let sealing fail, as a store does that is busy for a moment."""
    left = [after, times]

    def busy(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
        elif left[1]:
            left[1] -= 1
            raise muxly.RetryableError("the store is locked by another process")
        return seals.seal(*arguments)

    class Seals:
        seal = staticmethod(busy)

    monkeypatch.setattr(committer, "seals", Seals)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_group_that_the_store_did_not_take_is_read_again_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, in_order: bool
) -> None:
    with_busy_store(monkeypatch, 1, after)
    router = CollectingRouter()
    source = FakeConnector(records=1000, in_order=in_order)
    result = muxly.run(pipeline(source, router, segment_bytes=3000, route={"mode": "append"}), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert ids(router) == every(1000)


def test_ties_of_a_group_that_the_store_did_not_take_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group that fails ends at the cursor it began at, so that only its records tell them apart."""
    with_busy_store(monkeypatch, 1, after=1)

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        for number in range(6):
            yield muxly.Batch([{"id": number, "at": 5}], cursor=5)

    stream = muxly.Stream("ties", ("id",), cursor_field="at", sorted=True)
    router = CollectingRouter()
    chosen = pipeline(scripted([stream], batches), router, segment_seconds=0, route={"mode": "append"})
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert sorted(record["id"] for record in router.records("ties")) == every(6)


def test_stale_cursor_restarts_a_stream_once_in_a_run(tmp_path: Path) -> None:
    source = FakeConnector(faults=[Fault(method="read", action="StaleCursorError", times=0)])
    rules = {"numbers": {"on_stale_cursor": "restart"}}
    result = muxly.run(pipeline(source, CollectingRouter(), streams=rules), home=tmp_path)
    assert result.state == "partial"
    assert "already restarted once in this run" in str(result.error)


@pytest.mark.parametrize("contract", ["freeze", "discard_record"])
def test_contract_for_new_streams_holds_in_every_run(tmp_path: Path, contract: str) -> None:
    router = CollectingRouter()
    muxly.run(pipeline(FakeConnector(names=["one"], records=10), router), home=tmp_path)
    for _ in range(3):
        more = pipeline(FakeConnector(names=["one", "two"], records=20), router, new_streams=contract)
        result = muxly.run(more, home=tmp_path)
        assert router.records("two") == []
        assert result.routes["r0"].balanced
    taken = pipeline(FakeConnector(names=["one", "two"], records=20), router, new_streams="evolve")
    with open_session(Home(folder=tmp_path), "daily", command="state reset") as session:
        plans.set_cursor(session.ledger, "two", None)
    muxly.run(taken, home=tmp_path)
    assert len(router.records("two")) == 20


def test_discarded_records_of_a_new_stream_are_not_read_twice(tmp_path: Path) -> None:
    muxly.run(pipeline(FakeConnector(names=["one"], records=10), CollectingRouter()), home=tmp_path)
    for _ in range(2):
        more = FakeConnector(names=["one", "two"], records=20)
        muxly.run(pipeline(more, CollectingRouter(), new_streams="discard_record"), home=tmp_path)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert dead_letters.count(session.ledger) == {("", "two"): 20}


def test_values_that_are_overwritten_come_whole_also_when_records_repeat(tmp_path: Path) -> None:
    """A report's last days are read again; a day that is replaced needs its unchanged records too."""
    versions = [{1: "a", 2: "b"}, {1: "a", 2: "changed"}]

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        records = [{"id": key, "day": 7, "value": value} for key, value in versions[0].items()]
        yield muxly.Batch(records, cursor=7)

    stream = muxly.Stream("days", ("id",), overwrite_key="day", cursor_field="day", lookback=None)
    router = CollectingRouter()
    chosen = pipeline(scripted([stream], batches), router, route={"mode": "overwrite"})
    for _ in range(2):
        assert muxly.run(chosen, home=tmp_path).state == "succeeded"
        versions.append(versions.pop(0))
    found = {record["id"]: record["value"] for record in router.records("days")}
    assert found == {1: "a", 2: "changed"}


def test_two_partitions_of_one_name_are_refused(tmp_path: Path) -> None:
    def plan(stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        return muxly.Plan((muxly.Partition("a"), muxly.Partition("a")))

    source = scripted([muxly.Stream("one")], lambda *given: [], plan)
    result = muxly.run(pipeline(source, CollectingRouter()), home=tmp_path)
    assert "two partitions named 'a'" in str(result.error)


@pytest.mark.parametrize("name", ["nul\0nul", "not \udcff UTF-8", '"quoted"', "ünïcode", "", "\u0001"])
def test_partition_may_have_any_name(tmp_path: Path, store_url: str, name: str) -> None:
    seen: list[str] = []

    def plan(stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        return muxly.Plan((muxly.Partition(name), muxly.Partition("other")))

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        seen.append(partition.id)
        if partition.id == name and seen.count(name) == 1:
            raise muxly.StreamError("not now")
        yield muxly.Batch([{"id": 1}], cursor=1, rejected=[muxly.Rejected("bad\0 \udcff", place=f"{name}:1")])

    source = scripted([muxly.Stream("one")], batches, plan)
    router = CollectingRouter()
    chosen = pipeline(source, router, parallel=1)
    assert muxly.run(chosen, home=tmp_path, store=store_url).state == "partial"
    assert muxly.run(chosen, home=tmp_path, store=store_url).error is None
    assert seen[:2] == [name, name] or name in seen[1:]
    with open_session(Home(folder=tmp_path, store=store_url), "daily", command="test") as session:
        cursor = plans.stream_cursor(session.ledger, "one")
    assert cursor[name] == 1


def test_full_read_does_not_go_on_with_the_plan_of_an_incremental_one(tmp_path: Path) -> None:
    router = CollectingRouter(token=f"switch {tmp_path}")
    muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path)
    breaks = Fault(method="read", action="StreamError", at=2)
    muxly.run(pipeline(FakeConnector(records=400, faults=[breaks]), router), home=tmp_path)
    whole = CollectingRouter()
    rules = {"numbers": {"read": "full"}}
    result = muxly.run(pipeline(FakeConnector(records=400), whole, streams=rules), home=tmp_path)
    assert result.state == "succeeded"
    assert ids(whole) == every(400)


def test_child_that_is_not_shown_is_emptied_by_a_full_read_without_its_records(tmp_path: Path) -> None:
    parts = [{"id": 1, "part": 1}]

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        yield muxly.Batch([{"id": 1}])
        if parts:
            yield muxly.Batch(parts, stream="deals.parts")

    router = CollectingRouter()
    chosen = pipeline(scripted([muxly.Stream("deals")], batches), router, streams={"*": {"read": "full"}})
    muxly.run(chosen, home=tmp_path)
    assert router.records("deals.parts") == [{"id": 1, "part": 1}]
    parts.clear()
    muxly.run(chosen, home=tmp_path)
    assert router.records("deals.parts") == []


def test_selected_stream_brings_its_children_with_their_keys(tmp_path: Path) -> None:
    source, router = FakeConnector(records=20, children=True), CollectingRouter()
    assert muxly.run(pipeline(source, router), home=tmp_path, select=["numbers"]).state == "succeeded"
    assert router.records("numbers.parts")
    modes = {call.key: call for call in router.calls if call.stream == "numbers.parts"}
    assert modes
    again = pipeline(FakeConnector(records=30, children=True), router, route={"mode": "upsert"})
    assert muxly.run(again, home=tmp_path, select=["numbers"]).error is None


def test_child_alone_cannot_be_selected(tmp_path: Path) -> None:
    chosen = pipeline(FakeConnector(records=20, children=True), CollectingRouter())
    with pytest.raises(muxly.ConfigurationError, match=r"is read together with stream 'numbers'.*select it too"):
        muxly.run(chosen, home=tmp_path, select=["numbers.parts"])


def test_plan_that_hangs_is_left_behind(tmp_path: Path) -> None:
    source = FakeConnector(faults=[Fault(method="plan", action="hang", seconds=20)])
    began = time.monotonic()
    result = muxly.run(pipeline(source, CollectingRouter(), stall_seconds=2), home=tmp_path)
    assert time.monotonic() - began < 10
    assert (result.state, "stalled" in str(result.error)) == ("partial", True)


def test_waiting_as_the_source_asked_is_not_a_stall(tmp_path: Path) -> None:
    asks = Fault(method="read", action="RetryableError", at=1, retry_after=4)
    router = CollectingRouter()
    chosen = pipeline(FakeConnector(records=300, faults=[asks]), router, stall_seconds=2)
    result = muxly.run(chosen, home=tmp_path)
    assert (result.state, ids(router)) == ("succeeded", every(300))


def test_tasks_that_come_at_once_are_done_at_once() -> None:
    """A thread that was free when the first task came does not count for the second one."""
    for _ in range(50):
        pool = DaemonThreads(4, "test")
        together = threading.Barrier(4, timeout=5)
        for future in [pool.submit(together.wait) for _ in range(4)]:
            future.result()
        together.reset()
        for future in [pool.submit(together.wait) for _ in range(4)]:
            future.result()
        pool.shutdown(wait=True)


def test_watcher_that_raises_does_not_stop_the_run(tmp_path: Path) -> None:
    router = CollectingRouter()

    def watch(active: object) -> None:
        raise BrokenPipeError("stdout is closed")

    result = muxly.run(pipeline(FakeConnector(), router, stall_seconds=5), home=tmp_path, on_change=watch)
    assert (result.state, ids(router)) == ("succeeded", every(1000))
    assert [notice.code for notice in result.notices] == ["observer_failed"]


def test_limit_holds_over_all_partitions(tmp_path: Path) -> None:
    router = CollectingRouter()
    source = FakeConnector(records=4000, partitions=8, batch_records=50)
    muxly.run(pipeline(source, router, parallel=8), home=tmp_path, limit=75)
    assert len(router.records()) == 75


def test_unsorted_partition_of_many_segments_keeps_few_files_open(tmp_path: Path) -> None:
    import os

    most = [0]

    def watch(active: object) -> None:
        most[0] = max(most[0], len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names, not paths

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        for number in range(60):
            yield muxly.Batch([{"id": number, "text": os.urandom(700_000).hex()}])

    router = CollectingRouter()
    chosen = pipeline(scripted([muxly.Stream("big")], batches), router, segment_bytes=1_300_000)
    result = muxly.run(chosen, home=tmp_path, on_change=watch)
    assert (result.state, len(router.records("big"))) == ("succeeded", 60)
    assert most[0] - before < 30


def test_lookback_and_retry_drop_repeats_once(tmp_path: Path) -> None:
    breaks = Fault(method="read", action="RetryableError", at=3)
    router = CollectingRouter()
    source = FakeConnector(records=500, faults=[breaks])
    chosen = pipeline(source, router, segment_seconds=0, route={"mode": "append"})
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert ids(router) == every(500)
    assert reads(source) == 6


def test_dead_router_and_a_busy_store_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_busy_store(monkeypatch, 2, after=2)
    router = ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", at=1, times=2, after=True)])
    source = FakeConnector(records=1000, partitions=3)
    chosen = pipeline(source, router, segment_bytes=4000, route={"mode": "append"})
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert ids(router) == every(1000)


def test_records_that_cannot_be_read_do_not_pile_up_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source may give nothing else; they are sealed as they come, like records."""
    monkeypatch.setattr(reading, "_MOST_LETTERS", 10)
    kept: list[int] = []

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Any:
        for number in range(20):
            rejected = [muxly.Rejected("no record", record=f"{number} {line}") for line in range(5)]
            yield muxly.Batch(cursor=number, rejected=rejected)
        engine = Home(folder=tmp_path).engine()
        kept.append(sum(dead_letters.count(Ledger(engine, "daily")).values()))
        engine.dispose()

    source = scripted([muxly.Stream("lines", sorted=True)], batches)
    result = muxly.run(pipeline(source, CollectingRouter()), home=tmp_path)
    assert (result.error, result.streams["lines"].rejected) == (None, 100)
    assert kept[0] >= 80
