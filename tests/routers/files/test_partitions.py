"""Records find the folder of their values, whatever the values are, or are refused by name."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import muxly
from muxly_routers._files import layout
from muxly_routers._files.partitions import Partitions, value_folders

KEY = layout.PartitionKey.parse


def folders(column: pa.Array, key: str = "c") -> list[str]:
    """The folder of each value."""
    batch = pa.record_batch({"c": column, "n": range(len(column))})
    found = {number: way for way, rows in Partitions((KEY(key),)).split(batch) for number in rows["n"].to_pylist()}
    return ["/".join(found[number]) for number in range(len(column))]


@settings(max_examples=40)
@given(st.integers(1, 20), st.lists(st.lists(st.integers(0, 15), min_size=20, max_size=20), min_size=1, max_size=40))
def test_records_of_as_many_levels_as_you_like_are_kept_apart(depth: int, rows: list[list[int]]) -> None:
    check_kept_apart(depth, rows)


def test_values_of_an_outer_level_are_kept_apart_however_many_combinations_there_could_be() -> None:
    """Sixteen values on each of seventeen levels are more than a number of 64 bits counts."""
    check_kept_apart(17, [[value] * 17 for value in range(16)] + [[1] + [0] * 16])


def check_kept_apart(depth: int, rows: list[list[int]]) -> None:
    keys = tuple(KEY(f"k{level}") for level in range(depth))
    batch = pa.record_batch({f"k{level}": [row[level] for row in rows] for level in range(depth)})
    for way, found in Partitions(keys).split(batch):
        wanted = {tuple(f"{name}={value}" for name, value in record.items()) for record in found.to_pylist()}
        assert wanted == {way}


def far(kind: pa.DataType, number: int) -> pa.Array:
    return pa.array([number], pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


@pytest.mark.parametrize("key", ["c", "year(c)", "hour(c)"])
@pytest.mark.parametrize(
    "column",
    [
        far(pa.date32(), 9_000_000),
        far(pa.timestamp("s"), 2**62),
        far(pa.timestamp("s", "Europe/Berlin"), 2**62),
        far(pa.timestamp("ms"), -(2**62)),
    ],
    ids=lambda column: str(column.type),
)
def test_time_without_a_four_digit_year_is_refused(column: pa.Array, key: str) -> None:
    with pytest.raises(muxly.RejectedError, match=r"column 'c': .* outside the years 1 to 9999"):
        folders(column, key)


def test_nanoseconds_name_no_folder_and_are_fine_inside_of_one() -> None:
    """Python has none, so that the name would follow from what else is installed."""
    odd, even = (pa.array([number], pa.timestamp("ns")) for number in (1, 1000))
    with pytest.raises(muxly.RejectedError, match=r"a time with nanoseconds names no folder; use hour\(c\)"):
        folders(odd)
    assert folders(even) == ["c=1970-01-01T00%3A00%3A00.000001"]
    assert folders(odd, "hour(c)") == ["hour=1970-01-01T00"]


def test_times_of_one_moment_have_one_folder_whatever_their_zone_is_called() -> None:
    for zone in ("UTC", "Europe/Berlin", "Not/AZone"):
        assert folders(pa.array([0], pa.timestamp("s", zone))) == ["c=1970-01-01T00%3A00%3A00Z"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([dt.date(2026, 1, 2), None], pa.date64()),
        pa.array(["a/b", None]).dictionary_encode(),
        pa.array([True, None]),
        pa.array([dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), None], pa.timestamp("ns", "Europe/Berlin")),
    ],
    ids=lambda column: str(column.type),
)
def test_value_to_overwrite_has_the_folder_of_its_records(column: pa.Array) -> None:
    schema = pa.schema({"c": column.type})
    values: list[Any] = column.to_pylist()
    assert ["/".join(value_folders([one], [KEY("c")], schema)) for one in values] == folders(column)
