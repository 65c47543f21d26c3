from __future__ import annotations

import errno
import gzip
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import muxly
from muxly_connector_file import _storage, _text
from muxly_connector_file._text import last_line_end
from tests.connector_file.reading import opened, read_all


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.jsonl").touch()
    read = read_all(tmp_path / "a.csv")
    assert not read.batches
    assert [one.code for one in read.notices] == ["empty_file"]
    assert not read_all(tmp_path / "a.jsonl").batches


def test_a_header_alone_has_no_records(tmp_path: Path) -> None:
    for content in ("a,b", "a,b\n", "a,b\r\n\r\n"):
        (tmp_path / "a.csv").write_text(content)
        read = read_all(tmp_path / "a.csv")
        assert not read.records
        assert not read.rejected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1....", "not UTF-8 text but a Parquet file: set format: parquet"),
        (b"PK\x03\x04", "a ZIP archive"),
        ("a,b\n".encode("utf-16"), "UTF-16 text: set encoding: utf-16"),
        (b"\x7fELF\x02\x01", "a program"),
        (b"\xde\xad\xbe\xef\n", r"the header is not utf-8 text \(byte 2\)"),
        (b"a\0b,c\n1,2\n", "the header holds NUL bytes"),
        (b"\n\n\n", "has only empty lines"),
        (b'"a,b\n', "never closed"),
        (b"x" * 100_000, "more than record_bytes allows"),
    ],
)
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(muxly.StreamError, match=rf"a\.csv.*{message}"):
        read_all(tmp_path / "a.csv", block_bytes=1024, record_bytes=2048)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_compressed_files_that_are_cut_short_or_damaged_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.jsonl.{'gz' if kind == 'gzip' else 'zst'}"
    with pa.CompressedOutputStream(str(path), kind) as file:
        file.write(b"".join(b'{"a":%d}\n' % n for n in range(5000)))
    assert len(read_all(path).records) == 5000
    content = path.read_bytes()
    for size in (0, 1, 3, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(muxly.StreamError, match=r"a\.jsonl\.\w+ (cannot be decompressed|is cut short)"):
            read_all(path)
    if kind == "gzip":
        path.write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])
        with pytest.raises(muxly.StreamError, match="incorrect data check; write it again"):
            read_all(path)


def test_what_comes_before_the_damage_is_read_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(
        gzip.compress(os.urandom(60_000).hex().encode().replace(b"0", b"\n").replace(b"\n\n", b"\n"))[:-2000]
    )
    connector, _notices = opened(path, block_bytes=1024)
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    batches = connector.read(stream, partition, None)
    assert next(batches).cursor["byte"] <= 1024
    with pytest.raises(muxly.StreamError, match="truncated compressed stream"):
        list(batches)


def test_a_damaged_file_may_become_a_dead_letter_while_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    (tmp_path / "b.jsonl").write_text('{"a":1}\n')
    read = read_all(f"{tmp_path}/*.*", stream="s", damaged="reject")
    assert read.records == [{"a": 1}]
    [rejected] = read.rejected
    assert rejected.place == "a.parquet"
    assert "damaged or cut short" in rejected.reason


def test_plain_text_behind_a_name_of_compression_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text('{"a":1}\n')
    assert read_all(tmp_path / "a.jsonl.gz").records == [{"a": 1}]


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n'))
    assert read_all(tmp_path / "a.jsonl.gz").records == [{"a": 1}, {"a": 2}]


