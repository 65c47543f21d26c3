"""Runs of pipelines: reading, sealing and delivering together."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pyarrow as pa
import pytest

import muxly
from muxly._runner.execution import execute
from muxly._runner.options import Replay, RunOptions
from muxly._runner.session import Home
from muxly.router import sequence_number
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault, delivery

FAST = muxly.Backoff(first_seconds=0.001, limit_seconds=0.01, attempts=3)


def pipeline(
    connector: muxly.Connector, *routers: muxly.Router, route: dict[str, Any] | None = None, **options: Any
) -> muxly.Pipeline:
    """A pipeline with routes named r0, r1, ... that gives up after three fast attempts."""
    routes = [muxly.Route(f"r{number}", router, retry=FAST, **(route or {})) for number, router in enumerate(routers)]
    return muxly.Pipeline("daily", connector, routes=routes, retry=FAST, **options)


def ids(router: CollectingRouter, stream: str = "numbers") -> list[int]:
    """The ids that arrived, sorted."""
    return sorted(record["id"] for record in router.records(stream))


def reads(source: FakeConnector) -> int:
    """How many batches were read."""
    return [call.method for call in source.calls].count("read")


def every(count: int) -> list[int]:
    """All ids of a fake stream."""
    return list(range(count))


def test_every_route_gets_every_record_and_the_source_is_read_once(tmp_path: Path) -> None:
    source, first, second = FakeConnector(records=1000), CollectingRouter(), CollectingRouter()
    result = muxly.run(pipeline(source, first, second), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert ids(first) == ids(second) == every(1000)
    assert reads(source) == 10


def test_second_run_delivers_only_what_is_new(tmp_path: Path) -> None:
    router = CollectingRouter(token="new")
    muxly.run(pipeline(FakeConnector(records=300), router), home=tmp_path)
    result = muxly.run(pipeline(FakeConnector(records=300), router), home=tmp_path)
    assert result.routes["r0"].delivered == 0
    result = muxly.run(pipeline(FakeConnector(records=450), router), home=tmp_path)
    assert result.routes["r0"].delivered == 150
    assert ids(router) == every(450)


def test_failed_route_keeps_its_backlog_and_the_others_see_nothing_twice(tmp_path: Path) -> None:
    good, bad = CollectingRouter(), ChaosRouter(faults=[Fault(method="deliver", action="RouteError")])
    source = FakeConnector(records=200)
    chosen = pipeline(source, good, bad)
    first = muxly.run(chosen, home=tmp_path)
    assert first.state == "partial"
    assert first.routes["r1"].pending == 200
    second = muxly.run(chosen, home=tmp_path)
    assert second.state == "succeeded"
    assert (second.routes["r1"].pending_before, second.routes["r1"].delivered) == (200, 200)
    assert ids(good) == ids(bad) == every(200)
    assert reads(source) == 2


def test_route_that_is_not_required_does_not_spoil_the_run(tmp_path: Path) -> None:
    bad = ChaosRouter(faults=[Fault(method="deliver", action="RouteError")])
    result = muxly.run(pipeline(FakeConnector(), bad, route={"required": False}), home=tmp_path)
    assert result.state == "succeeded"
    assert result.routes["r0"].error is not None


def test_retryable_error_is_tried_again_under_the_same_id(tmp_path: Path) -> None:
    router = ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", after=True)])
    result = muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path)
    assert result.state == "succeeded"
    delivered = [call.key for call in router.calls if call.method == "deliver"]
    assert len(set(delivered)) == 1 < len(delivered)
    assert ids(router) == every(100)


def test_slow_route_does_not_delay_the_others(tmp_path: Path) -> None:
    slow = ChaosRouter(faults=[Fault(method="deliver", action="sleep", seconds=1.5)])
    fast = CollectingRouter()
    seen: list[float] = []
    began = time.monotonic()

    def look(active: object) -> None:
        if not seen and len(fast.records()) == 500:
            seen.append(time.monotonic() - began)

    result = muxly.run(pipeline(FakeConnector(records=500), slow, fast), home=tmp_path, on_change=look)
    assert result.state == "succeeded"
    assert seen
    assert seen[0] < 1.5 <= time.monotonic() - began


def test_bad_record_becomes_a_dead_letter_and_the_rest_is_delivered(tmp_path: Path) -> None:
    router = ChaosRouter(reject=[17, 18, 90], reject_by="error")
    result = muxly.run(pipeline(FakeConnector(records=100), router, route={"max_rejected": 3}), home=tmp_path)
    assert result.state == "succeeded"
    assert (result.routes["r0"].delivered, result.routes["r0"].rejected) == (97, 3)
    assert ids(router) == [number for number in range(100) if number not in (17, 18, 90)]


def test_receipt_tells_which_records_were_rejected(tmp_path: Path) -> None:
    router = ChaosRouter(reject=[5, 6])
    result = muxly.run(pipeline(FakeConnector(records=50), router, route={"max_rejected": 2}), home=tmp_path)
    assert (result.routes["r0"].delivered, result.routes["r0"].rejected) == (48, 2)


def test_more_rejected_records_than_allowed_stop_the_route(tmp_path: Path) -> None:
    router = ChaosRouter(reject=[5, 6])
    result = muxly.run(pipeline(FakeConnector(records=50), router, route={"max_rejected": 1}), home=tmp_path)
    assert result.state == "partial"
    assert result.routes["r0"].pending == 50
    assert "max_rejected" in str(result.routes["r0"].error)


def test_reading_goes_on_at_the_last_sealed_cursor_after_an_error(tmp_path: Path) -> None:
    source = FakeConnector(records=500, faults=[Fault(method="read", action="RetryableError", at=3)])
    router = CollectingRouter()
    result = muxly.run(pipeline(source, router), home=tmp_path)
    assert result.state == "succeeded"
    assert ids(router) == every(500)


def test_bug_in_reading_fails_the_run_and_keeps_the_cursor(tmp_path: Path) -> None:
    source = FakeConnector(records=500, faults=[Fault(method="read", action="ValueError", at=2)])
    router = CollectingRouter()
    chosen = pipeline(source, router)
    assert muxly.run(chosen, home=tmp_path).state == "failed"
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert ids(router) == every(500)


def test_spent_quota_seals_what_was_read_and_says_when_to_go_on(tmp_path: Path) -> None:
    source = FakeConnector(records=500, faults=[Fault(method="read", action="QuotaError", at=3)])
    router = CollectingRouter()
    chosen = pipeline(source, router)
    first = muxly.run(chosen, home=tmp_path)
    assert first.state == "partial"
    assert ids(router) == every(len(ids(router))) != every(500)
    second = muxly.run(chosen, home=tmp_path)
    assert second.state == "succeeded"
    assert ids(router) == every(500)


def test_full_read_replaces_what_was_there(tmp_path: Path) -> None:
    router = CollectingRouter(token="full")
    rules = {"numbers": {"read": "full"}}
    for count in (100, 40, 0):
        result = muxly.run(pipeline(FakeConnector(records=count), router, streams=rules), home=tmp_path)
        assert result.state == "succeeded", result.error
        assert [record["id"] for record in router.alive()] == every(count)


def test_replace_route_on_an_incremental_stream_names_read_full(tmp_path: Path) -> None:
    with pytest.raises(muxly.ConfigurationError, match="read: full"):
        muxly.run(pipeline(FakeConnector(), CollectingRouter(), route={"mode": "replace"}), home=tmp_path)


def test_overwrite_carries_whole_groups_and_their_values(tmp_path: Path) -> None:
    router = CollectingRouter()
    source = FakeConnector(records=1000, by_day=True, per_day=250)
    result = muxly.run(pipeline(source, router, route={"mode": "overwrite"}), home=tmp_path)
    assert result.state == "succeeded", result.error
    assert ids(router) == every(1000)


def test_children_are_delivered_as_streams_of_their_own(tmp_path: Path) -> None:
    router, source = CollectingRouter(), FakeConnector(records=60, children=True)
    result = muxly.run(pipeline(source, router), home=tmp_path)
    assert result.state == "succeeded", result.error
    assert router.records("numbers.parts") == source.expected("numbers.parts")


def test_partitions_are_read_in_parallel_and_nothing_is_lost(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = muxly.run(pipeline(FakeConnector(records=2000, partitions=8), router), home=tmp_path)
    assert result.state == "succeeded", result.error
    assert ids(router) == every(2000)


def test_unreadable_records_become_dead_letters_of_reading(tmp_path: Path) -> None:
    result = muxly.run(pipeline(FakeConnector(records=100, bad=[3, 4]), CollectingRouter()), home=tmp_path)
    assert result.streams["numbers"].rejected == 2
    assert result.streams["numbers"].sealed == 98


def test_second_run_at_once_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Held(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            entered.set()
            leave.wait(10)
            return super().deliver(delivery)

    chosen = pipeline(FakeConnector(), Held())
    thread = threading.Thread(target=lambda: muxly.run(chosen, home=tmp_path))
    thread.start()
    try:
        assert entered.wait(10)
        with pytest.raises(muxly.LeaseHeldError, match="being run by process"):
            muxly.run(chosen, home=tmp_path)
    finally:
        leave.set()
        thread.join()


def test_two_pipelines_run_at_once_in_one_process(tmp_path: Path) -> None:
    routers = [CollectingRouter(), CollectingRouter()]
    results: list[muxly.RunResult] = []

    def work(number: int) -> None:
        one = muxly.Pipeline(f"p{number}", FakeConnector(), routes=[muxly.Route("r", routers[number])])
        results.append(muxly.run(one, home=tmp_path))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.state for one in results] == ["succeeded", "succeeded"]
    assert ids(routers[0]) == ids(routers[1]) == every(1000)


def test_stop_ends_an_endless_stream_at_a_group(tmp_path: Path) -> None:
    stop, router = threading.Event(), CollectingRouter()
    source = FakeConnector(endless=True, batch_seconds=0.01)
    threading.Timer(0.5, stop.set).start()
    result = muxly.run(pipeline(source, router, segment_seconds=0.05), home=tmp_path, stop=stop)
    assert result.state == "stopped"
    assert ids(router) == every(len(ids(router)))
    assert result.routes["r0"].balanced


def test_hanging_route_is_marked_stalled_and_the_others_finish(tmp_path: Path) -> None:
    hung = ChaosRouter(faults=[Fault(method="deliver", action="hang", seconds=20)])
    good = CollectingRouter()
    result = muxly.run(pipeline(FakeConnector(), hung, good, stall_seconds=2), home=tmp_path)
    assert result.state == "partial"
    assert "stalled" in str(result.routes["r0"].error)
    assert ids(good) == every(1000)


def test_removed_route_with_a_backlog_refuses_the_run(tmp_path: Path) -> None:
    bad = ChaosRouter(faults=[Fault(method="deliver", action="RouteError")])
    muxly.run(pipeline(FakeConnector(), CollectingRouter(), bad), home=tmp_path)
    with pytest.raises(muxly.ConfigurationError, match="muxly routes rename r1 NEW"):
        muxly.run(pipeline(FakeConnector(), CollectingRouter()), home=tmp_path)


def test_limit_reads_a_part_and_moves_no_cursor(tmp_path: Path) -> None:
    router = CollectingRouter(token="limit")
    result = muxly.run(
        pipeline(FakeConnector(records=1000), router, route={"mode": "append"}), home=tmp_path, limit=150
    )
    assert result.state != "failed", result.error
    assert len(router.records()) == 150
    assert not any(tmp_path.iterdir())


def test_dry_run_delivers_nothing(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path, dry_run=True)
    assert result.routes["r0"].delivered == 100
    assert router.records() == []
    assert not any(tmp_path.iterdir())


def test_full_refresh_delivers_the_backlog_and_reads_again(tmp_path: Path) -> None:
    router = CollectingRouter(token="refresh")
    chosen = pipeline(FakeConnector(records=100), router, route={"mode": "append"})
    muxly.run(chosen, home=tmp_path)
    result = muxly.run(chosen, home=tmp_path, full_refresh=True)
    assert result.state == "succeeded", result.error
    assert len(router.records()) == 200


def test_observers_hear_of_the_run_and_never_break_it(tmp_path: Path) -> None:
    heard: list[str] = []

    class Observer:
        @muxly.hookimpl
        def muxly_run_started(self, run: muxly.Run) -> None:
            heard.append(f"started {run.pipeline}")

        @muxly.hookimpl
        def muxly_run_finished(self, result: muxly.RunResult) -> None:
            heard.append(result.state)
            raise RuntimeError("observer")

    result = muxly.run(pipeline(FakeConnector(), CollectingRouter()), home=tmp_path, observers=[Observer()])
    assert heard == ["started daily", "succeeded"]
    assert result.state == "succeeded"
    assert [notice.code for notice in result.notices] == ["observer_failed"]


def test_batch_records_cut_a_segment_into_deliveries(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = muxly.run(pipeline(FakeConnector(records=1000), router, route={"batch": {"records": 300}}), home=tmp_path)
    assert result.state == "succeeded", result.error
    assert len(router.ids) == 4
    assert ids(router) == every(1000)


def test_batch_seconds_put_segments_together(tmp_path: Path) -> None:
    patient, hasty = CollectingRouter(), CollectingRouter()
    routes = [muxly.Route("patient", patient, batch={"seconds": 30}), muxly.Route("hasty", hasty)]
    source = FakeConnector(records=1000, batch_seconds=0.02)
    chosen = muxly.Pipeline("daily", source, routes=routes, segment_bytes=4000)
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert len(patient.ids) == 1 < len(hasty.ids)
    assert ids(patient) == ids(hasty) == every(1000)


def test_stale_cursor_fails_the_stream_and_names_the_way_out(tmp_path: Path) -> None:
    router = CollectingRouter(token="stale")
    muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path)
    stale = FakeConnector(records=150, faults=[Fault(method="plan", action="StaleCursorError")])
    result = muxly.run(pipeline(stale, router), home=tmp_path)
    assert result.state == "partial"
    assert "on_stale_cursor: restart" in str(result.error)


@pytest.mark.parametrize("method", ["plan", "read"])
def test_stale_cursor_restarts_the_stream_if_that_is_allowed(tmp_path: Path, method: str) -> None:
    router = CollectingRouter()
    muxly.run(pipeline(FakeConnector(records=100), router), home=tmp_path)
    faults = [Fault(method=method, action="StaleCursorError", partition="from-100")]
    stale = FakeConnector(records=150, faults=faults)
    rules = {"numbers": {"on_stale_cursor": "restart"}}
    result = muxly.run(pipeline(stale, router, streams=rules), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert [notice.code for notice in result.notices] == ["stream_restarted"]
    assert [record["id"] for record in router.alive()] == every(150)


def test_only_the_columns_that_routes_include_are_asked_for(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Watched(FakeConnector):
        def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
            asked.append(stream.columns)
            return super().plan(stream, cursor)

    chosen = {"columns": {"include": ["id", "name", "changed_at"]}}
    muxly.run(pipeline(Watched(records=10), CollectingRouter(), route=chosen), home=tmp_path)
    assert asked == [("id", "changed_at", "name")]


class Mixed(muxly.Connector):
    """Records as an API gives them: numbers and texts in one column."""

    def streams(self) -> list[muxly.Stream]:
        import pyarrow as pa

        return [muxly.Stream("mixed", schema=pa.schema([("id", pa.int64()), ("declared", pa.date32())]))]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: Any) -> Any:
        yield muxly.Batch([{"id": 1, "v": 1}, {"id": 2, "v": "two"}, {"id": 3, "v": 3}, {"id": 4, "v": [4]}])


def test_values_of_other_types_keep_their_records_in_variant_columns(tmp_path: Path) -> None:
    router = CollectingRouter()
    result = muxly.run(pipeline(Mixed(), router), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert result.streams["mixed"].rejected == 0
    records = sorted(router.records("mixed"), key=lambda record: record["id"])
    assert [record.get("v") for record in records] == [1, None, 3, None]
    assert records[1]["v__v_text"] == "two"
    assert "4" in str(records[3])


def test_frozen_types_stop_the_stream(tmp_path: Path) -> None:
    result = muxly.run(pipeline(Mixed(), CollectingRouter(), streams={"mixed": {"new_types": "freeze"}}), home=tmp_path)
    assert result.state == "partial"
    assert "'v'" in str(result.error)


def test_discarded_records_become_dead_letters(tmp_path: Path) -> None:
    router = CollectingRouter()
    rules = {"mixed": {"new_types": "discard_record"}}
    result = muxly.run(pipeline(Mixed(), router, streams=rules), home=tmp_path)
    assert result.streams["mixed"].rejected == 2
    assert sorted(record["id"] for record in router.records("mixed")) == [1, 3]


def test_declared_columns_are_there_before_their_first_value(tmp_path: Path) -> None:
    router = CollectingRouter()
    muxly.run(pipeline(Mixed(), router), home=tmp_path)
    assert router.batches("mixed")[0].schema.names[:2] == ["id", "declared"]


def test_router_learns_its_route_and_a_token_that_grows(tmp_path: Path) -> None:
    seen: list[tuple[str | None, int]] = []

    class Curious(CollectingRouter):
        def open(self, run: muxly.Run) -> None:
            seen.append((run.route, run.token))
            super().open(run)

    for count in (1, 2):
        muxly.run(pipeline(FakeConnector(records=count), Curious()), home=tmp_path)
    assert [route for route, _token in seen] == ["r0", "r0"]
    assert 0 < seen[0][1] < seen[1][1]


def test_run_with_nothing_new_loads_neither_arrow_nor_duckdb(tmp_path: Path) -> None:
    code = f"""
