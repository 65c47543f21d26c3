"""The collecting router applies every mode as a destination does; the chaos router fails as scripted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly_testing import Call, ChaosRouter, CollectingRouter, Fault, delivery

RECORDS = [{"id": number, "day": f"d{number // 3}", "version": 1} for number in range(6)]
STREAM = muxly.Stream("numbers", ("id",), overwrite_key=("day",), cursor_field="version")


def ids(router: CollectingRouter) -> list[int]:
    return [record["id"] for record in router.records()]


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {} if request.param == "memory" else {"folder": tmp_path / "kept"}


def test_nothing_is_there_before_a_delivery(place: dict[str, Any]) -> None:
    router = CollectingRouter(**place)
    assert (router.records(), router.ids, router.streams, router.batches()) == ([], [], [], [])


def test_repeat_is_left_out_and_another_content_refused(place: dict[str, Any]) -> None:
    router, sent = CollectingRouter(**place), delivery(RECORDS, STREAM)
    for _ in range(2):
        router.deliver(sent)
    assert router.records() == RECORDS
    assert router.ids == [sent.id]
    with pytest.raises(muxly.ConflictError, match=f"delivery {sent.id} is kept with digest"):
        router.deliver(delivery(RECORDS[:1], STREAM, id=sent.id))


def test_batches_are_kept_as_they_came(place: dict[str, Any]) -> None:
    router = CollectingRouter(**place)
    router.deliver(delivery(RECORDS, batch_records=4))
    assert [batch.num_rows for batch in router.batches()] == [4, 2]
    router.clear()
    assert router.batches() == []


def test_upsert_overwrite_and_tombstones(place: dict[str, Any]) -> None:
    router = CollectingRouter(**place)
    router.deliver(delivery(RECORDS, STREAM, mode="upsert"))
    router.deliver(delivery([{"id": 1, "version": 2}, {"id": 2, "version": 0}], STREAM, mode="upsert"))
    assert {record["id"]: record["version"] for record in router.records()}[1] == 2
    assert {record["id"]: record["version"] for record in router.records()}[2] == 1
    router.deliver(delivery([{"id": 3, "version": 2, "_deleted_at": "now"}], STREAM, mode="upsert"))
    assert [record["id"] for record in router.alive()] == [0, 1, 2, 4, 5]


def test_overwrite_replaces_what_it_names(place: dict[str, Any]) -> None:
    router = CollectingRouter(**place)
    router.deliver(delivery(RECORDS, STREAM, mode="overwrite", replaces=["d0", "d1"]))
    router.deliver(delivery([{"id": 9, "day": "d0"}], STREAM, mode="overwrite", replaces=["d0"]))
    assert ids(router) == [3, 4, 5, 9]


def test_marks_follow_what_is_kept(place: dict[str, Any]) -> None:
    router, marks = CollectingRouter(mark_every=2, **place), list[tuple[int, int]]()
    sent = delivery(RECORDS, batch_records=3, on_mark=lambda count: marks.append((count, len(router.records()))))
    router.deliver(sent)
    assert marks == [(2, 2), (3, 3), (5, 5), (6, 6)]


def test_fault_comes_at_the_nth_call_and_again_as_often_as_scripted(place: dict[str, Any]) -> None:
    fault = Fault(method="deliver", action="RetryableError", at=1, times=2, retry_after=0.5)
    router = ChaosRouter(faults=[fault], **place)
    outcome = []
    for number in range(5):
        try:
            router.deliver(delivery([{"id": number}]))
            outcome.append("kept")
        except muxly.RetryableError as error:
            outcome.append(f"in {error.retry_after}")
    assert outcome == ["kept", "in 0.5", "in 0.5", "kept", "kept"]
    assert ids(router) == [0, 3, 4]
    assert [call.method for call in router.calls] == ["deliver"] * 5


def test_error_after_the_work_leaves_it_applied(place: dict[str, Any]) -> None:
    router, sent = (
        ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", after=True)], **place),
        delivery(RECORDS),
    )
    with pytest.raises(muxly.RetryableError, match="a scripted fault"):
        router.deliver(sent)
    assert len(router.records()) == 6
    router.deliver(sent)
    assert len(router.records()) == 6


def test_refused_records_are_in_the_receipt_and_not_at_the_destination(place: dict[str, Any]) -> None:
    router = ChaosRouter(reject=[1, 4], **place)
    receipt = router.deliver(delivery(RECORDS, batch_records=2))
    assert receipt is not None
    assert [(rejected.index, rejected.reason) for rejected in receipt.rejected] == [
        (1, "id 1 is on the script's list"),
        (4, "id 4 is on the script's list"),
    ]
    assert ids(router) == [0, 2, 3, 5]


def test_refusing_by_error_keeps_nothing(place: dict[str, Any]) -> None:
    router = ChaosRouter(reject=["d1"], reject_column="day", reject_by="error", **place)
    with pytest.raises(muxly.RejectedError, match=r"day 'd1' is on the script's list \(record 3 of"):
        router.deliver(delivery(RECORDS))
    assert ids(router) == []


@pytest.mark.parametrize(("lie", "seen"), [("forgets", 12), ("loses", 0), ("tears", 6), ("", 6)])
def test_lies(place: dict[str, Any], lie: str, seen: int) -> None:
    router, sent = ChaosRouter(lie=lie, **place), delivery(RECORDS, batch_records=2)
    router.deliver(sent)
    if lie in {"forgets", ""}:
        router.deliver(sent)
    assert len(router.records()) == seen


def test_generations_are_visible_when_they_are_complete(place: dict[str, Any]) -> None:
    router = ChaosRouter(faults=[Fault(method="complete", action="RouteError", at=1)], **place)
    for generation in (1, 2):
        router.begin(STREAM, generation)
        router.deliver(delivery(RECORDS[:generation], STREAM, mode="replace", generation=generation))
        if generation == 1:
            router.complete(STREAM, generation)
    with pytest.raises(muxly.RouteError, match="a scripted fault"):
        router.complete(STREAM, 2)
    assert ids(router) == [0]
    router.complete(STREAM, 2)
    assert ids(router) == [0, 1]
    with pytest.raises(muxly.ConflictError, match="generation 2 of numbers is visible; 1 is older"):
        router.complete(STREAM, 1)


def test_process_that_ends_itself_does_so_once(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from muxly_testing import ChaosRouter, Fault, delivery
router = ChaosRouter(folder=Path({str(tmp_path)!r}), faults=[Fault(method="deliver", action="exit", after=True)])
router.deliver(delivery([{{"id": 1}}], id="0" * 26))
"""
    statuses = [subprocess.run([sys.executable, "-c", code], check=False).returncode for _ in range(2)]
    assert statuses == [-9, 0]
    assert len(CollectingRouter(folder=tmp_path).records()) == 1


def test_token_joins_routers_and_their_absence_keeps_them_apart() -> None:
    first, second = CollectingRouter(token="joined-by-a-test"), CollectingRouter(token="joined-by-a-test")
    first.open(muxly.Run("01J", "daily"))
    assert second.calls == (Call("open"),)
    assert CollectingRouter().calls == CollectingRouter().calls == ()
