from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars
import pyarrow as pa
import pytest

from muxly import StreamError
from tests.connector_file.reading import read_all, resumed

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, counts: list[int], *, stream: bool = False) -> list[dict[str, object]]:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    rows: list[dict[str, object]] = [{"id": n, "text": f"text {n}"} for n in range(sum(counts))]
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), schema) as writer:
        start = 0
        for count in counts:
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + count], schema))
            start += count
    return rows


@pytest.mark.parametrize("stream", [False, True])
def test_files_and_streams_resume_at_every_cursor(tmp_path: Path, stream: bool) -> None:
    rows = write(tmp_path / "a.arrow", [100, 0, 37, 250], stream=stream)
    seen = 0
    for whole, parts in resumed(tmp_path / "a.arrow", batch_records=64):
        assert max(table.num_rows for table in whole.tables) <= 64
        assert parts.records == whole.records == rows
        seen += 1
    assert seen == 2 + 1 + 4


def test_what_polars_writes_comes_back(tmp_path: Path) -> None:
    frame = polars.DataFrame({"a": [1, None], "b": ["x", "ä"], "c": [[1.5], None]})
    frame.write_ipc(tmp_path / "a.feather", compression="zstd")
    assert read_all(tmp_path / "a.feather").records == frame.to_dicts()


def test_a_file_without_records_still_tells_its_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", [])
    [batch] = read_all(tmp_path / "a.arrow").batches
    assert batch.data.schema.names == ["id", "text"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, stream: bool) -> None:
    write(tmp_path / "a.arrow", [100, 100], stream=stream)
    content = (tmp_path / "a.arrow").read_bytes()
    for size in (0, 4, 60, len(content) // 2):
        (tmp_path / "a.arrow").write_bytes(content[:size])
        with pytest.raises(StreamError, match=r"a\.arrow: the Arrow file is damaged or cut short"):
            read_all(tmp_path / "a.arrow")


def test_flipped_bits_give_records_or_an_error_that_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", [50])
    content = (tmp_path / "a.arrow").read_bytes()
    dice = random.Random(1)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (tmp_path / "a.arrow").write_bytes(damaged)
        try:
            read_all(tmp_path / "a.arrow")
        except StreamError as error:
            assert "a.arrow" in error.message  # noqa: PT017 - either outcome is right