def test_a_file_that_changed_after_the_plan_is_left_to_the_next_plan(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n')
    connector, notices = opened(path)
    [stream] = connector.streams()
    plan = connector.plan(stream, None)
    path.write_text('{"a":2}\n{"a":3}\n')
    assert not list(connector.read(stream, plan.partitions[0], None))
    assert [one.code for one in notices] == ["file_changed"]
    again = connector.plan(stream, plan.cursor)
    assert len(again.partitions) == 1
    [batch] = connector.read(stream, again.partitions[0], None)
    assert batch.data.to_pylist() == [{"a": 2}, {"a": 3}]


def test_a_file_that_vanished_is_told_and_read_if_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n')
    connector, _notices = opened(f"{tmp_path}/*.jsonl", stream="s")
    [stream] = connector.streams()
    plan = connector.plan(stream, None)
    path.unlink()
    [batch] = connector.read(stream, plan.partitions[0], None)
    [rejected] = batch.rejected
    assert rejected.place == "a.jsonl"
    assert "vanished before all of it was read" in rejected.reason


def test_a_file_deleted_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"a":{n}}}\n' for n in range(100)))
    connector, _notices = opened(path, block_bytes=64)
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    batches = connector.read(stream, partition, None)
    first = next(batches)
    path.unlink()
    records = [one for batch in (first, *batches) for one in batch.data.to_pylist()]
    assert len(records) == 100


class Refusing(_storage.LocalFiles):
    """Files that cannot be opened, for a reason of the operating system."""

    def __init__(self, number: int) -> None:
        self._number = number

    def open(self, path: str) -> object:  # type: ignore[override]
        raise OSError(self._number, os.strerror(self._number), path)


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EACCES, muxly.StreamError, "Permission denied; grant read access to it"),
        (errno.EIO, muxly.RetryableError, "cannot be read just now"),
        (errno.ESTALE, muxly.RetryableError, "cannot be read just now"),
        (errno.EFBIG, muxly.StreamError, "check the disk or share it is on"),
    ],
)
def test_refusals_of_the_operating_system(
    tmp_path: Path, number: int, kind: type[muxly.MuxlyError], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"a":1}\n')
    connector, _notices = opened(tmp_path / "a.jsonl")
    connector._files = Refusing(number)  # type: ignore[assignment]
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    with pytest.raises(kind, match=message):
        list(connector.read(stream, partition, None))
    if number == errno.EACCES:
        assert [one.level for one in connector.check()] == ["error", "info"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()

    def scandir(folder: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    connector, _notices = opened(f"{tmp_path}/**/*.csv", stream="s")
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(muxly.StreamError, match="cannot be listed: Permission denied; grant access to it"):
        connector.plan(next(iter(connector.streams())), None)


BOMB = """
import resource, sys
from tests.connector_file.reading import opened
connector, _ = opened(sys.argv[1], record_bytes=4 << 20, block_bytes=1 << 20)
[stream] = connector.streams()
[partition] = connector.plan(stream, None).partitions
import pyarrow, pyarrow.json, pyarrow.csv
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rejected = sum(len(batch.rejected) for batch in connector.read(stream, partition, None))
print(rejected, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "line.jsonl", "line.csv"])
def test_a_bomb_or_an_endless_line_stays_within_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".gz"):
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(200):
                file.write(b"x" * (1 << 20))
    else:
        with path.open("wb") as plain:
            plain.write(b"a,b\n" if name.endswith(".csv") else b"")
            plain.seek(200 << 20, os.SEEK_CUR)
            plain.write(b"\n")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)], check=True, capture_output=True, text=True, cwd=root, timeout=120
    )
    rejected, grown = map(int, done.stdout.split())
    assert rejected == 1
    assert grown < 60


def test_memory_is_measured_in_kilobytes_here() -> None:
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 10_000


def test_blocks_depend_on_nothing_but_where_they_start(tmp_path: Path) -> None:
    content = b"".join(b"%d,%s\n" % (n, b"x" * (n % 17)) for n in range(200))
    path = tmp_path / "a.txt"
    path.write_bytes(content)

    def from_(at: int, line: int) -> list[_text.TextBlock | _text.OverlongRecord]:
        with path.open("rb") as raw:
            stream = _text.open_text(raw, "a.txt", "auto", "utf-8")
            return list(
                _text.blocks(stream, last_line_end, block_bytes=64, record_bytes=64, at=at, line=line, lone_cr=True)
            )

    whole = from_(0, 1)
    assert b"".join(one.data for one in whole if isinstance(one, _text.TextBlock)) == content
    for index, one in enumerate(whole):
        assert from_(one.end, one.next_line) == whole[index + 1 :]
