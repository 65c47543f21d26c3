"""Counters count each record once, however often it is delivered; gauges show the newest."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import muxly
from muxly.component import Run
from muxly_routers.prometheus import Metric, Prometheus
from muxly_routers.prometheus.series import CountedLog, SegmentPart, StreamSeries
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from muxly.router import Receipt

COUNTER = Metric(column="n", labels=["k"], type="counter")
GAUGE = Metric(column="n", labels=["k"])


def metrics(text: str) -> dict[str, dict[str, float]]:
    """The values of each metric by its label `k`."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("k", "")] = sample.value
    return found


def of_folder(folder: Path) -> dict[str, dict[str, float]]:
    """The same of the one file in a folder."""
    [file] = folder.glob("*.prom")
    return metrics(file.read_text())


class Log:
    """A stream's log, delivered as the runner does: in parts, again after failures, again by replays."""

    def __init__(self, router: Prometheus) -> None:
        self.router, self.state = router, None
        self.run = Run("01B", "daily", route="metrics")
        router.open(self.run)

    def deliver(self, parts: Iterable[tuple[int, list[dict[str, Any]]]], *, offset: int = 0, lost: int = 0) -> Receipt:
        """Deliver parts of segments, by position; the first `lost` acknowledgements are lost."""
        known = list(parts)
        batches = [pa.RecordBatch.from_pylist(records) for _, records in known]
        one = delivery(batches, "orders", state=self.state)
        last, records = known[-1]
        end = len(records) + (offset if len(known) == 1 else 0)
        bounds = ((known[0][0], offset), (last, end))
        one.source = attrs.evolve(one.source, positions=lambda: [position for position, _ in known], bounds=bounds)
        for _ in range(lost):
            self.router.deliver(one)
        receipt = self.router.deliver(one)
        assert receipt is not None
        self.state = receipt.state if receipt.state is not None else self.state
        return receipt

    def close(self) -> None:
        self.router.close()
        self.run.end()


@pytest.fixture(params=["ledger", "folder"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Log]]:
    """Makes logs; their series are kept in the ledger, or in a folder."""
    made: list[Log] = []

    def make(**options: Any) -> Log:
        ways = {"listen": "127.0.0.1:0"} if request.param == "ledger" else {"textfile": tmp_path / "node"}
        router = Prometheus(**{**ways, "stream_label": "", **options})
        made.append(Log(router))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shown(log: Log) -> dict[str, dict[str, float]]:
    """What the log's router shows."""
    if log.router.textfile is not None:
        return of_folder(log.router.textfile)
    endpoint = log.run.shared("muxly_routers.prometheus 127.0.0.1:0", lambda: None)
    return metrics(endpoint.content("text", compressed=False).decode())  # type: ignore[attr-defined]


def test_counter_adds_up_over_deliveries(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    one.deliver([(1, [{"k": "a", "n": 2}, {"k": "b", "n": 10}, {"k": "a", "n": 3}])])
    one.deliver([(2, [{"k": "a", "n": 1}])])
    assert shown(one) == {"orders_total": {"a": 6, "b": 10}, "latest": {"a": 1, "b": 10}}


def test_delivery_whose_acknowledgement_was_lost_is_counted_once(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER})
    one.deliver([(1, [{"k": "a", "n": 2}])], lost=2)
    one.deliver([(2, [{"k": "a", "n": 5}])], lost=1)
    assert shown(one) == {"orders_total": {"a": 7}}


def test_replay_does_not_count_again_and_fills_a_new_metric(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    first = [(1, [{"k": "a", "n": 2}]), (2, [{"k": "a", "n": 3}, {"k": "a", "n": 4}])]
    one.deliver(first)
    one.deliver([(3, [{"k": "a", "n": 10}])])
    one.deliver(first)
    assert shown(one) == {"orders_total": {"a": 19}, "latest": {"a": 10}}, "an old position changes nothing"
    again = log(metrics={"orders_total": COUNTER, "latest": GAUGE, "twice_total": COUNTER}, **_where(one))
    again.state = one.state
    again.deliver(first)
    again.deliver([(3, [{"k": "a", "n": 10}])])
    assert shown(again) == {"orders_total": {"a": 19}, "latest": {"a": 10}, "twice_total": {"a": 19}}


def _where(log: Log) -> dict[str, Any]:
    return {} if log.router.textfile is None else {"textfile": log.router.textfile}


def test_replay_of_the_last_position_is_not_taken_for_its_next_part(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER})
    one.deliver([(1, [{"k": "a", "n": 1}, {"k": "a", "n": 1}])])
    one.deliver([(1, [{"k": "a", "n": 1}])], offset=2)
    assert shown(one) == {"orders_total": {"a": 3}}
    one.deliver([(1, [{"k": "a", "n": 1}, {"k": "a", "n": 1}, {"k": "a", "n": 1}])])
    assert shown(one) == {"orders_total": {"a": 3}}


