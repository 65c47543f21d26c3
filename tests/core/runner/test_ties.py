"""Equal records of several partitions are all real: only what a partition itself sealed comes again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muxly
from muxly._runner.session import Home, open_session
from muxly.store import dead_letters
from muxly_testing import CollectingRouter
from tests.core.runner.test_rules_reading import scripted
from tests.core.runner.test_run import pipeline

TIES = muxly.Stream("ties", cursor_field="at", sorted=True)
CHILDREN = muxly.Stream("ties.children", parent="ties", cursor_field="at")
PARTS = ("a", "b", "c")
FIRST, LAST = {"at": 4, "text": "first"}, {"at": 5, "text": "last"}


def plan(stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
    return muxly.Plan([muxly.Partition(name, cursor) for name in PARTS], cursor=5)


def breaking(error: type[Exception], *, children: bool = False) -> Any:
    """Every partition has the same two records; the first reading of one breaks off before the second record."""
    broken = {"b": error}  # of a function, so that a run's copy of the connector shares it
    name = CHILDREN.name if children else None

    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        if cursor is None or cursor <= 4:
            yield muxly.Batch([FIRST], cursor=4, stream=name)
        if (error := broken.pop(partition.id, None)) is not None:
            yield muxly.Batch([], cursor=4)
            raise error("the source broke off")
        yield muxly.Batch([LAST], cursor=5, stream=name)

    return batches


def delivered(router: CollectingRouter, stream: str = "ties") -> dict[str, int]:
    texts = [record["text"] for record in router.records(stream)]
    return {text: texts.count(text) for text in ("first", "last")}


def run(tmp_path: Path, reads: Any, router: CollectingRouter, *streams: muxly.Stream) -> muxly.RunResult:
    source = scripted(list(streams or [TIES]), reads, plan)
    return muxly.run(pipeline(source, router, segment_seconds=0, parallel=1, route={"mode": "append"}), home=tmp_path)


def test_partition_that_is_resumed_keeps_what_another_one_has_too(tmp_path: Path) -> None:
    router = CollectingRouter()
    assert run(tmp_path, breaking(muxly.RetryableError), router).state == "succeeded"
    assert delivered(router) == {"first": 3, "last": 3}


def test_partition_that_the_next_run_resumes_keeps_what_another_one_has_too(tmp_path: Path) -> None:
    router, reads = CollectingRouter(), breaking(muxly.QuotaError)
    assert run(tmp_path, reads, router).state == "partial"
    assert run(tmp_path, reads, router).state == "succeeded"
    assert delivered(router)["last"] == 3


@pytest.mark.parametrize("error", [muxly.RetryableError, muxly.QuotaError])
def test_children_of_several_partitions_are_all_kept(tmp_path: Path, error: type[Exception]) -> None:
    router, reads = CollectingRouter(), breaking(error, children=True)
    run(tmp_path, reads, router, TIES, CHILDREN)
    assert run(tmp_path, reads, router, TIES, CHILDREN).state == "succeeded"
    assert delivered(router, "ties.children") == {"first": 3, "last": 3}


def test_next_plan_drops_the_ties_of_all_partitions(tmp_path: Path) -> None:
    router, reads = CollectingRouter(), breaking(muxly.RetryableError)
    run(tmp_path, reads, router)
    result = run(tmp_path, reads, router)
    assert (result.state, result.streams["ties"].repeated) == ("succeeded", 3)
    assert delivered(router) == {"first": 3, "last": 3}


def test_record_that_cannot_be_read_is_one_dead_letter_however_often_it_comes_again(tmp_path: Path) -> None:
    bad = muxly.Rejected("no number", record="5;x", place="page 1")
    other = muxly.Rejected("no number", record="5;y", place="page 1")

    def reading(*rejected: muxly.Rejected) -> Any:
        def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
            if partition.id == "a":
                yield muxly.Batch([LAST], cursor=5, rejected=rejected)

        return batches

    router = CollectingRouter()
    first = run(tmp_path, reading(bad, bad), router).streams["ties"]
    assert (first.sealed, first.rejected, first.repeated) == (1, 2, 0)
    again = run(tmp_path, reading(bad, bad), router).streams["ties"]
    assert (again.sealed, again.rejected, again.repeated) == (0, 0, 3)
    changed = run(tmp_path, reading(bad, other), router).streams["ties"]
    assert (changed.sealed, changed.rejected, changed.repeated) == (0, 1, 2)
    with open_session(Home(folder=tmp_path), "daily", command="test") as session:
        assert [one.letter.record for one in dead_letters.waiting(session.ledger)] == [b"5;x", b"5;x", b"5;y"]


def test_values_that_the_contract_discards_are_kept_once(tmp_path: Path) -> None:
    def batches(stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        if partition.id == "a":
            yield muxly.Batch([{**LAST, "new": 1} if cursor else LAST], cursor=5)

    source = scripted([TIES], batches, plan)
    rules = {"ties": {"new_columns": "discard_value"}}
    chosen = pipeline(source, CollectingRouter(), parallel=1, route={"mode": "append"}, streams=rules)
    rejected = [muxly.run(chosen, home=tmp_path).streams["ties"].rejected for _ in range(4)]
    assert rejected == [0, 1, 0, 0]
