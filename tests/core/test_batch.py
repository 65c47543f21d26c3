"""Batches take what users have: dicts, Arrow, data frames; and refuse what is no records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import muxly

RECORDS = [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
TABLE = pa.table({"id": [1, 2], "name": ["a", None]})

SOURCES: dict[str, Callable[[], Any]] = {
    "records": lambda: RECORDS,
    "generator": lambda: (record for record in RECORDS),
    "table": lambda: TABLE,
    "record batch": lambda: TABLE.to_batches()[0],
    "chunks": lambda: pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
    "reader": TABLE.to_reader,
    "polars": lambda: pl.DataFrame(RECORDS),
    "pandas": lambda: pd.DataFrame({"id": [1, 2], "name": ["a", None]}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_shape_of_records_becomes_a_table(name: str) -> None:
    table, rejected = muxly.Batch(SOURCES[name]()).to_arrow()
    assert table.to_pylist() == RECORDS
    assert rejected == []


def test_result_of_duckdb_becomes_a_table() -> None:
    with duckdb.connect() as database:
        relation = database.sql("SELECT * FROM (VALUES (1::BIGINT, 'a'), (2::BIGINT, NULL)) AS t(id, name)")
        assert muxly.Batch(relation).to_arrow()[0].to_pylist() == RECORDS


class OnlyArray:
    """An object with the PyCapsule method of one array, as arro3's batches have."""

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return TABLE.to_batches()[0].__arrow_c_array__(requested_schema)


def test_object_with_one_arrow_array_becomes_a_table() -> None:
    assert muxly.Batch(OnlyArray()).to_arrow()[0].to_pylist() == RECORDS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id": 1}, r"put the one record into a list: Batch\(\[record\]\)"),
        ("text", "a batch takes records .* not str"),
        (b"bytes", "a batch takes records .* not bytes"),
        (5, "a batch takes records .* not int"),
        ([{"id": 1}, [2]], "record 1 of the batch is list, not a dict"),
        ([None], "record 0 of the batch is NoneType, not a dict"),
        (["ab"], "record 0 of the batch is str, not a dict"),
    ],
)
def test_what_is_no_records_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        muxly.Batch(wrong)


def test_column_names_are_text() -> None:
    with pytest.raises(TypeError, match="1 is not a column name"):
        muxly.Batch([{1: "a"}]).to_arrow()


@pytest.mark.parametrize("empty", [None, [], (), pa.table({}), pa.table({"id": pa.array([], pa.int64())})])
def test_batch_without_records_is_legal(empty: Any) -> None:
    assert muxly.Batch(empty, cursor=5).to_arrow()[0].num_rows == 0


def test_records_without_columns_are_counted() -> None:
    assert muxly.Batch([{}, {}, {}]).to_arrow()[0].num_rows == 3


def test_record_may_lack_columns_and_bring_new_ones() -> None:
    table, _ = muxly.Batch([{"a": 1}, {"b": 2}, {"a": 3, "c": 4}]).to_arrow()
    assert table.to_pylist() == [
        {"a": 1, "b": None, "c": None},
        {"a": None, "b": 2, "c": None},
        {"a": 3, "b": None, "c": 4},
    ]


def test_only_data_and_cursor_go_by_place() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        muxly.Batch([], 1, "stream")  # type: ignore[call-arg]
    batch = muxly.Batch(
        [], 1, stream="parts", replaces=["2026-01-01"], rejected=[muxly.Rejected("bad", place="a.csv:2")]
    )
    assert (batch.stream, batch.replaces, batch.rejected[0].place) == ("parts", ("2026-01-01",), "a.csv:2")


def test_ten_thousand_columns_are_no_trouble() -> None:
    record = {f"c{number}": number for number in range(10_000)}
    assert muxly.Batch([record]).to_arrow()[0].num_columns == 10_000