def test_metric_that_is_defined_anew_begins_anew(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER})
    one.deliver([(1, [{"k": "a", "n": 2, "m": 100}])])
    other = Metric(column="m", labels=["k"], type="counter")
    again = log(metrics={"orders_total": other}, **_where(one))
    again.state = one.state
    again.deliver([(2, [{"k": "a", "n": 2, "m": 50}])])
    assert shown(again) == {"orders_total": {"a": 50}}


def test_replay_from_before_all_that_was_counted_fills_what_came_before(log: Callable[..., Log]) -> None:
    """A route that is added later begins at the head of the log, and a replay fills it."""
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    one.deliver([(4, [{"k": "a", "n": 40}])])
    one.deliver([(1, [{"k": "a", "n": 10}, {"k": "b", "n": 1}]), (2, [{"k": "a", "n": 20}])])
    one.deliver([(4, [{"k": "a", "n": 40}]), (5, [{"k": "a", "n": 50}])])
    wanted = {"orders_total": {"a": 120, "b": 1}, "latest": {"a": 50, "b": 1}}
    assert shown(one) == wanted
    one.deliver([(2, [{"k": "a", "n": 20}])])
    assert shown(one) == wanted


def test_dead_letter_is_counted_and_is_not_the_newest_value(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    one.deliver([(1, [{"k": "a", "n": 1}])])
    one.deliver([(2, [{"k": "a", "n": 2}])])
    letter = delivery([{"k": "a", "n": 7}], "orders", state=one.state)
    letter.source = attrs.evolve(letter.source, positions=lambda: [1])
    one.router.deliver(letter)
    assert shown(one) == {"orders_total": {"a": 10}, "latest": {"a": 2}}


def test_increment_that_no_counter_can_take_is_rejected_and_named(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    bad = [{"k": "a", "n": 1.0}, {"k": "a", "n": -2.0}, {"k": "a", "n": float("nan")}, {"k": "b", "n": float("inf")}]
    receipt = one.deliver([(1, bad), (2, [{"k": "a", "n": None}, {"k": "a", "n": -1.0}])])
    assert [rejected.index for rejected in receipt.rejected] == [1, 2, 3, 5]
    assert receipt.rejected[0].reason == (
        "counter 'orders_total' only grows, and column 'n' is -2.0; write `cumulative: true` if the column holds "
        "totals, or `type: gauge`"
    )
    assert shown(one) == {"orders_total": {"a": 1}, "latest": {"a": 1}}, "a rejected record changes nothing"


def test_missing_values_leave_the_series_as_it_is_and_are_counted(log: Callable[..., Log]) -> None:
    measured: dict[str, float] = {}
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE})
    one.run._on_measure = lambda name, value, stream: measured.update({f"{name} {stream}": value})
    one.deliver([(1, [{"k": "a", "n": 2}, {"k": "b", "n": None}, {"k": "a", "n": None}])])
    assert shown(one) == {"orders_total": {"a": 2}, "latest": {"a": 2}}
    assert measured == {"null_values orders": 4}


def test_cumulative_counter_shows_the_newest_total(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": Metric(column="n", labels=["k"], type="counter", cumulative=True)})
    one.deliver([(1, [{"k": "a", "n": 5}, {"k": "a", "n": 9}])])
    one.deliver([(2, [{"k": "a", "n": 4}])])
    assert shown(one) == {"orders_total": {"a": 4}}


def test_series_beyond_the_limit_are_left_out_and_counted(log: Callable[..., Log]) -> None:
    noticed: list[muxly.Notice] = []
    one = log(metrics={"orders_total": COUNTER, "latest": GAUGE}, max_series=5)
    one.run._on_notice = noticed.append
    one.deliver([(1, [{"k": str(number), "n": 1} for number in range(4)])])
    found = shown(one)
    assert (len(found["orders_total"]), len(found["latest"])) == (4, 1), "metrics are served in their order"
    assert found["muxly_series_dropped_total"] == {"": 3}
    one.deliver([(2, [{"k": "0", "n": 7}, {"k": "9", "n": 1}])])
    found = shown(one)
    assert found["orders_total"] == {"0": 8, "1": 1, "2": 1, "3": 1}, "known series go on"
    assert found["muxly_series_dropped_total"] == {"": 5}
    assert [one.code for one in noticed] == ["series_limit", "series_limit"]
    assert "more than 5 series; 3 updates of further ones were left out" in noticed[0].message


def test_series_that_is_not_reported_any_more_expires(log: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    one = log(metrics={"latest": GAUGE}, expire_seconds=100)
    one.deliver([(1, [{"k": "a", "n": 1}, {"k": "b", "n": 1}])])
    now[0] += 60
    one.deliver([(2, [{"k": "a", "n": 2}])])
    assert shown(one) == {"latest": {"a": 2, "b": 1}}
    now[0] += 60
    one.deliver([(3, [{"k": "c", "n": 3}])])
    assert shown(one) == {"latest": {"a": 2, "c": 3}}


def test_sum_that_leaves_64_bits_becomes_a_float(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER})
    one.deliver([(1, [{"k": "a", "n": 2**63 - 1}, {"k": "b", "n": 1}])])
    one.deliver([(2, [{"k": "a", "n": 2**63 - 1}, {"k": "b", "n": 2}])])
    assert shown(one) == {"orders_total": {"a": float(2**64), "b": 3}}


def test_integers_and_floats_of_one_column_are_added(log: Callable[..., Log]) -> None:
    one = log(metrics={"orders_total": COUNTER})
    one.deliver([(1, [{"k": "a", "n": 1}])])
    one.deliver([(2, [{"k": "a", "n": 0.5}])])
    assert shown(one) == {"orders_total": {"a": 1.5}}


def test_more_series_than_the_ledger_keeps_is_an_error_that_names_the_folder() -> None:
    one = Log(Prometheus(metrics={"latest": GAUGE}, listen="127.0.0.1:0", max_series=1_000_000))
    names = [{"k": hashlib.blake2b(b"%d" % number).hexdigest()[:40], "n": number * 0.7} for number in range(60_000)]
    with pytest.raises(muxly.RouteError, match=r"60000 series of stream 'orders' take \d+ bytes.*write `keep: FOLDER`"):
        one.deliver([(1, names)])
    one.close()


def test_ten_thousand_series_fit_into_the_ledger() -> None:
    one = Log(Prometheus(metrics={"latest": GAUGE}, listen="127.0.0.1:0"))
    hostile = "0123456789abcdef-"
    names = [{"k": hostile + f"{number * 2654435761 % 2**64:016x}", "n": number / 7} for number in range(10_000)]
    one.deliver([(1, names)])
    assert StreamSeries.from_state(one.state).count == 10_000
    one.close()


def test_state_comes_back_as_it_was() -> None:
    one = Log(Prometheus(metrics={"latest": GAUGE, "orders_total": COUNTER}, listen="127.0.0.1:0"))
    one.deliver([(1, [{"k": "a", "n": 0.1}, {"k": None, "n": 2**53 + 1.0}])])
    found = StreamSeries.from_state(one.state)
    assert StreamSeries.from_state(found.to_state()).families["latest"].table == found.families["latest"].table
    assert found.families["orders_total"].counted == CountedLog(1, 2, 2, 2, 2, 1, 0)
    one.close()


segments = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4)
Place = tuple[int, int]


