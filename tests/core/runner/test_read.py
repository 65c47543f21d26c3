"""Reading one stream into memory."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

import muxly
from muxly_testing import FakeConnector, Fault


def test_reads_a_stream_into_arrow_pandas_polars_and_duckdb() -> None:
    source = FakeConnector(records=120)
    reading = muxly.read(source, "numbers")
    assert reading.to_arrow().to_pylist() == source.expected()
    assert len(reading.to_pandas()) == 120
    frame = reading.to_polars()
    assert isinstance(frame, pl.DataFrame)
    assert frame["id"].to_list() == list(range(120))
    with duckdb.connect() as connection:
        assert connection.execute("select sum(id) from reading").fetchall() == [(sum(range(120)),)]


def test_reads_by_the_name_of_an_installed_connector(tmp_path: Path) -> None:
    path = f"{tmp_path}/a.csv"
    with Path(path).open("w", encoding="utf-8") as file:
        file.write("id,name\n1,x\n2,y\n")
    assert muxly.read("file", "a", path=path).to_arrow().to_pylist() == [
        {"id": 1, "name": "x"},
        {"id": 2, "name": "y"},
    ]


def test_unknown_stream_names_the_nearest() -> None:
    with pytest.raises(muxly.ConfigurationError, match='did you mean "numbers"'):
        muxly.read(FakeConnector(), "number").to_arrow()


def test_unknown_connector_names_the_nearest() -> None:
    with pytest.raises(muxly.PluginError, match='did you mean "file"'):
        muxly.read("fil", "a")


def test_wrong_option_is_a_configuration_error() -> None:
    with pytest.raises(muxly.ConfigurationError, match="pathh"):
        muxly.read("file", "a", pathh="x")


def test_options_beside_a_connector_are_refused() -> None:
    with pytest.raises(muxly.ConfigurationError, match="with a connector name"):
        muxly.read(FakeConnector(), "numbers", records=3)


def test_retryable_errors_are_retried_without_repeats() -> None:
    source = FakeConnector(records=500, faults=[Fault(method="read", action="RetryableError", at=3, times=2)])
    assert [record["id"] for record in muxly.read(source, "numbers").to_arrow().to_pylist()] == list(range(500))


def test_children_can_be_read_through_their_parent() -> None:
    source = FakeConnector(records=30, children=True)
    assert muxly.read(source, "numbers.parts").to_arrow().to_pylist() == source.expected("numbers.parts")


def test_columns_that_come_later_are_null_before() -> None:
    table = muxly.read(FakeConnector(records=300, extra_from=200), "numbers").to_arrow()
    assert table.column("extra").null_count == 200


def test_unreadable_records_are_told() -> None:
    reading = muxly.read(FakeConnector(records=50, bad=[4]), "numbers")
    assert reading.to_arrow().num_rows == 49
    assert len(reading.rejected) == 1


def test_empty_stream_is_an_empty_table() -> None:
    assert muxly.read(FakeConnector(records=0), "numbers").to_arrow().num_rows == 0
