"""Rules of delivering (6 to 12), where a router, a disk or a user does the unexpected."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly._runner.options import Replay
from muxly._runner.session import Home, open_session
from muxly.store import accounts, acknowledge, dead_letters, deliveries, positions, retention
from muxly.store.schema.tables import segments
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_rules_reading import scripted
from tests.core.runner.test_run import every, ids, pipeline
from tests.core.runner.test_run_faults import DOWN, spool_files


def session(home: Path) -> Any:
    """The right to write, as a command has it."""
    return open_session(Home(folder=home), "daily", command="test")


def growing_days(parts: int) -> Any:
    """A stream whose one day comes in many segments of one group."""

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Any:
        for number in range(parts):
            yield muxly.Batch([{"id": number, "day": 7}])

    return scripted([muxly.Stream("days", ("id",), overwrite_key="day")], batches)


def test_group_of_many_segments_is_overwritten_as_a_whole(tmp_path: Path) -> None:
    router = CollectingRouter()
    chosen = pipeline(growing_days(1100), router, segment_bytes=1, route={"mode": "overwrite"})
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert len(router.ids) == 1
    assert sorted(record["id"] for record in router.records("days")) == every(1100)


def test_group_with_a_damaged_part_names_it(tmp_path: Path) -> None:
    muxly.run(
        pipeline(growing_days(5), ChaosRouter(faults=DOWN), segment_bytes=1, route={"mode": "overwrite"}), home=tmp_path
    )
    with session(tmp_path) as one:
        positions.replay(one.ledger, "r0", "days", 0)
        retention.quarantine(one.ledger, retention.log(one.ledger, "days")[2])
    mended = pipeline(growing_days(0), CollectingRouter(), route={"mode": "overwrite"})
    result = muxly.run(mended, home=tmp_path)
    assert "the segment 3 of stream 'days' is quarantined" in str(result.routes["r0"].error)


@pytest.mark.parametrize("by", ["receipt", "error"])
def test_dead_letters_that_are_refused_again_stay_dead_letters_and_block_nothing(tmp_path: Path, by: str) -> None:
    token = f"refused {tmp_path}"
    strict = ChaosRouter(reject=[3, 7, 8], token=token)
    muxly.run(pipeline(FakeConnector(records=20), strict, route={"max_rejected": 3}), home=tmp_path)
    half = pipeline(FakeConnector(records=20), ChaosRouter(reject=[7], reject_by=by, token=token))
    result = muxly.run(half, home=tmp_path, replay=Replay(route="r0", dead_letters=True))
    assert (result.error, result.routes["r0"].balanced) == (None, True)
    assert (result.routes["r0"].delivered, result.routes["r0"].rejected) == (2, 1)
    after = muxly.run(pipeline(FakeConnector(records=30), ChaosRouter(token=token)), home=tmp_path)
    assert (after.state, after.routes["r0"].delivered) == ("succeeded", 10)
    with session(tmp_path) as one:
        assert dead_letters.count(one.ledger) == {("r0", "numbers"): 1}
    healed = pipeline(FakeConnector(records=30), ChaosRouter(token=token))
    assert muxly.run(healed, home=tmp_path, replay=Replay(route="r0", dead_letters=True)).routes["r0"].delivered == 1


def test_many_dead_letters_are_delivered_in_pieces(tmp_path: Path) -> None:
    strict = ChaosRouter(reject=list(range(2500)))
    muxly.run(pipeline(FakeConnector(records=2500), strict, route={"max_rejected": 2500}), home=tmp_path)
    lenient = CollectingRouter()
    again = pipeline(FakeConnector(records=2500), lenient)
    result = muxly.run(again, home=tmp_path, replay=Replay(route="r0", dead_letters=True))
    assert (result.routes["r0"].delivered, ids(lenient)) == (2500, every(2500))
    assert len(lenient.ids) == 3


def test_dead_letters_that_were_marked_before_one_is_refused_arrive_once(tmp_path: Path) -> None:
    class Stepwise(CollectingRouter):
        seen: Any = None

        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            for record in delivery.records():
                if record["id"] == 8:
                    raise muxly.RejectedError("not eight")
                self.seen.append(record["id"])
                delivery.mark(delivery.delivered + 1)
            return None

    seen: list[int] = []
    strict = ChaosRouter(reject=[3, 7, 8, 9])
    muxly.run(pipeline(FakeConnector(records=20), strict, route={"max_rejected": 4}), home=tmp_path)

    class Shared(Stepwise):
        def __deepcopy__(self, memo: object) -> Any:
            return self

    shared = Shared()
    shared.seen = seen
    result = muxly.run(
        pipeline(FakeConnector(records=20), shared), home=tmp_path, replay=Replay(route="r0", dead_letters=True)
    )
    assert (result.error, seen) == (None, [3, 7, 9])
    assert (result.routes["r0"].delivered, result.routes["r0"].rejected) == (3, 1)


@pytest.mark.parametrize("by", ["receipt", "error"])
def test_reason_of_any_characters_is_kept(tmp_path: Path, store_url: str, by: str) -> None:
    strange = "nul \0 and \ud800"

    class Odd(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            if by == "error":
                raise muxly.RejectedError(strange)
            return muxly.Receipt([muxly.Rejected(strange, index=0)])

    chosen = pipeline(FakeConnector(records=1), Odd(), route={"max_rejected": 1})
    result = muxly.run(chosen, home=tmp_path, store=store_url)
    assert (result.state, result.routes["r0"].rejected) == ("succeeded", 1)
    with open_session(Home(folder=tmp_path, store=store_url), "daily", command="test") as one:
        assert [kept.letter.reason for kept in dead_letters.waiting(one.ledger)] == ["nul \\0 and \\ud800"]


def test_error_of_any_characters_ends_a_run_in_order(tmp_path: Path, store_url: str) -> None:
    class Odd(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            raise muxly.RouteError("nul \0 and \ud800")

    result = muxly.run(pipeline(FakeConnector(records=1), Odd()), home=tmp_path, store=store_url)
    assert result.state == "partial"


def test_router_cannot_mark_more_than_there_is(tmp_path: Path) -> None:
    class Greedy(CollectingRouter):
        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            delivery.mark(1000)
            raise muxly.RetryableError("lost")

    result = muxly.run(pipeline(FakeConnector(records=100), Greedy()), home=tmp_path)
    assert result.routes["r0"].delivered == 0
    assert "marks 1000 records" in str(result.routes["r0"].error)


def test_delivery_whose_segments_are_not_all_there_is_not_called_delivered(tmp_path: Path) -> None:
    lost = ChaosRouter(faults=[Fault(method="deliver", action="RouteError", times=0)])
    muxly.run(pipeline(FakeConnector(records=300), lost, segment_bytes=2000), home=tmp_path)
    with session(tmp_path) as one, one.ledger.write() as connection:
        connection.execute(segments.delete().where(segments.c.position == 2))
    result = muxly.run(pipeline(FakeConnector(records=300), CollectingRouter()), home=tmp_path)
    assert result.routes["r0"].delivered == 0
    assert "but the spool holds only" in str(result.routes["r0"].error)


def test_empty_spool_file_is_quarantined(tmp_path: Path) -> None:
    muxly.run(pipeline(FakeConnector(records=100), ChaosRouter(faults=DOWN)), home=tmp_path)
    spool_files(tmp_path)[0].write_bytes(b"")
    result = muxly.run(pipeline(FakeConnector(records=100), CollectingRouter()), home=tmp_path)
    assert result.routes["r0"].quarantined == 100
    assert "is 0 bytes long" in str(result.routes["r0"].error)


def test_waiting_as_the_destination_asked_is_not_a_stall(tmp_path: Path) -> None:
    asks = Fault(method="deliver", action="RetryableError", retry_after=4)
    router = ChaosRouter(faults=[asks])
    result = muxly.run(pipeline(FakeConnector(records=100), router, stall_seconds=2), home=tmp_path)
    assert (result.state, ids(router)) == ("succeeded", every(100))


def test_router_that_hangs_is_left_behind(tmp_path: Path) -> None:
    methods = ("open", "deliver", "begin", "complete", "close")
    hanging = [ChaosRouter(faults=[Fault(method=method, action="hang", seconds=20)]) for method in methods]
    good = CollectingRouter()
    full = {"numbers": {"read": "full"}}
    began = time.monotonic()
    chosen = pipeline(FakeConnector(records=100), *hanging, good, stall_seconds=1.5, streams=full)
    result = muxly.run(chosen, home=tmp_path)
    assert time.monotonic() - began < 18
    assert ids(good) == every(100)
    assert result.state == "partial"
    for number, method in enumerate(methods):
        error = result.routes[f"r{number}"].error
        assert (error is None) if method == "close" else ("stalled" in str(error)), method


def test_stream_that_stalls_is_seen_beside_one_that_goes_on(tmp_path: Path) -> None:
    class Two(ChaosRouter):
        concurrency = 2

    hangs = Fault(method="deliver", action="hang", stream="one", seconds=20)
    router = Two(faults=[hangs])
    source = FakeConnector(names=["one", "two"], records=4000, batch_seconds=0.05, batch_records=100)
    chosen = pipeline(source, router, stall_seconds=1, segment_seconds=0, parallel=2)
    began = time.monotonic()
    result = muxly.run(chosen, home=tmp_path)
    assert time.monotonic() - began < 15
    assert "stalled" in str(result.routes["r0"].streams["one"].error)


@pytest.mark.parametrize("method", ["open", "begin", "deliver", "complete"])
def test_retryable_error_of_any_call_is_tried_again(tmp_path: Path, method: str) -> None:
    router = ChaosRouter(faults=[Fault(method=method, action="RetryableError", times=2)])
    full = {"numbers": {"read": "full"}}
    result = muxly.run(pipeline(FakeConnector(records=100), router, streams=full), home=tmp_path)
    assert (result.state, ids(router)) == ("succeeded", every(100))


def test_replay_does_not_skip_what_waits(tmp_path: Path) -> None:
    muxly.run(pipeline(FakeConnector(records=300), ChaosRouter(faults=DOWN), segment_bytes=2000), home=tmp_path)
    chosen = pipeline(FakeConnector(records=300), CollectingRouter())
    with pytest.raises(muxly.ConfigurationError, match="is at position 0 of stream 'numbers'"):
        muxly.run(chosen, home=tmp_path, replay=Replay(route="r0", after=2))


def test_overwrite_with_zero_records_empties_the_value(tmp_path: Path) -> None:
    given = [[{"id": 1, "day": 7}], []]

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Any:
        yield muxly.Batch(given.pop(0), replaces=[7], cursor=7)

    stream = muxly.Stream("days", ("id",), overwrite_key="day")
    router = CollectingRouter()
    chosen = pipeline(scripted([stream], batches), router, route={"mode": "overwrite"})
    muxly.run(chosen, home=tmp_path)
    assert len(router.records("days")) == 1
    muxly.run(chosen, home=tmp_path)
    assert router.records("days") == []


def test_concurrent_streams_of_one_route_share_the_limit_of_dead_letters(tmp_path: Path) -> None:
    class Two(ChaosRouter):
        concurrency = 4

    source = FakeConnector(names=["a", "b", "c", "d"], records=50)
    router = Two(reject=[1])
    result = muxly.run(pipeline(source, router, route={"max_rejected": 2}), home=tmp_path)
    assert result.routes["r0"].rejected == 2
    assert result.routes["r0"].balanced
    assert result.state == "partial"


def test_route_with_a_store_that_is_away_ends_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*given: object) -> tuple[int, int]:
        raise muxly.errors.StoreError("the store is away")

    monkeypatch.setattr(accounts, "waiting_size", away)
    chosen = pipeline(
        FakeConnector(records=300, batch_seconds=0.1), CollectingRouter(), route={"batch": {"seconds": 9}}
    )
    result = muxly.run(chosen, home=tmp_path)
    assert "the store is away" in str(result.routes["r0"].error)


def test_two_routes_that_would_replace_each_others_records_are_refused(tmp_path: Path) -> None:
    same = [CollectingRouter(token="one place"), CollectingRouter(token="one place")]
    full = {"numbers": {"read": "full"}}
    with pytest.raises(muxly.ConfigurationError, match="'r0' and 'r1' both replace the records of stream 'numbers'"):
        muxly.run(pipeline(FakeConnector(), *same, streams=full), home=tmp_path)
    apart = [muxly.Route("r0", same[0], streams="one"), muxly.Route("r1", same[1], streams="two")]
    source = FakeConnector(names=["one", "two"], records=20)
    rules = {"*": {"read": "full"}}
    assert muxly.run(muxly.Pipeline("apart", source, routes=apart, streams=rules), home=tmp_path).state == "succeeded"


def test_two_routes_may_append_to_one_place(tmp_path: Path) -> None:
    same = [CollectingRouter(token="shared"), CollectingRouter(token="shared")]
    chosen = pipeline(FakeConnector(records=20), *same, route={"mode": "append"})
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    assert len(same[0].records()) == 40


@pytest.mark.parametrize(("module", "name"), [(acknowledge, "acknowledge"), (deliveries, "following")])
def test_store_that_is_busy_for_a_moment_costs_no_second_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """The next run would deliver again what is at the destination already."""
    real, busy = getattr(module, name), [1, 2]

    def sometimes(*given: Any, **named: Any) -> Any:
        if busy:
            busy.pop()
            raise muxly.RetryableError("the store is locked by another process")
        return real(*given, **named)

    monkeypatch.setattr(module, name, sometimes)
    router = CollectingRouter()
    result = muxly.run(pipeline(FakeConnector(records=10), router), home=tmp_path)
    assert (result.state, result.error, busy) == ("succeeded", None, [])
    assert [call.method for call in router.calls].count("deliver") == 1


def test_store_that_is_busy_while_a_delivery_is_split_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, busy = deliveries.split, [1, 2]

    def sometimes(*given: Any) -> Any:
        if busy:
            busy.pop()
            raise muxly.RetryableError("the store is locked by another process")
        return real(*given)

    monkeypatch.setattr(deliveries, "split", sometimes)
    router = ChaosRouter(reject=[3], reject_by="error")
    result = muxly.run(pipeline(FakeConnector(records=10), router, route={"max_rejected": 1}), home=tmp_path)
    assert (result.state, result.routes["r0"].rejected, len(ids(router))) == ("succeeded", 1, 9)


def test_dead_letters_from_before_and_after_a_column_changed_its_type_are_delivered_apart(tmp_path: Path) -> None:
    """2**60 + 1 is no float64: no schema holds it beside 0.5."""
    seen: list[list[Any]] = []

    class Picky(CollectingRouter):
        mended: bool = False

        def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
            if not self.mended:
                return muxly.Receipt([muxly.Rejected("no", index=at) for at, _ in enumerate(delivery.records())])
            seen.append([record["x"] for record in delivery.records()])
            return None

    def given(*values: Any) -> Any:
        batches = lambda stream, partition, cursor: [muxly.Batch([{"x": value}]) for value in values]  # noqa: E731
        return scripted([muxly.Stream("xs")], batches)

    for values in ((2**60 + 1, 7), (0.5,)):
        muxly.run(pipeline(given(*values), Picky(), route={"max_rejected": 9, "mode": "append"}), home=tmp_path)
    mended = pipeline(given(), Picky(mended=True), route={"mode": "append"})
    result = muxly.run(mended, home=tmp_path, replay=Replay(route="r0", dead_letters=True))
    assert (result.state, result.error, result.routes["r0"].delivered) == ("succeeded", None, 3)
    assert sorted(value for values in seen for value in values) == [0.5, 7, 2**60 + 1]