@given(segments, st.data())
def test_each_record_is_counted_once_however_the_log_is_cut_and_replayed(log: list[list[bool]], data: Any) -> None:
    """A model of the runner: parts of any size, lost acknowledgements, replays from any position."""
    counted, times = CountedLog(), dict.fromkeys(_places(log, 1), 0)
    every, unsure = _places(log, 1), False
    at = data.draw(st.sampled_from([place for place in every if place[1] == 0]), label="joined at")
    lowest = at
    for turn in range(data.draw(st.integers(1, 3), label="passes")):
        if turn and data.draw(st.booleans(), label="replay"):
            at = (data.draw(st.integers(1, at[0]), label="replayed from"), 0)
        lowest = min(lowest, at)
        waiting, done = [place for place in every if place >= at], 0
        stop = len(waiting) if turn == 2 else data.draw(st.integers(0, len(waiting)), label="stopped after")
        while done < stop:
            part = waiting[done : done + data.draw(st.integers(1, 7), label="part")]
            for _ in range(data.draw(st.integers(1, 2), label="tries")):
                after, new, halved, anew = _delivered(counted, part, log)
            if anew:
                times, unsure = dict.fromkeys(times, 0), False
            for place in new:
                times[place] += 1
            counted, done, unsure = after, done + len(part), unsure or halved
            at = waiting[done] if done < len(waiting) else (len(log) + 1, 0)
    assert max(times.values()) <= 1, "counted twice"
    missing = [p for p, count in times.items() if lowest <= p < at and _kept(log, p) and not count]
    assert unsure or not missing, "left out"


def _places(log: list[list[bool]], first: int) -> list[Place]:
    return [(position, row) for position in range(first, len(log) + 1) for row in range(len(log[position - 1]))]


def _kept(log: list[list[bool]], place: Place) -> bool:
    """Whether the route's filter lets the record through."""
    return log[place[0] - 1][place[1]]


def _delivered(
    counted: CountedLog, part: list[Place], log: list[list[bool]]
) -> tuple[CountedLog, list[Place], bool, bool]:
    """Walk over a delivery as the router does.

    Returns:
        How far the log is counted then; what is counted; whether a part that follows one that the filter left
        nothing of was known in half, in which case the router rather leaves records out; and whether it began anew.
    """
    new: list[Place] = []
    bounds = (part[0], (part[-1][0], part[-1][1] + 1))
    halved = anew = False
    for position, group in itertools.groupby(part, key=lambda place: place[0]):
        kept = [place for place in group if _kept(log, place)]
        if not kept:
            continue  # the router is not shown a segment of which the filter left nothing
        piece = SegmentPart.of(position, bounds)
        if counted.follows(piece):
            counted, new, anew = CountedLog(), [], True
        known = counted.known(piece)
        halved = halved or (known not in (None, 0) and piece.begin > 0 and piece.begin != counted.passed_end)
        new.extend(kept[len(kept) if known is None else known :])
        counted = counted.after(piece, len(kept))
    return counted, new, halved, anew
