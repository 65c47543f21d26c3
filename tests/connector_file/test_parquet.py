from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly import StreamError
from tests.connector_file.reading import opened, read_all, resumed

if TYPE_CHECKING:
    from pathlib import Path

NO_RESET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)


def numbers(count: int) -> pa.Table:
    return pa.table({"id": range(count), "text": [f"text {n}" for n in range(count)]})


def test_types_come_from_the_file(tmp_path: Path) -> None:
    frame = polars.DataFrame({"a": [1, None], "b": ["x", None], "c": [[1.5], []], "d": [b"\xff", None]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_all(tmp_path / "a.parquet").records == frame.to_dicts()
    # Not the connection that all tests share: another may have left a result on it.
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1.25::DECIMAL(5,2) AS a, DATE '2020-01-01' AS b) TO '{tmp_path}/b.parquet'")
    [table] = read_all(tmp_path / "b.parquet").tables
    assert table.schema.types == [pa.decimal128(5, 2), pa.date32()]


def test_batches_are_bounded_and_resume_inside_a_row_group(tmp_path: Path) -> None:
    pq.write_table(numbers(1000), tmp_path / "a.parquet", row_group_size=300)
    seen = 0
    for whole, parts in resumed(tmp_path / "a.parquet", batch_records=128):
        assert max(table.num_rows for table in whole.tables) <= 128
        assert parts.records == whole.records == numbers(1000).to_pylist()
        seen += 1
    assert seen >= 8


@NO_RESET
@given(st.integers(0, 40), st.integers(1, 10), st.integers(1, 10))
def test_any_division_gives_the_same_records(tmp_path: Path, count: int, group: int, batch: int) -> None:
    pq.write_table(numbers(count), tmp_path / "a.parquet", row_group_size=group)
    assert read_all(tmp_path / "a.parquet", batch_records=batch).records == numbers(count).to_pylist()
    for whole, parts in resumed(tmp_path / "a.parquet", batch_records=batch):
        assert parts.records == whole.records


def test_a_file_without_records_still_tells_its_columns(tmp_path: Path) -> None:
    pq.write_table(numbers(0), tmp_path / "a.parquet")
    [batch] = read_all(tmp_path / "a.parquet").batches
    assert batch.data.schema.names == ["id", "text"]


def test_only_wanted_columns_are_read(tmp_path: Path) -> None:
    pq.write_table(numbers(3), tmp_path / "a.parquet")
    connector, _notices = opened(tmp_path / "a.parquet")
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    [batch] = connector.read(attrs.evolve(stream, columns=("text",)), partition, None)
    assert batch.data.schema.names == ["text"]


def test_given_types_are_cast_to(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "day": ["2020-01-01", None]}), tmp_path / "a.parquet")
    [table] = read_all(tmp_path / "a.parquet", types={"id": "int8", "day": "date"}).tables
    assert table.schema.types == [pa.int8(), pa.date32()]
    pq.write_table(pa.table({"id": [1, 300]}), tmp_path / "b.parquet")
    with pytest.raises(StreamError, match=r"b\.parquet: column 'id' is int64 and does not fit the type int8"):
        read_all(tmp_path / "b.parquet", types={"id": "int8"})


def test_a_corrupt_row_group_is_named_after_the_good_ones_were_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(numbers(3000), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    facts = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = facts.data_page_offset
    content[start : start + facts.total_compressed_size] = b"\xff" * facts.total_compressed_size
    path.write_bytes(content)
    connector, _notices = opened(path)
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    batches = connector.read(stream, partition, None)
    assert next(batches).cursor == {"row_group": 0, "records": 1000}
    with pytest.raises(StreamError, match=r"a\.parquet: the row group 1 of the Parquet file is damaged"):
        next(batches)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(numbers(1000), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StreamError, match=r"a\.parquet: the Parquet file is damaged or cut short"):
        read_all(path)


def test_text_that_is_not_utf8_is_set_aside_record_by_record(tmp_path: Path) -> None:
    binary = pa.array([b"good", b"b\xff", None, b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 4, binary.buffers())
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": text}), tmp_path / "a.parquet")
    read = read_all(tmp_path / "a.parquet")
    assert [one["id"] for one in read.records] == [1, 3, 4]
    [rejected] = read.rejected
    assert rejected.record == {"id": 2, "text": b"b\xff"}
    assert rejected.place == "a.parquet, row group 0, record 2"
    assert rejected.reason == "column 'text' is not UTF-8 text"
