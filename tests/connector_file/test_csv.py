from __future__ import annotations

import csv
import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import polars
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_connector_file import Csv
from tests.connector_file.reading import read_all, resumed

if TYPE_CHECKING:
    from pathlib import Path

# Every example opens files: few of them, so that the suite stays quick.
NO_RESET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "text": st.none() | TEXT,
            "day": st.none() | st.dates(),
            "ratio": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        }
    ),
    min_size=1,
    max_size=12,
)
SMALL = {"block_bytes": 64, "record_bytes": 1 << 20}


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_types_are_inferred_and_an_empty_cell_is_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,price,day,name\n1,1.5,2020-01-01,x\n2,,,""\n')
    read = read_all(path)
    assert read.records == [
        {"id": 1, "price": 1.5, "day": datetime.date(2020, 1, 1), "name": "x"},
        {"id": 2, "price": None, "day": None, "name": ""},
    ]
    assert not read.rejected


def test_quoted_line_ends_crlf_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfid,text\r\n1,"a\r\nb"\r\n2,"say ""hi"", then"\r\n')
    assert read_all(path).records == [{"id": 1, "text": "a\r\nb"}, {"id": 2, "text": 'say "hi", then'}]


def test_lines_that_end_in_cr_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,text\r1,a\r2,b\r")
    assert read_all(path).records == [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]


def test_a_ragged_record_becomes_a_dead_letter_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n\n2\n3,z\n4,5,6\n')
    read = read_all(path)
    assert [one["a"] for one in read.records] == [1, 3]
    assert [(one.place, one.record, one.reason) for one in read.rejected] == [
        ("a.csv:5", "2", "1 cell where 2 columns are expected"),
        ("a.csv:7", "4,5,6", "3 cells where 2 columns are expected"),
    ]


def test_a_value_that_does_not_fit_a_given_type_becomes_a_dead_letter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,price\n1,1.50\nx,2.00\n3,1.234\n4,4.00\n")
    read = read_all(path, types={"id": "int64", "price": "decimal(12, 2)"})
    assert [one["id"] for one in read.records] == [1, 4]
    assert [(one.place, one.record) for one in read.rejected] == [("a.csv:3", "x,2.00"), ("a.csv:4", "3,1.234")]
    assert read.rejected[0].reason == "column 'id': 'x' is no int64"


def test_a_line_that_is_not_utf8_becomes_a_dead_letter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'id,name\n1,a\n2,\xff\n3,"\xc3\xa4\n"\n4,\xff\xfe,x\n')
    read = read_all(path)
    assert read.records == [{"id": 1, "name": "a"}, {"id": 3, "name": "ä\n"}]
    assert [(one.place, one.record) for one in read.rejected] == [("a.csv:3", b"2,\xff"), ("a.csv:6", b"4,\xff\xfe,x")]


def test_dead_letters_stand_in_the_order_of_the_file_whatever_is_wrong_with_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,n\n1\n2,\xff\n3,x\n4,\xff\n5,6,7\n8,9\n")
    read = read_all(path, types={"n": "int64"})
    assert [one.place for one in read.rejected] == [f"a.csv:{line}" for line in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize(
    ("name", "header", "shown", "told"),
    [
        ("a.csv", "id;name", "';'", 'csv: {delimiter: ";"}'),
        ("a.csv", "id\tname", r"'\t'", r'csv: {delimiter: "\t"}'),
        ("a.csv", "id|name;x|y", "'|'", 'csv: {delimiter: "|"}'),
        ("a.tsv", "id,name", "','", 'csv: {delimiter: ","}'),
    ],
)
def test_a_delimiter_that_looks_wrong_is_told(tmp_path: Path, name: str, header: str, shown: str, told: str) -> None:
    [notice] = read_all(write(tmp_path / name, f"{header}\n1\n")).notices
    assert (notice.code, notice.level) == ("delimiter", "warning")
    assert (
        notice.message
        == f"{name} is read as one column, but looks as if {shown} separates its cells; if so, set {told}"
    )


@pytest.mark.parametrize("header", ["id", "id,a;b", "the name"])
def test_a_header_that_looks_right_is_not_remarked(tmp_path: Path, header: str) -> None:
    assert read_all(write(tmp_path / "a.csv", f"{header}\n1\n")).notices == []


def test_another_type_after_the_head_of_the_file_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    lines = [f"{n},{n}" for n in range(40)] + ["40,n/a", "41,7", "42,1.5", "43,8", "44,007", "45,9"]
    path = write(tmp_path / "a.csv", "id,value\n" + "\n".join(lines) + "\n")
    read = read_all(path, block_bytes=64)
    assert [one["id"] for one in read.records] == list(range(46))
    assert [one["value"] for one in read.records][40:] == ["n/a", 7, 1.5, 8, "007", 9]
    kinds = {table.schema.field("value").type for table in read.tables}
    assert kinds == {pa.int64(), pa.string(), pa.float64()}


def test_types_that_alternate_make_few_batches(tmp_path: Path) -> None:
    lines = [f"{n},{n}" for n in range(400)] + [f"{n},{'x' if n % 2 else n}" for n in range(400, 800)]
    path = write(tmp_path / "a.csv", "id,value\n" + "\n".join(lines) + "\n")
    read = read_all(path, block_bytes=2048)
    assert len(read.batches) < 60
    assert [str(one["value"]) for one in read.records] == [line.split(",")[1] for line in lines]


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path) -> None:
    lines = [f"{n},text {n}" for n in range(100)]
    lines[40] = '40,"open'
    path = write(tmp_path / "a.csv", "id,text\n" + "\n".join(lines) + "\n")
    read = read_all(path, block_bytes=128, record_bytes=256)
    assert [one["id"] for one in read.records] == [n for n in range(100) if n != 40]
    assert [(one.place, one.record) for one in read.rejected] == [("a.csv:42", '40,"open')]
    assert "never closed" in read.rejected[0].reason


