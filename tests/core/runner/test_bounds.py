"""A delivery tells where it lies in its stream's log, also inside a segment that was cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import muxly
from muxly import Pipeline, Route
from muxly._runner.options import Replay
from muxly_testing import FakeConnector, delivery

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

Bounds = tuple[tuple[int, int], tuple[int, int]]
seen: list[tuple[Bounds, list[int]]] = []


class Watching(muxly.Router):
    """Notes the bounds and the ids of what it is given."""

    def deliver(self, delivery: muxly.Delivery) -> None:
        seen.append((delivery.bounds, delivery.table()["id"].to_pylist()))


def test_bounds_name_every_record_before_the_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen.clear()
    connector = FakeConnector(records=40, batch_records=10)
    route = Route("watch", Watching(), batch={"records": 7}, where="id % 2 = 1")
    pipeline = Pipeline("daily", connector, routes=[route], segment_bytes=500)
    muxly.run(pipeline, home=tmp_path).raise_for_status()
    _expect_whole_log(seen)
    first = list(seen)
    seen.clear()
    muxly.run(pipeline, home=tmp_path, replay=Replay(route="watch")).raise_for_status()
    assert seen == first


def _expect_whole_log(found: list[tuple[Bounds, list[int]]]) -> None:
    """The deliveries lie one behind the other, and what lies between their bounds is what they bring."""
    assert found[0][0][0] == (1, 0)
    assert any(begin[1] > 0 for (begin, _), _ in found), "a segment is cut"
    start = 0
    for ((first, begin), (last, end)), ids in found:
        count = end - begin if first == last else None
        if count is not None:
            assert ids == [number for number in range(start, start + count) if number % 2]
        start = max(ids) + 1 if count is None else start + count
    assert start == 40


def test_bounds_of_a_delivery_made_by_hand_are_no_place_in_a_log() -> None:
    made: Any = delivery([{"id": 1}])
    assert [position for position, _ in made.bounds] == [0, 0]
    placed: Any = delivery([{"id": 1}, {"id": 2}], position=7)
    assert placed.bounds == ((7, 0), (7, 2))