import sys, muxly
from muxly_testing import FakeConnector
from pathlib import Path
class Keep(muxly.Router):
    def deliver(self, delivery): list(delivery.batches())
route = muxly.Route("r", Keep(), where="id > 3")
source = type("Once", (FakeConnector,), dict(plan=lambda self, stream, cursor: muxly.Plan((), 5) if cursor
    else FakeConnector.plan(self, stream, cursor)))
result = muxly.run(muxly.Pipeline("p", source(records=5), routes=[route]), home={str(tmp_path)!r})
assert result.state == "succeeded", result.error
print(sorted(name for name in ("pyarrow", "duckdb", "pandas", "jsonschema", "alembic") if name in sys.modules))
"""
    loaded = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    assert "pyarrow" in loaded[0]
    assert loaded[2] == "[]\n"


def test_router_sees_the_log_position_of_each_batch(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Watching(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            seen.extend((position, batch["id"][0].as_py()) for position, batch in delivery.positioned())
            return super().deliver(delivery)

    chosen = pipeline(FakeConnector(records=400), Watching(), route={"where": "id % 7 = 0"}, segment_bytes=6000)
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    positions_seen = [position for position, _first in seen]
    assert positions_seen == sorted(positions_seen)
    assert positions_seen[0] == 1 < positions_seen[-1]


class Numbering(CollectingRouter):
    """Keeps where each record stood in the log; refuses some records until it is mended."""

    refused: ClassVar[set[int]] = set()
    stood: ClassVar[dict[int, int]] = {}

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        found = {
            id: sequence
            for sequences, batch in delivery.sequenced()
            for id, sequence in zip(batch["id"].to_pylist(), sequences.to_pylist(), strict=True)
        }
        self.stood.update(found)
        return muxly.Receipt([muxly.Rejected("no", index=at) for at, id in enumerate(found) if id in self.refused])


def test_record_stands_at_the_same_place_of_the_log_when_it_is_delivered_again(tmp_path: Path) -> None:
    Numbering.refused, Numbering.stood = {21, 28}, {}
    chosen = pipeline(
        FakeConnector(records=400), Numbering(), route={"where": "id % 7 = 0", "max_rejected": 2}, segment_bytes=6000
    )
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    first = Numbering.stood
    assert list(first) == list(range(0, 400, 7))
    assert list(first.values()) == sorted(first.values())
    assert (first[21], first[28]) == (sequence_number(1, 21), sequence_number(1, 28))
    Numbering.refused, Numbering.stood = set(), {}
    muxly.run(chosen, home=tmp_path, replay=Replay(route="r0", dead_letters=True)).raise_for_status()
    assert Numbering.stood == {21: first[21], 28: first[28]}


def test_sequence_numbers_grow_along_the_log_and_skip_what_is_delivered() -> None:
    whole = delivery(pa.table({"id": [1, 2, 3]}), batch_records=2)
    placed = attrs.evolve(whole, source=attrs.evolve(whole.source, positions=lambda: [4, 4]))
    numbers = [sequences.to_pylist() for sequences, _batch in placed.sequenced()]
    assert numbers == [[sequence_number(4, 0), sequence_number(4, 1)], [sequence_number(4, 2)]]
    assert max(numbers[-1]) < sequence_number(5, 0)
    assert [one.to_pylist() for one, _batch in attrs.evolve(whole, delivered=1).sequenced()] == [[1], [2]]


class Asking(CollectingRouter):
    """Keeps what it is told of its run."""

    told: ClassVar[list[tuple[str | None, bool]]] = []

    def open(self, run: muxly.Run) -> None:
        self.told.append((run.route, run.guarded))
        super().open(run)


@pytest.mark.parametrize("guarded", [False, True])
def test_router_knows_whether_somebody_else_wrote_the_configuration(tmp_path: Path, guarded: bool) -> None:
    Asking.told.clear()
    execute(pipeline(FakeConnector(), Asking()), Home(folder=tmp_path), RunOptions(guarded=guarded))
    assert Asking.told == [("r0", guarded)]
