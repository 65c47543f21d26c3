"""Each format holds each Arrow type exactly, or refuses it by name; another tool reads it back."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly
from muxly_routers._formats import Csv, Encoding, Parquet, open_encoder, read_digest, resolve

if TYPE_CHECKING:
    from pathlib import Path

UTC = dt.UTC
AT = dt.datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001


class Bytes:
    """A sink in memory that is a file to pyarrow."""

    closed = False

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        self.content += view
        return len(view)

    def tell(self) -> int:
        return len(self.content)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def encoding(format: Any, compression: Any = "auto", level: int | None = None, **csv_options: Any) -> Encoding:
    return resolve(format, compression, level, Csv(**csv_options), Parquet())


def encoded(how: Encoding, *batches: pa.RecordBatch) -> bytes:
    sink = Bytes()
    encoder = open_encoder(how, batches[0].schema, sink, digest="d1")
    for batch in batches:
        encoder.write(batch)
    encoder.finish()
    return bytes(sink.content)


def one_column(values: Any, kind: pa.DataType | None = None) -> pa.RecordBatch:
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pa.record_batch({"c": array})


EXACT: dict[str, tuple[pa.Array, list[Any]]] = {
    "int64": (pa.array([2**63 - 1, -(2**63), None]), [2**63 - 1, -(2**63), None]),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    "bool": (pa.array([True, False, None]), [True, False, None]),
    "double": (pa.array([0.1, -0.0, 1e300]), [0.1, -0.0, 1e300]),
    "half": (pa.array([0.5], pa.float16()), [0.5]),
    "null": (pa.nulls(2), [None, None]),
    "date32": (pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31)]), ["0001-01-01", "9999-12-31"]),
    "date64": (pa.array([dt.date(2024, 1, 2)], pa.date64()), ["2024-01-02"]),
    "naive": (pa.array([AT], pa.timestamp("us")), ["2024-02-29T23:59:59.123456"]),
    "utc": (pa.array([AT], pa.timestamp("us", "UTC")), ["2024-02-29T23:59:59.123456Z"]),
    "berlin": (pa.array([AT], pa.timestamp("us", "Europe/Berlin")), ["2024-02-29T23:59:59.123456Z"]),
    "nanoseconds": (pa.array([1], pa.timestamp("ns", "UTC")), ["1970-01-01T00:00:00.000000001Z"]),
    "time": (pa.array([dt.time(1, 2, 3, 4)], pa.time64("us")), ["01:02:03.000004"]),
    "duration": (pa.array([90061], pa.duration("s")), ["PT90061S"]),
    "text": (pa.array(['q"\n\r,é\x00\u2028👩', "", None]), ['q"\n\r,é\x00\u2028👩', "", None]),
    "large text": (pa.array(["a"], pa.large_string()), ["a"]),
    "text view": (pa.array(["a"], pa.string_view()), ["a"]),
    "bytes": (pa.array([b"\x00\xff"]), ["00ff"]),
    "bytes view": (pa.array([b"\x00"], pa.binary_view()), ["00"]),
    "fixed bytes": (pa.array([b"ab"], pa.binary(2)), ["6162"]),
    "dictionary": (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
    "run ends": (pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"]), ["x", "x", "y"]),
    "list": (pa.array([[1, None], None, []]), [[1, None], None, []]),
    "large list": (pa.array([[1]], pa.large_list(pa.int64())), [[1]]),
    "list view": (pa.array([[1]], pa.list_view(pa.int64())), [[1]]),
    "fixed list": (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), [[1, 2]]),
    "object": (pa.array([{"a": 1, "b": None}, None]), [{"a": 1, "b": None}, None]),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [{"k": 1}]),
    "objects in a list": (
        pa.array([[{"at": dt.datetime(2024, 1, 1, tzinfo=UTC), "x": Decimal("1.50")}]]),
        [[{"at": "2024-01-01T00:00:00Z", "x": 1.5}]],
    ),
    "dictionary in a list": (
        pa.ListArray.from_arrays([0, 2], pa.array(["a", "b"]).dictionary_encode()),
        [["a", "b"]],
    ),
    "uuid": (pa.array([b"0" * 16], pa.uuid()), ["30" * 16]),
}


@pytest.mark.parametrize("name", EXACT)
def test_jsonl_holds_each_type(name: str) -> None:
    array, wanted = EXACT[name]
    lines = encoded(encoding("jsonl"), one_column(array), one_column(array)).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [{"c": value} for value in wanted] * 2


@pytest.mark.parametrize("name", EXACT)
def test_csv_holds_each_type(name: str) -> None:
    array, wanted = EXACT[name]
    batch = pa.record_batch({"c": array, "n": pa.array(range(len(array)))})
    text = encoded(encoding("csv"), batch).decode()
    found = [row["c"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
    if pa.types.is_floating(array.type):
        assert [float(one) for one in found] == wanted
    else:
        assert found == [_csv_text(value) for value in wanted]


def _csv_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace('"x":1.5}', '"x":1.50}')


@pytest.mark.parametrize("name", [*EXACT])
@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_columnar_formats_hold_each_type(name: str, format: str, tmp_path: Path) -> None:
    array, _ = EXACT[name]
    path = tmp_path / "f"
    path.write_bytes(encoded(encoding(format), one_column(array), one_column(array)))
    found = pq.ParquetFile(path).read() if format == "parquet" else pa.ipc.open_file(path.read_bytes()).read_all()
    assert [str(one) for one in found["c"].to_pylist()] == [str(one) for one in array.to_pylist()] * 2
    with path.open("rb") as file:
        assert read_digest(encoding(format), file) == "d1"


@pytest.mark.parametrize(
    ("format", "array", "what"),
    [
        ("parquet", pa.array([pa.MonthDayNano([1, 2, 3])]), "the interval at c"),
        ("parquet", pa.array([{}], pa.struct([])), "the object without fields at c"),
        ("parquet", pa.array([[{"a": {}}]], pa.list_(pa.struct([("a", pa.struct([]))]))), r"at c\[\]\.a"),
        ("jsonl", pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64())), "map at c, whose keys are int64"),
        ("csv", pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64())), "map at c, whose keys are int64"),
    ],
)
def test_type_without_a_form_is_refused_by_column(format: str, array: pa.Array, what: str) -> None:
    with pytest.raises(muxly.RouteError, match=f"column 'c': {format} cannot hold .*{what}.*exclude"):
        encoded(encoding(format), one_column(array))


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
def test_two_columns_of_one_name_are_refused(format: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(muxly.RouteError, match="column 'a' is there more than once"):
        encoded(encoding(format), batch)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "array",
    [
        pa.array([253402300800], pa.timestamp("s", "UTC")),
        pa.array([-62135596801], pa.timestamp("s")),
        pa.array([2**31 - 1], pa.date32()),
        pa.array([[2**62]], pa.list_(pa.timestamp("s"))),
    ],
)
def test_time_without_a_four_digit_year_is_never_written_as_something_else(format: str, array: pa.Array) -> None:
    with pytest.raises(muxly.RejectedError, match="outside the years 1 to 9999"):
        encoded(encoding(format), one_column(array))


def test_parquet_rejects_a_time_that_it_would_change() -> None:
    with pytest.raises(muxly.RejectedError, match="parquet cannot hold a value"):
        encoded(encoding("parquet"), one_column([2**62], pa.timestamp("s")))


def test_jsonl_keeps_decimals_exact() -> None:
    values = [Decimal("1.50"), Decimal("-12345678901234567890.12")]
    lines = encoded(encoding("jsonl"), one_column(values, pa.decimal128(38, 2))).splitlines()
    assert [json.loads(line, parse_float=Decimal)["c"] for line in lines] == values
    wide = encoded(encoding("jsonl"), one_column([Decimal(10) ** 75], pa.decimal256(76, 0)))
    assert json.loads(wide)["c"] == 10**75


def test_csv_counts_only_the_nonfinite_numbers_that_become_null() -> None:
    """Those inside of JSON; a dot in the name of a column makes nothing nested."""
    nan = float("nan")
    batch = pa.record_batch({"a.b[]": [nan], "inside": [{"x": nan, "more": [nan, 1.0]}]})
    sink = Bytes()
    encoder = open_encoder(encoding("csv", line_end="lf"), batch.schema, sink, digest="d1")
    encoder.write(batch)
    encoder.finish()
    assert bytes(sink.content).splitlines()[1:] == [b'NaN,"{""x"":null,""more"":[null,1.0]}"']
    assert encoder.nonfinite == 2


def test_jsonl_writes_nonfinite_numbers_as_null_and_counts_them() -> None:
    nan = float("nan")
    batch = pa.record_batch({"a": [1.0, nan, None], "b": [[nan], [float("inf"), 2.0], []]})
    sink = Bytes()
    encoder = open_encoder(encoding("jsonl"), batch.schema, sink, digest="d")
    encoder.write(batch)
    encoder.finish()
    assert encoder.nonfinite == 3
    assert [json.loads(line) for line in bytes(sink.content).splitlines()] == [
        {"a": 1.0, "b": [None]},
        {"a": None, "b": [None, 2.0]},
        {"a": None, "b": []},
    ]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5), st.sampled_from([",", ";", "\t", "|"]))
def test_csv_of_any_text_is_read_back_by_python(rows: list[tuple[str, str]], delimiter: str) -> None:
    clean = [tuple(text.encode("utf-8", "replace").decode() for text in row) for row in rows]
    batch = pa.record_batch({"a": [row[0] for row in clean], "b": [row[1] for row in clean]})
    text = encoded(encoding("csv", delimiter=delimiter), batch).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    assert found == [["a", "b"], *[list(row) for row in clean]]


def test_csv_lines_end_as_rfc_4180_says_and_line_ends_in_text_stay() -> None:
    batch = pa.record_batch({"a": ["x\ny", 'q"\n'], "b": ["1\r\n2", ""]})
    assert encoded(encoding("csv"), batch) == b'a,b\r\n"x\ny","1\r\n2"\r\n"q""\n",\r\n'
    assert encoded(encoding("csv", line_end="lf"), batch) == b'a,b\n"x\ny","1\r\n2"\n"q""\n",\n'


def test_csv_has_one_header_or_none() -> None:
    batch = pa.record_batch({"a": [1]})
    assert encoded(encoding("csv"), batch, batch) == b"a\r\n1\r\n1\r\n"
    assert encoded(encoding("csv", header=False), batch) == b"1\r\n"


def test_csv_null_has_the_text_that_was_chosen() -> None:
    batch = pa.record_batch({"a": ["", None], "b": [1, None]})
    assert encoded(encoding("csv", null="\\N"), batch) == b"a,b\r\n,1\r\n\\N,\\N\r\n"


def test_csv_is_read_by_duckdb_and_polars(tmp_path: Path) -> None:
    words = ['q"x', "a,b", "line\nend", "both\r\n", "é", "plain"]
    path = tmp_path / "f.csv"
    path.write_bytes(encoded(encoding("csv"), pa.record_batch({"n": range(len(words)), "w": words})))
    rows = list(enumerate(words))
    assert duckdb.execute("select * from read_csv(?) order by n", [str(path)]).fetchall() == rows
    assert polars.read_csv(path).rows() == rows


FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1+1",
    '"=1',
    "\uff1d1",
    "\uff20x",
    "%0A=1",
    "|cmd",
)
HARMLESS = ("-5", "+49", "-1.5e3", "1,000", "+1,5", "a=b", "x@y.de", "", "plain", "-.5")


def test_csv_excel_safe_marks_formulas_and_nothing_else() -> None:
    words = [*FORMULAS, *HARMLESS, None]
    batch = pa.record_batch({"=h": words, "n": [-number for number in range(len(words))]})
    text = encoded(encoding("csv", excel_safe=True), batch).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["'=h", "n"]
    assert [row[0] for row in rows[1:]] == [*(f"'{one}" for one in FORMULAS), *HARMLESS, ""]
    assert [int(row[1]) for row in rows[1:]] == [-number for number in range(len(words))]


def test_csv_leaves_formulas_alone_unless_asked() -> None:
    assert encoded(encoding("csv"), one_column(["=1+1"])) == b"c\r\n=1+1\r\n"


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_compressed_text_is_one_stream_that_others_read(format: str, tmp_path: Path) -> None:
    batches = [pa.record_batch({"n": range(start, start + 5000)}) for start in (0, 5000)]
    plain = encoded(encoding(format, line_end="lf"), *batches)
    zipped = encoded(encoding(format, "gzip", line_end="lf"), *batches)
    assert gzip.decompress(zipped) == plain
    assert zipped == encoded(encoding(format, "gzip", line_end="lf"), *batches), "equal records, equal bytes"
    assert len(encoded(encoding(format, "gzip", 9, line_end="lf"), *batches)) <= len(zipped)
    for compression, suffix in (("gzip", ".gz"), ("zstd", ".zst")):
        path = tmp_path / f"f.{format}{suffix}"
        path.write_bytes(encoded(encoding(format, compression), *batches))
        assert encoding(format, compression).suffix == f".{format}{suffix}"
        read = "read_csv" if format == "csv" else "read_json"
        assert duckdb.execute(f"select count(*), sum(n) from {read}(?)", [str(path)]).fetchone() == (10000, 49995000)


@pytest.mark.parametrize("compression", ["auto", "zstd", "snappy", "gzip", "lz4", "none"])
def test_parquet_is_read_by_duckdb_and_polars(compression: str, tmp_path: Path) -> None:
    count = 3000
    batch = pa.record_batch(
        {
            "n": pa.array(range(count)),
            "small": pa.array([one % 100 for one in range(count)], pa.int8()),
            "country": [("DE", "FR", None)[one % 3] for one in range(count)],
            "name": [f"name {one}" for one in range(count)],
            "x": [one / 7 for one in range(count)],
            "f": pa.array([one / 8 for one in range(count)], pa.float32()),
            "at": pa.array([AT + dt.timedelta(seconds=one) for one in range(count)], pa.timestamp("us", "UTC")),
            "day": [dt.date(2024, 1, 1) + dt.timedelta(days=one) for one in range(count)],
            "price": pa.array([Decimal(one) / 100 for one in range(count)], pa.decimal128(12, 2)),
            "a.b": pa.array([1.5] * count),
            "flag": [one % 2 == 0 for one in range(count)],
            "raw": [str(one).encode() for one in range(count)],
            "tags": [["a", str(one)] for one in range(count)],
        }
    )
    path = tmp_path / "f.parquet"
    path.write_bytes(encoded(encoding("parquet", compression), batch, batch))
    rows = [*batch.to_pylist(), *batch.to_pylist()]
    assert polars.read_parquet(path).to_dicts() == rows
    query = "select count(*), sum(n), count(country), sum(price) from read_parquet(?)"
    total = count * (count - 1)
    assert duckdb.execute(query, [str(path)]).fetchone() == (2 * count, total, 4000, Decimal(total) / 100)


def test_parquet_gives_a_dictionary_to_columns_that_repeat_only(tmp_path: Path) -> None:
    batch = pa.record_batch(
        {"country": ["DE", "FR"] * 500, "name": [f"n{one}" for one in range(1000)], "n": range(1000)}
    )
    path = tmp_path / "f.parquet"
    path.write_bytes(encoded(encoding("parquet"), batch))
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {group.column(one).path_in_schema: group.column(one).encodings for one in range(3)}
    assert "RLE_DICTIONARY" in encodings["country"]
    assert "DELTA_LENGTH_BYTE_ARRAY" in encodings["name"]
    assert "DELTA_BINARY_PACKED" in encodings["n"]


def test_parquet_collects_small_batches_into_row_groups(tmp_path: Path) -> None:
    how = resolve("parquet", "auto", None, Csv(), Parquet(row_group_rows=1000))
    path = tmp_path / "f.parquet"
    path.write_bytes(encoded(how, *[pa.record_batch({"n": range(one, one + 300)}) for one in range(0, 3000, 300)]))
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(one).num_rows for one in range(metadata.num_row_groups)] == [1000, 1000, 1000]


def test_digest_of_a_broken_file_is_an_error() -> None:
    for format in ("parquet", "arrow"):
        whole = encoded(encoding(format), one_column([1]))
        with pytest.raises(ValueError, match=f"not a whole {format} file"):
            read_digest(encoding(format), io.BytesIO(whole[:-9]))
    assert read_digest(encoding("csv"), io.BytesIO(b"")) is None
