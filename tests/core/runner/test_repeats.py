"""Ties and lookback: nothing at the cursor's boundary is lost, nothing comes twice."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly import Stream
from muxly._runner.extract import deduplication
from muxly._runner.extract.deduplication import Boundary, advance, drop_repeats, joined, record_digests
from muxly.errors import StreamError

UTC = dt.UTC
NOW = dt.datetime(2026, 1, 1, tzinfo=UTC)
LOGS = Stream("logs", cursor_field="at")
DEALS = Stream("deals", ("id",), cursor_field="at")


def hour(number: float) -> dt.datetime:
    return dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(hours=number)


def table(records: list[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: pa.array([record.get(name) for record in records], types.get(name)) for name in names})


def sealed(stream: Stream, *batches: pa.Table) -> Boundary:
    boundary = Boundary()
    for batch in batches:
        boundary = advance(boundary, batch, stream, now=NOW)
    return boundary


def test_a_tie_is_dropped_once_and_a_new_one_is_kept() -> None:
    boundary = sealed(DEALS, table([{"id": 1, "at": 5}, {"id": 2, "at": 5}]))
    again = table([{"id": 1, "at": 5}, {"id": 3, "at": 5}, {"id": 2, "at": 5}, {"id": 4, "at": 6}])
    kept = drop_repeats(again, DEALS, boundary)
    assert kept.dropped == 2
    assert kept.table.to_pylist() == [{"id": 3, "at": 5}, {"id": 4, "at": 6}]


def test_a_changed_record_at_the_boundary_is_kept() -> None:
    boundary = sealed(DEALS, table([{"id": 1, "at": 5, "name": "a"}]))
    kept = drop_repeats(table([{"id": 1, "at": 5, "name": "b"}]), DEALS, boundary)
    assert kept.dropped == 0


def test_nothing_known_gives_the_same_table() -> None:
    batch = table([{"id": 1, "at": 5}])
    assert drop_repeats(batch, DEALS, Boundary()).table is batch
    assert drop_repeats(batch, DEALS, sealed(DEALS, table([{"id": 1, "at": 6}]))).table is batch
    assert drop_repeats(batch, Stream("s"), sealed(DEALS, batch)).table is batch
    assert advance(Boundary(), batch, Stream("s"), now=NOW) == Boundary()


def test_the_lookback_is_remembered_and_what_lies_before_is_not() -> None:
    stream = Stream("deals", ("id",), cursor_field="at", lookback=7200)
    boundary = sealed(stream, table([{"id": n, "at": hour(n)} for n in range(10)]))
    assert [value for value, _ in boundary.groups] == [hour(7), hour(8), hour(9)]
    kept = drop_repeats(table([{"id": n, "at": hour(n)} for n in (6, 7, 8, 9)]), stream, boundary)
    assert (kept.dropped, kept.table["id"].to_pylist()) == (3, [6])


def test_a_late_record_within_the_lookback_is_kept() -> None:
    stream = Stream("deals", ("id",), cursor_field="at", lookback=7200)
    boundary = sealed(stream, table([{"id": 1, "at": hour(9)}]))
    kept = drop_repeats(table([{"id": 2, "at": hour(8)}, {"id": 1, "at": hour(9)}]), stream, boundary)
    assert kept.table["id"].to_pylist() == [2]
    late = advance(boundary, kept.table, stream, now=NOW)
    assert late.greatest == hour(9)
    assert [value for value, _ in late.groups] == [hour(8), hour(9)]


def test_lookback_of_a_date_is_whole_days_rounded_up() -> None:
    stream = Stream("report", cursor_field="at", lookback=3600)
    days = [{"at": dt.date(2024, 1, day)} for day in (1, 2, 3)]
    boundary = sealed(stream, table(days))
    assert [value for value, _ in boundary.groups] == [dt.date(2024, 1, 2), dt.date(2024, 1, 3)]


def test_equal_records_without_a_key_are_counted() -> None:
    boundary = sealed(LOGS, table([{"at": 5, "text": "x"}]))
    kept = drop_repeats(table([{"at": 5, "text": "x"}] * 3), LOGS, boundary)
    assert (kept.dropped, kept.table.num_rows) == (1, 2)
    later = drop_repeats(table([{"at": 5, "text": "x"}]), LOGS, kept.expected)
    assert later.dropped == 0


def test_equal_records_with_a_key_are_the_same_record() -> None:
    boundary = sealed(DEALS, table([{"id": 1, "at": 5}]))
    kept = drop_repeats(table([{"id": 1, "at": 5}] * 3), DEALS, boundary)
    assert (kept.dropped, kept.table.num_rows) == (3, 0)
    twice = advance(boundary, table([{"id": 1, "at": 5}]), DEALS, now=NOW)
    assert twice == boundary


def test_null_nan_and_infinity_never_count() -> None:
    boundary = sealed(LOGS, table([{"at": 1.5}, {"at": None}, {"at": float("nan")}, {"at": float("inf")}]))
    assert boundary.greatest == 1.5
    assert len(boundary.groups) == 1
    kept = drop_repeats(table([{"at": None}, {"at": float("nan")}], at=pa.float64()), LOGS, boundary)
    assert kept.dropped == 0
    assert sealed(LOGS, table([{"at": None}])) == Boundary()


def test_the_greatest_value_never_goes_back() -> None:
    first = sealed(LOGS, table([{"at": 9}]))
    assert advance(first, table([{"at": 3}]), LOGS, now=NOW) == first


def test_a_value_in_the_future_counts_as_now_and_is_told() -> None:
    far = dt.datetime(2999, 1, 1, tzinfo=UTC)
    batch = table([{"id": 1, "at": hour(1)}, {"id": 2, "at": far}])
    boundary = sealed(DEALS, batch)
    assert boundary.greatest == NOW
    assert boundary.clamped is not None
    assert "2999" in boundary.clamped
    assert drop_repeats(batch, DEALS, boundary).table["id"].to_pylist() == [1]


def test_a_clock_a_little_ahead_is_clamped_but_not_told() -> None:
    boundary = sealed(DEALS, table([{"id": 1, "at": NOW + dt.timedelta(minutes=1)}]))
    assert (boundary.greatest, boundary.clamped) == (NOW, None)
    naive = dt.datetime.fromisoformat("2026-01-01 09:00")
    assert sealed(DEALS, table([{"id": 1, "at": naive}])).greatest == naive
    tomorrow = dt.date(2026, 1, 1)
    assert sealed(DEALS, table([{"id": 1, "at": tomorrow}])).greatest == tomorrow


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC")])
def test_times_that_python_cannot_hold_are_clamped_too(kind: pa.DataType) -> None:
    batch = pa.table({"at": pa.array([2**62, -(2**62)], pa.int64()).cast(kind)})
    boundary = sealed(LOGS, batch)
    assert boundary.clamped is not None
    assert drop_repeats(batch, LOGS, boundary).dropped == 1


def test_text_that_is_time_is_compared_as_time() -> None:
    batch = table([{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-01-01T00:00:00.5Z"}])
    boundary = sealed(DEALS, batch)
    assert boundary.greatest == dt.datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert drop_repeats(batch, DEALS, boundary).table["id"].to_pylist() == [1]


def test_other_text_is_compared_as_text() -> None:
    boundary = sealed(LOGS, table([{"at": "b"}, {"at": "a"}]))
    assert boundary.greatest == "b"
    assert drop_repeats(table([{"at": "b"}, {"at": "c"}]), LOGS, boundary).dropped == 1


def test_a_cursor_field_that_changed_its_type_starts_anew_and_loses_nothing() -> None:
    boundary = sealed(LOGS, table([{"at": 5}]))
    batch = table([{"at": hour(1)}])
    assert drop_repeats(batch, LOGS, boundary).dropped == 0
    assert advance(boundary, batch, LOGS, now=NOW).greatest == hour(1)


def test_a_cursor_field_without_an_order_is_an_error() -> None:
    with pytest.raises(StreamError, match="stream 'logs': its cursor_field 'at' is list<item: int64>"):
        sealed(LOGS, table([{"at": [1]}]))


def test_nanoseconds_do_not_lose_ties() -> None:
    batch = pa.table({"at": pa.array([1001, 1002], pa.int64()).cast(pa.timestamp("ns", "UTC"))})
    boundary = sealed(LOGS, batch)
    assert drop_repeats(batch, LOGS, boundary).dropped == 2


def test_the_number_of_digests_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "MOST_DIGESTS", 3)
    stream = Stream("deals", ("id",), cursor_field="at", lookback=dt.timedelta(days=9))
    boundary = sealed(stream, table([{"id": n, "at": hour(n)} for n in range(5)]))
    assert boundary.forgotten == 2
    assert [value for value, _ in boundary.groups] == [hour(2), hour(3), hour(4)]


@pytest.mark.parametrize("values", [[1, 2], [hour(1), hour(2)], [dt.date(2024, 1, 2)], [Decimal("1.5")], ["a"]])
def test_a_boundary_comes_back_from_its_state(values: list[Any]) -> None:
    boundary = sealed(LOGS, table([{"at": value} for value in values]))
    assert Boundary.from_state(boundary.to_state()) == boundary
    assert Boundary.from_state(None) == Boundary()
    json.dumps(boundary.to_state(), default=str)


def test_digests_do_not_see_empty_columns_order_or_wider_types() -> None:
    narrow = pa.table({"b": pa.array([5], pa.int8()), "a": ["x"], "d": pa.array([Decimal("1.50")])})
    wide = pa.table(
        {
            "new": pa.array([None], pa.string()),
            "a": ["x"],
            "b": pa.array([5], pa.float64()),
            "d": pa.array([Decimal("1.5")], pa.decimal256(60, 8)),
        }
    )
    assert record_digests(narrow) == record_digests(wide)


def test_digests_do_not_see_a_finer_unit_of_time() -> None:
    coarse = pa.table({"a": pa.array([1_500_000, 0], pa.int64()).cast(pa.timestamp("us", "UTC"))})
    fine = coarse.cast(pa.schema([("a", pa.timestamp("ns", "UTC"))]))
    assert record_digests(coarse) == record_digests(fine)


def test_digests_do_not_see_new_empty_fields_inside_a_struct() -> None:
    before = pa.table({"a": pa.array([{"x": 1}, None])})
    after = pa.table({"a": pa.array([{"x": 1, "y": None}, None])})
    assert record_digests(before) == record_digests(after)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1", "b": None}, {"a": None, "b": "1"}),
        ({"a": "1"}, {"a": 1}),
        ({"a": b"x"}, {"a": "x"}),
        ({"a": "x", "b": "y"}, {"a": "x1:b", "b": "y"}),
        ({"a": ["x", "y"]}, {"a": ["xy"]}),
        ({"a": [None, "x"]}, {"a": ["x"]}),
        ({"a": []}, {"a": None}),
        ({"a": {"x": None}}, {"a": None}),
        ({"a": True}, {"a": "true"}),
        ({"a": 0}, {"a": None}),
    ],
)
def test_different_records_have_different_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert record_digests(table([one])) != record_digests(table([other]))


def test_digests_are_the_same_in_slices_and_pieces() -> None:
    kind = pa.struct([("x", pa.list_(pa.string())), ("m", pa.map_(pa.string(), pa.int64()))])
    rows: list[Any] = [{"x": ["a", None], "m": [("k", 1)]}, None, {"x": None, "m": None}, {"x": [], "m": []}]
    whole = pa.table({"a": pa.array(rows, kind), "i": range(4), "d": pa.array([None, (1, 2, 3), None, None])})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    alone = [digest for start in range(4) for digest in record_digests(whole.slice(start, 1))]
    assert record_digests(whole) == record_digests(pieces) == alone
    assert len(set(alone)) == 4


def test_many_columns_and_records_without_columns_have_digests() -> None:
    wide = pa.table({f"c{number}": [number] for number in range(2000)})
    assert len(record_digests(wide)) == 1
    assert len(set(record_digests(pa.table({"a": pa.nulls(3)})))) == 1


records = st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab")), max_size=6)


@given(st.lists(records, max_size=4), st.integers(1, 3), st.booleans())
def test_every_record_is_sealed_exactly_once_however_often_it_is_read(
    arrivals: list[list[tuple[int, str]]], size: int, sorted_: bool
) -> None:
    """A source that grows, also behind the cursor within the lookback, read inclusively each time."""
    stream = Stream("logs", cursor_field="at", lookback=dt.timedelta(hours=3))
    source: list[tuple[int, str]] = []
    stored, got, lost = Boundary(), Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for arrival in arrivals:
        start = None if stored.greatest is None else stored.greatest - dt.timedelta(hours=3)
        lost.update(item for item in arrival if start is not None and hour(item[0]) < start)
        source += arrival
        due = [item for item in source if start is None or hour(item[0]) >= start]
        expected = stored
        for place in range(0, len(due), size):
            batch = (sorted(due) if sorted_ else due)[place : place + size]
            columns = table([{"at": hour(at), "text": text} for at, text in batch])
            kept = drop_repeats(columns, stream, expected)
            expected = kept.expected
            got.update((at.hour, text) for at, text in zip(*kept.table.to_pydict().values(), strict=True))
            stored = advance(stored, kept.table, stream, now=NOW)
    assert got + lost == Counter(source)


@given(st.permutations([3, 1, 4, 1, 5, 9, 2, 6]))
def test_the_order_of_batches_makes_no_difference(order: list[int]) -> None:
    stream = Stream("logs", cursor_field="at", lookback=dt.timedelta(hours=4))
    boundary = sealed(stream, *(table([{"at": hour(at)}]) for at in order))
    assert boundary == sealed(stream, table([{"at": hour(at)} for at in sorted(order)]))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5), st.booleans())
def test_boundaries_of_groups_join_to_that_of_all_of_them(groups: list[list[int]], keyed: bool) -> None:
    stream = Stream("logs", ("at",) if keyed else (), cursor_field="at", lookback=dt.timedelta(hours=4))
    tables = [table([{"at": hour(at)} for at in group]) for group in groups]
    whole = Boundary()
    for one in tables:
        whole = joined(whole, sealed(stream, one), stream)
    expected = sealed(stream, pa.concat_tables(tables))
    assert whole.greatest == expected.greatest
    assert set(whole.digests) == set(expected.digests)
    assert keyed or whole.digests == expected.digests
