"""Records become columns without any value changing; what does not fit is set aside with its reason."""

from __future__ import annotations

import enum
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly

AWARE = datetime(2026, 1, 1, 5, tzinfo=UTC)
NAIVE = AWARE.replace(tzinfo=None)


class Colour(enum.StrEnum):
    RED = "red"


def columns(values: list[Any], declared: pa.DataType | None = None) -> tuple[pa.DataType, list[Any], list[str]]:
    """The column's type, its values, and why others were set aside."""
    schema = None if declared is None else pa.schema([("c", declared)])
    table, rejected = muxly.Batch([{"c": value} for value in values]).to_arrow(schema)
    return table.schema.field("c").type, table.column("c").to_pylist(), [one.reason for one in rejected]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -5], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        (["a", Colour.RED], pa.string()),
        ([b"a"], pa.binary()),
        ([date(1, 1, 1), date(9999, 12, 31)], pa.date32()),
        ([NAIVE.replace(year=1), NAIVE.replace(year=9999)], pa.timestamp("us")),
        ([AWARE], pa.timestamp("us", "UTC")),
        ([time(23, 59, 59, 999_999)], pa.time64("us")),
        ([timedelta(microseconds=1)], pa.duration("us")),
        ([Decimal("1.50"), Decimal(100)], pa.decimal128(5, 2)),
        ([Decimal("1.5"), 1], pa.decimal128(2, 1)),
        ([[1, None], None], pa.list_(pa.int64())),
        ([{"a": 1}, {"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([None, None], pa.null()),
        ([2**63], pa.decimal128(38, 0)),
        ([2**64, -1, None], pa.decimal128(38, 0)),
        ([10**75], pa.decimal256(76, 0)),
        ([math.inf, -0.0], pa.float64()),
    ],
)
def test_values_get_the_type_that_holds_them_exactly(values: list[Any], kind: pa.DataType) -> None:
    found, seen, rejected = columns(values)
    assert found == kind
    assert rejected == []
    for one, value in zip(seen, values, strict=True):
        assert one == value or {**one} == {"a": value.get("a"), "b": value.get("b")}


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, "a", 2], [1, 2]),
        ([2**60 + 1, 2**60, 0.5], [2**60 + 1, 2**60]),
        ([date(2026, 1, 1), date(2026, 1, 2), NAIVE], [date(2026, 1, 1), date(2026, 1, 2)]),
        ([NAIVE, NAIVE, AWARE], [NAIVE, NAIVE]),
        ([AWARE, AWARE, NAIVE], [AWARE, AWARE]),
        (["a", "b", b"c"], ["a", "b"]),
        ([1, 2, True], [1, 2]),
        (["ok", "\ud800"], ["ok"]),
        ([1, 10**80], [1]),
        ([[1], [2], ["a"]], [[1], [2]]),
        ([{"a": 1}, {"a": "x"}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ([0.5, 1 + 2j], [0.5]),
        ([0.1, 0.2, Decimal("0.3")], [0.1, 0.2]),
    ],
)
def test_value_that_would_change_is_set_aside_and_not_shortened(values: list[Any], kept: list[Any]) -> None:
    _, seen, rejected = columns(values)
    assert seen == kept
    assert len(rejected) == len(values) - len(kept)
    assert all(reason.startswith("column 'c': ") and "does not fit the type" in reason for reason in rejected)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (1.5, pa.int64()),
        (True, pa.int64()),
        (1, pa.bool_()),
        (True, pa.float64()),
        ("1", pa.int64()),
        (2**53 + 1, pa.float64()),
        (300, pa.int8()),
        (-1, pa.uint8()),
        (Decimal("1.123"), pa.decimal128(10, 2)),
        (NAIVE, pa.date32()),
        (NAIVE, pa.date64()),
        (NAIVE, pa.timestamp("us", "UTC")),
        (AWARE, pa.timestamp("us")),
        (5, pa.timestamp("us")),
        (NAIVE.replace(microsecond=5), pa.timestamp("s")),
        (NAIVE.replace(year=9999), pa.timestamp("ns")),
        (time(1, 2, 3, 4), pa.time32("s")),
        (timedelta(microseconds=1), pa.duration("s")),
        ({"a": 1, "b": 2}, pa.struct([("a", pa.int64())])),
        (b"\xff", pa.string()),
        ([1, 2], pa.list_(pa.string())),
    ],
)
def test_declared_type_never_changes_a_value(value: Any, declared: pa.DataType) -> None:
    """The column takes a type that holds the value; the runner's contract decides what follows."""
    kind, seen, rejected = columns([value], declared)
    assert seen == [value]
    assert type(seen[0]) is type(value)
    assert (kind == declared, rejected) == (False, [])


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (1, pa.int8()),
        (1.0, pa.int64()),
        (0.1, pa.float32()),
        (1, pa.decimal128(10, 2)),
        ("a", pa.large_string()),
        ("a", pa.dictionary(pa.int8(), pa.string())),
        (NAIVE, pa.timestamp("s")),
        (NAIVE, pa.timestamp("ns")),
        (datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))), pa.timestamp("us", "UTC")),
        ({"a": 1}, pa.struct([("a", pa.int64()), ("b", pa.string())])),
        (None, pa.int64()),
    ],
)
def test_declared_type_is_taken_where_it_holds_the_value(value: Any, declared: pa.DataType) -> None:
    kind, _, rejected = columns([value], declared)
    assert (kind, rejected) == (declared, [])


