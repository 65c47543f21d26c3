"""The fake connector does what its script says, and its records follow from their numbers."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly_testing import Call, FakeConnector, Fault


def read(connector: FakeConnector, cursor: Any = None, stream: str = "numbers") -> tuple[list[dict[str, Any]], Any]:
    """All records of a stream from a cursor on, and the stream's next cursor."""
    (chosen,) = (candidate for candidate in connector.streams() if candidate.name == stream)
    plan = connector.plan(chosen, cursor)
    batches = [batch for part in plan.partitions for batch in connector.read(chosen, part, part.cursor)]
    tables = [batch.to_arrow()[0] for batch in batches if batch.stream is None]
    return [record for table in tables for record in table.to_pylist()], plan.cursor


def test_records_are_the_same_everywhere() -> None:
    """Another test, in another language, may rely on them."""
    record = FakeConnector(seed=7).expected("deals")[3]
    assert (record["id"], record["name"], record["day"]) == (3, "deals-3", date(2024, 1, 1))
    assert record["amount"] == FakeConnector(seed=7).expected("deals")[3]["amount"]
    assert record["amount"] != FakeConnector(seed=8).expected("deals")[3]["amount"]


@pytest.mark.parametrize("arrow", [True, False])
def test_everything_that_is_expected_is_read(arrow: bool) -> None:
    connector = FakeConnector(records=60, batch_records=7, partitions=4, arrow=arrow)
    assert read(connector)[0] == connector.expected()


def test_growing_source_gives_only_what_is_new() -> None:
    _, cursor = read(FakeConnector(records=30))
    records, cursor = read(FakeConnector(records=45), cursor)
    assert [record["id"] for record in records] == list(range(30, 45))
    assert read(FakeConnector(records=45), cursor) == ([], cursor)


@pytest.mark.parametrize("kind", ["number", "text", "datetime", "decimal", "mapping"])
def test_cursors_of_every_kind_continue_where_they_were(kind: str) -> None:
    _, cursor = read(FakeConnector(records=30, cursor_kind=kind))
    assert [record["id"] for record in read(FakeConnector(records=33, cursor_kind=kind), cursor)[0]] == [30, 31, 32]


def test_script_changes_columns_types_and_records() -> None:
    connector = FakeConnector(records=12, batch_records=4, extra_from=4, text_from=8, gone=[0], deleted=[5], bad=[6])
    records = {record["id"]: record for record in read(connector)[0]}
    assert sorted(records) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert ("extra" in records[3], records[4]["extra"]) == (False, "extra-4")
    assert str(records[8]["amount"]).startswith("about ")
    assert [number for number, record in records.items() if record["_deleted_at"]] == [5]
    stream = connector.streams()[0]
    (part,) = connector.plan(stream, None).partitions
    rejected = [reject for batch in connector.read(stream, part, part.cursor) for reject in batch.rejected]
    assert rejected == [muxly.Rejected("a scripted bad record", record={"id": 6}, place="numbers:6")]


def test_day_that_became_empty_is_still_replaced() -> None:
    connector = FakeConnector(records=20, by_day=True, per_day=10, gone=list(range(10)))
    (stream,) = connector.streams()
    (part,) = connector.plan(stream, None).partitions
    batches = list(connector.read(stream, part, part.cursor))
    assert [batch.replaces for batch in batches] == [((date(2024, 1, 1),),), ((date(2024, 1, 2),),)]
    assert [batch.to_arrow()[0].num_rows for batch in batches] == [0, 10]


def test_missing_stream_is_shown_but_not_there() -> None:
    with pytest.raises(muxly.StreamUnavailableError, match="the stream numbers is not there"):
        read(FakeConnector(missing=["numbers"]))


@pytest.mark.parametrize("method", ["open", "streams", "plan", "read", "close"])
def test_fault_happens_where_and_as_often_as_it_is_scripted(method: str) -> None:
    connector = FakeConnector(records=10, faults=[Fault(action="ZeroDivisionError", method=method, times=2)])

    def everything() -> None:
        connector.open(muxly.Run("01J", "daily"))
        read(connector)
        connector.close()

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="a scripted fault"):
            everything()
    everything()


def test_fault_after_a_batch_comes_when_the_batch_is_out() -> None:
    fault = Fault(action="QuotaError", method="read", at=1, after=True, retry_after=60, message="spent")
    connector = FakeConnector(records=30, batch_records=10, faults=[fault])
    (stream,) = connector.streams()
    (part,) = connector.plan(stream, None).partitions
    cursors: list[Any] = []
    with pytest.raises(muxly.QuotaError, match="spent") as caught:
        cursors.extend(batch.cursor for batch in connector.read(stream, part, None))
    assert caught.value.resume_at is not None
    assert [call.number for call in connector.calls if call.method == "read"] == [0, 1]


def test_fault_concerns_its_stream_and_partition_only() -> None:
    fault = Fault(action="StreamError", method="read", stream="b*", partition="from-5", times=0)
    connector = FakeConnector(names=["a", "b"], records=10, partitions=2, faults=[fault])
    assert len(read(connector, stream="a")[0]) == 10
    with pytest.raises(muxly.StreamError, match="a scripted fault"):
        read(connector, stream="b")


def test_endless_reading_ends_with_its_run() -> None:
    stop = threading.Event()
    connector = FakeConnector(endless=True, batch_seconds=0.001)
    connector.open(muxly.Run("01J", "daily", stop=stop))
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(muxly.StoppedError, match="asked to stop"):
        read(connector)


def test_sleep_ends_with_the_run_and_hang_does_not() -> None:
    stop = threading.Event()
    stop.set()
    run = muxly.Run("01J", "daily", stop=stop)
    begun = time.monotonic()
    with pytest.raises(muxly.StoppedError, match="asked to stop"):
        FakeConnector(faults=[Fault(action="sleep", method="open")]).open(run)
    FakeConnector(faults=[Fault(action="hang", method="open", seconds=0.2)]).open(run)
    assert 0.2 <= time.monotonic() - begun < 10


def test_copies_share_their_calls() -> None:
    connector = FakeConnector()
    for copied in (copy.deepcopy(connector), pickle.loads(pickle.dumps(connector))):
        copied.streams()
    assert connector.calls == (Call("streams"), Call("streams"))
    assert FakeConnector().calls == ()


def test_calls_in_a_folder_are_known_to_other_processes(tmp_path: Path) -> None:
    FakeConnector(folder=tmp_path).streams()
    assert FakeConnector(folder=tmp_path).calls == (Call("streams"),)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"action": "explode", "method": "read"}, "'explode' is neither sleep, hang or exit nor the name of an error"),
        ({"action": "print", "method": "read"}, "'print' is neither sleep"),
        ({"action": "hang", "method": "write"}, "'write' is not one of open, check"),
        ({"action": "hang", "method": "read", "at": -1}, "'at' must be >= 0"),
    ],
)
def test_script_with_a_slip_is_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault(**facts)