def test_a_line_beyond_the_limit_is_cut_and_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"id,text\n1,a\n2,")
        for _ in range(300):
            file.write(b"x" * 100_000)
        file.write(b"\n3,b\n")
    read = read_all(path, block_bytes=65_536, record_bytes=1 << 20)
    assert [one["id"] for one in read.records] == [1, 3]
    [rejected] = read.rejected
    assert rejected.place == "a.csv:3"
    assert "30,000,003 bytes" in rejected.reason
    assert len(rejected.record) <= 65_536


def test_columns_named_twice_or_not_at_all_get_names_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,a,,a_2,a\n1,2,3,4,5\n")
    read = read_all(path)
    [record] = read.records
    assert list(record.values()) == [1, 2, 3, 4, 5]
    assert len(record) == 5
    assert record["a"] == 1
    assert record["a_2"] == 4
    assert [one.code for one in read.notices] == ["columns_renamed"]


def test_the_dialect_is_up_to_the_user(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "1;'x;y';NA\n2;NA;3,5\n")
    read = read_all(
        path,
        format="csv",
        csv=Csv(delimiter=";", quote="'", header=False, columns=["a", "b", "c"], null_values=["NA"]),
    )
    assert read.records == [{"a": 1, "b": "x;y", "c": None}, {"a": 2, "b": None, "c": "3,5"}]


def test_a_file_without_header_and_names_gets_numbered_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,x\n2,y\n")
    assert read_all(path, csv=Csv(header=False)).records == [
        {"column_1": 1, "column_2": "x"},
        {"column_1": 2, "column_2": "y"},
    ]


def test_tsv_files_have_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\n1\tx,y\n")
    assert read_all(path).records == [{"a": 1, "b": "x,y"}]


def test_an_empty_line_in_a_file_of_one_column_is_a_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n1\n\n3\n")
    assert [one["a"] for one in read_all(path).records] == [1, None, 3]


def test_other_encodings_are_translated_and_bad_lines_set_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,name\n1,Größe\n".encode("cp1252") + b"2,\x81\n3,x\n")
    read = read_all(path, encoding="cp1252")
    assert read.records == [{"id": 1, "name": "Größe"}, {"id": 3, "name": "x"}]
    assert [one.place for one in read.rejected] == ["a.csv:3"]
    path = write(tmp_path / "b.csv", "id,name\n1,Größe\n2,😀\n".encode("utf-16"))
    assert read_all(path, encoding="utf-16").records == [{"id": 1, "name": "Größe"}, {"id": 2, "name": "😀"}]


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(10_000)]
    path = write(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join("1" * 10_000) + "\n")
    [record] = read_all(path).records
    assert record == dict.fromkeys(names, 1)


def test_nul_bytes_in_cells_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"a,b\nx\0y,1\n")
    assert read_all(path).records == [{"a": "x\0y", "b": 1}]


def test_only_wanted_columns_are_kept(tmp_path: Path) -> None:
    import attrs

    from tests.connector_file.reading import opened

    path = write(tmp_path / "a.csv", "a,b,c\n1,2,3\n")
    connector, _notices = opened(path)
    [stream] = connector.streams()
    [partition] = connector.plan(stream, None).partitions
    [batch] = connector.read(attrs.evolve(stream, columns=("c", "a")), partition, None)
    assert batch.data.to_pylist() == [{"a": 1, "c": 3}]