def test_times_with_any_offset_are_kept_in_utc() -> None:
    """Otherwise the first record of each batch would choose the type."""
    kind, seen, _ = columns([datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))), AWARE])
    assert kind == pa.timestamp("us", "UTC")
    assert seen == [datetime(2026, 1, 1, tzinfo=UTC), AWARE]


def test_rejected_record_is_kept_whole() -> None:
    table, rejected = muxly.Batch([{"id": 1, "n": 1}, {"id": 2, "n": "x"}, {"id": 3, "n": 3}]).to_arrow()
    assert table.to_pylist() == [{"id": 1, "n": 1}, {"id": 3, "n": 3}]
    assert rejected == [muxly.Rejected("column 'n': 'x' does not fit the type int64", record={"id": 2, "n": "x"})]


def test_record_with_two_misfits_is_rejected_once() -> None:
    records = [{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": "x", "b": "y"}]
    assert len(muxly.Batch(records).to_arrow()[1]) == 1


def test_reason_is_short_and_printable() -> None:
    _, _, rejected = columns([1, 2, "\x1b[31m" + "x" * 10_000])
    assert len(rejected[0]) < 150
    assert rejected[0].isprintable()


def test_column_that_nobody_can_hold_rejects_its_records() -> None:
    table, rejected = muxly.Batch([{"id": 1, "what": object()}, {"id": 2, "what": None}]).to_arrow()
    assert table.column("id").to_pylist() == [2]
    assert len(rejected) == 1


def test_uuids_come_back_equal() -> None:
    one = uuid.UUID(int=1)
    assert columns([one])[1] == [one]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
    st.lists(st.integers(0, 3), max_size=2),
)


@given(st.lists(VALUES, max_size=8))
def test_no_value_is_ever_changed_or_lost(values: list[Any]) -> None:
    """Whatever is mixed: each record is in the table, equal, or set aside."""
    table, rejected = muxly.Batch([{"id": number, "c": value} for number, value in enumerate(values)]).to_arrow()
    seen = {record["id"]: record["c"] for record in table.to_pylist()}
    aside = {one.record["id"] for one in rejected}
    assert sorted([*seen, *aside]) == list(range(len(values)))
    for number, value in seen.items():
        assert value == values[number] or (math.isnan(value) and math.isnan(values[number]))
        assert isinstance(value, bool) == isinstance(values[number], bool)
