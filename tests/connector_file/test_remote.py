from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import muxly
from tests.connector_file.reading import opened, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def url() -> Iterator[str]:
    """A folder in a store that lives in this process."""
    folder = f"memory://{uuid.uuid4().hex}"
    yield folder
    fsspec.filesystem("memory").rm(folder, recursive=True)


def put(url: str, content: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(content)


def test_folders_patterns_and_formats_of_a_remote_store(url: str) -> None:
    put(f"{url}/a.csv", b"x\n1\n")
    put(f"{url}/b/c.jsonl", b'{"x":2}\n')
    with fsspec.open(f"{url}/b/d.parquet", "wb") as file:
        pq.write_table(pa.table({"x": [3]}), file)
    with fsspec.open(f"{url}/b/e.arrow", "wb") as file, pa.ipc.new_file(file, pa.schema([("x", pa.int64())])) as made:
        made.write_table(pa.table({"x": [4]}))
    assert sorted(one["x"] for one in read_all(url).records) == [1, 2, 3, 4]
    connector, _notices = opened(f"{url}/**/*.csv", stream="s")
    [stream] = connector.streams()
    assert [one.id for one in connector.plan(stream, None).partitions] == ["a.csv"]


def test_only_new_and_changed_files_are_read(url: str) -> None:
    put(f"{url}/a.csv", b"x\n1\n")
    put(f"{url}/b.csv", b"x\n1\n")
    connector, _notices = opened(f"{url}/*.csv", stream="s")
    [stream] = connector.streams()
    first = connector.plan(stream, None)
    assert not connector.plan(stream, first.cursor).partitions
    put(f"{url}/a.csv", b"x\n2\n")
    assert [one.id for one in connector.plan(stream, first.cursor).partitions] == ["a.csv"]


def test_a_single_file_and_what_is_missing(url: str) -> None:
    put(f"{url}/a.csv", b"x\n1\n")
    assert read_all(f"{url}/a.csv").records == [{"x": 1}]
    connector, _notices = opened(f"{url}/none.csv")
    with pytest.raises(muxly.StreamUnavailableError, match=r"none\.csv does not exist"):
        connector.plan(next(iter(connector.streams())), None)


def test_check_counts_remote_files(url: str) -> None:
    put(f"{url}/a.csv", b"x\n1\n")
    connector, _notices = opened(f"{url}/*.csv", stream="s")
    assert [one.message for one in connector.check()] == ["s: 1 file, 4 bytes"]


def test_an_unknown_kind_of_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(muxly.ConfigurationError, match="'nostore://a/b' cannot be used") as caught:
        opened("nostore://a/b")
    assert caught.value.path == ("path",)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(muxly.ConfigurationError, match=r'pip install "muxly-connector-file\[remote\]"'):
        opened("memory://a/b")