@NO_RESET
@given(ROWS)
def test_what_polars_writes_comes_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.csv"
    schema = {"id": polars.Int64, "text": polars.String, "day": polars.Date, "ratio": polars.Float64}
    polars.DataFrame(rows, schema=schema).write_csv(path)
    types = {"id": "int64", "text": "string", "day": "date", "ratio": "float64"}
    assert read_all(path, types=types, **SMALL).records == rows


@NO_RESET
@given(ROWS)
def test_what_python_writes_comes_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, rows[0], quoting=csv.QUOTE_NOTNULL if hasattr(csv, "QUOTE_NOTNULL") else csv.QUOTE_ALL
        )
        writer.writeheader()
        writer.writerows(rows)
    read = read_all(path, types={"text": "string"}, **SMALL)
    assert not read.rejected
    assert [one["id"] for one in read.records] == [one["id"] for one in rows]
    assert [one["text"] or None for one in read.records] == [one["text"] or None for one in rows]


@NO_RESET
@given(st.lists(st.tuples(st.integers(), TEXT.filter(lambda one: "\0" not in one)), min_size=1, max_size=8))
def test_what_duckdb_writes_comes_back(tmp_path: Path, rows: list[tuple[int, str]]) -> None:
    path = tmp_path / "a.csv"
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (id VARCHAR, text VARCHAR)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(str(number), text) for number, text in rows])
    connection.execute(f"COPY t TO '{path}' (HEADER, FORCE_QUOTE *)")
    read = read_all(path, types={"id": "string", "text": "string"}, **SMALL)
    assert [(one["id"], one["text"]) for one in read.records] == [(str(number), text) for number, text in rows]


@NO_RESET
@given(st.binary(max_size=200), st.integers(16, 80))
def test_any_bytes_below_a_header_are_records_or_dead_letters(tmp_path: Path, content: bytes, block: int) -> None:
    path = write(tmp_path / "a.csv", b"a,b\n" + content)
    read = read_all(path, block_bytes=block, record_bytes=block)
    found = len(read.records) + len(read.rejected)
    assert found or not content.strip(b"\r\n")


@NO_RESET
@given(ROWS, st.sampled_from([32, 64, 200]))
def test_reading_resumes_at_every_cursor(tmp_path: Path, rows: list[dict[str, Any]], block: int) -> None:
    path = tmp_path / "a.csv"
    polars.DataFrame(rows, infer_schema_length=None).write_csv(path)
    for whole, parts in resumed(path, block_bytes=block, record_bytes=1 << 20):
        assert parts.records == whole.records
        assert [one.schema for one in parts.tables] == [one.schema for one in whole.tables]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_reading_resumes_in_compressed_files(tmp_path: Path, suffix: str) -> None:
    text = "id,text\n" + "".join(f'{n},"a\n{n}"\n' for n in range(50)) + "51\n"
    path = tmp_path / f"a.csv{suffix}"
    with (
        pa.CompressedOutputStream(str(path), {".gz": "gzip", ".zst": "zstd"}[suffix])
        if suffix
        else path.open("wb") as file
    ):
        file.write(text.encode())
    seen = 0
    for whole, parts in resumed(path, block_bytes=100):
        assert parts.records == whole.records
        assert parts.rejected == whole.rejected
        assert [one.place for one in whole.rejected] == [f"a.csv{suffix}:102"]
        seen += 1
    assert seen > 3


@NO_RESET
@given(
    st.lists(
        st.sampled_from([b"1", b"x", b'"', b",", b"\n", b"\r\n", b"\xff", b"\0", "ä".encode(), b" "]), max_size=40
    ),
    st.integers(16, 64),
)
def test_every_line_is_a_record_or_a_dead_letter(tmp_path: Path, pieces: list[bytes], block: int) -> None:
    content = b"".join(pieces)
    path = write(tmp_path / "a.csv", b"a,b\n" + content)
    read = read_all(path, block_bytes=block, record_bytes=block, csv=Csv(quote=""))
    lines = [line for line in content.replace(b"\r\n", b"\n").split(b"\n") if line]
    assert len(read.records) + len(read.rejected) == len(lines)


@NO_RESET
@given(st.lists(st.sampled_from([b"1,2", b"x", b'"', b",", b"\n", b'""', b'",', b',"', b"\xff"]), max_size=30))
def test_with_quotes_no_letter_is_lost(tmp_path: Path, pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    path = write(tmp_path / "a.csv", b"a,b\n" + content)
    read = read_all(path, block_bytes=32, record_bytes=32, types={"a": "string", "b": "string"})
    kept = [value.encode() for one in read.records for value in one.values() if value]
    raw = [one.record if isinstance(one.record, bytes) else one.record.encode() for one in read.rejected]
    for letter in (b"1", b"2", b"x", b"\xff"):
        assert b"".join([*kept, *raw]).count(letter) == content.count(letter)
