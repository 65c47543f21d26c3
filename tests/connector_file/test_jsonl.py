from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import polars
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly_connector_file import _json_values, _jsonl
from tests.connector_file.reading import read_all, resumed

if TYPE_CHECKING:
    from pathlib import Path

# Every example opens files: few of them, so that the suite stays quick.
NO_RESET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**75), 10**75) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
KEYS = st.text("abc", min_size=1, max_size=1)
OBJECTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    max_size=3,
)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_objects_become_records_and_new_fields_are_noticed(tmp_path: Path) -> None:
    lines = ['{"a":1,"b":"x"}', "", '{"b":"y","c":[1,2],"d":{"e":true}}']
    read = read_all(write(tmp_path / "a.jsonl", "\n".join(lines)), block_bytes=16)
    assert read.table.to_pylist() == [
        {"a": 1, "b": "x", "c": None, "d": None},
        {"a": None, "b": "y", "c": [1, 2], "d": {"e": True}},
    ]


def test_text_stays_text_even_if_it_looks_like_a_time(tmp_path: Path) -> None:
    line = '{"a":"2020-01-01","b":"2020-01-01T00:00:00Z","c":[{"d":"2020-01-01"}]}\n'
    [record] = read_all(write(tmp_path / "a.jsonl", line)).records
    assert record == json.loads(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON: Expecting value at letter 1"),
        (b'{"a":1} x', "not JSON: Extra data"),
        (b'{"a":1', "not JSON"),
        (b"[1,2]", "a JSON list, not an object; JSON Lines have an object in each line"),
        (b"12", "a JSON number, not an object; JSON Lines have an object in each line"),
        (b"null", "a JSON null, not an object; JSON Lines have an object in each line"),
        (b'{"a":1,"a":2}', "the key 'a' stands twice"),
        (b'{"a":"\xff"}', r"not UTF-8 text \(byte 7"),
        (b'{"a":"\\ud800"}', "half a surrogate pair"),
        (b'{"a":"x\0y"}', "not JSON: Invalid control character"),
        (b'{"a":1e400}', "the number 1e400 is too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "an integer of more than 76 digits"),
        (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "more than 50 brackets within brackets"),
        (b'{"a":' + b'{"a":' * 60 + b"1" + b"}" * 61, "more than 50 brackets within brackets"),
        (b"\0\0\0\0", "not JSON"),
    ],
)
def test_a_bad_line_becomes_a_dead_letter_with_its_place(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", b'{"b":1}\n\n' + line + b'\n{"b":2}\n')
    read = read_all(path)
    assert [one["b"] for one in read.records] == [1, 2]
    [rejected] = read.rejected
    assert rejected.place == "a.jsonl:3"
    assert pytest.importorskip("re").search(reason, rejected.reason)
    assert rejected.record in {line, line.decode(errors="replace")}


def test_a_cr_inside_an_object_is_white_space(tmp_path: Path) -> None:
    read = read_all(write(tmp_path / "a.jsonl", '{"a":1,\r"b":2}\r\n{"a":3,"b":4}\r'), block_bytes=16)
    assert read.records == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize("line", ["null", " null", "null null", "[]", "1"])
def test_a_file_that_begins_with_something_else_than_an_object(tmp_path: Path, line: str) -> None:
    read = read_all(write(tmp_path / "a.jsonl", f'{line}\n{{"a":1}}\n'))
    assert read.records == [{"a": 1}]
    assert [one.place for one in read.rejected] == ["a.jsonl:1"]


def test_brackets_in_text_are_not_depth(tmp_path: Path) -> None:
    line = json.dumps({"a": "[" * 1000 + '"{', "b": [[1], [2]] * 100})
    assert read_all(write(tmp_path / "a.jsonl", line)).records == [json.loads(line)]


def test_numbers_are_exact(tmp_path: Path) -> None:
    big, long = 123456789012345678901234567890, 2**63 - 1
    lines = [f'{{"a":{big},"b":{long},"c":[{big}]}}', '{"a":1,"b":-1,"c":[2]}']
    read = read_all(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert read.records == [{"a": Decimal(big), "b": long, "c": [Decimal(big)]}, {"a": 1, "b": -1, "c": [2]}]


def test_a_float_among_integers_that_a_float_cannot_hold(tmp_path: Path) -> None:
    odd = 2**53 + 1
    read = read_all(write(tmp_path / "a.jsonl", f'{{"a":{odd}}}\n{{"a":1.5}}\n'))
    assert read.records == [{"a": odd}, {"a": 1.5}]
    assert [one.schema.field("a").type for one in read.tables] == [pa.int64(), pa.float64()]


def test_nan_is_read(tmp_path: Path) -> None:
    read = read_all(write(tmp_path / "a.jsonl", '{"a":NaN}\n{"a":Infinity}\n'))
    assert math.isnan(read.records[0]["a"])
    assert read.records[1]["a"] == math.inf


def test_types_that_change_keep_order_and_values(tmp_path: Path) -> None:
    values: list[Any] = [1, 2, "x", 3, None, True, [1], {"k": 1}, {"k": 2}, 1.5, 2]
    text = "\n".join(json.dumps({"n": n, "v": value}) for n, value in enumerate(values))
    read = read_all(write(tmp_path / "a.jsonl", text))
    assert [one["v"] for one in read.records] == values
    assert [one["n"] for one in read.records] == list(range(len(values)))


def test_types_that_alternate_become_text(tmp_path: Path) -> None:
    values = [n if n % 2 else f"x{n}" for n in range(400)]
    text = "\n".join(json.dumps({"v": value}) for value in values)
    read = read_all(write(tmp_path / "a.jsonl", text))
    assert [one["v"] for one in read.records] == [str(value) for value in values]
    assert len(read.tables) == 1


def test_lists_of_different_things_become_text(tmp_path: Path) -> None:
    read = read_all(write(tmp_path / "a.jsonl", '{"a":[1,"x"]}\n{"a":[2,{"b":null}]}\n'))
    assert read.records == [{"a": '[1,"x"]'}, {"a": '[2,{"b":null}]'}]


def test_given_types(tmp_path: Path) -> None:
    lines = [
        '{"id":"7","day":"2020-01-01","at":"2020-01-01T10:00:00Z","price":1.10,"code":7}',
        '{"id":8,"day":"2020-01-02","at":null,"price":"2.5","code":"x"}',
        '{"id":9,"day":"soon","at":null,"price":1,"code":null}',
        '{"id":10,"day":null,"at":null,"price":1.239,"code":null}',
    ]
    types = {"id": "int64", "day": "date", "at": "timestamp(us, UTC)", "price": "decimal(5, 2)", "code": "string"}
    read = read_all(write(tmp_path / "a.jsonl", "\n".join(lines)), types=types)
    at = datetime.datetime(2020, 1, 1, 10, tzinfo=datetime.UTC)
    assert read.records == [
        {"id": 7, "day": datetime.date(2020, 1, 1), "at": at, "price": Decimal("1.10"), "code": "7"},
        {"id": 8, "day": datetime.date(2020, 1, 2), "at": None, "price": Decimal("2.50"), "code": "x"},
    ]
    assert [one.place for one in read.rejected] == ["a.jsonl:3", "a.jsonl:4"]
    assert read.rejected[0].reason == "column 'day': 'soon' is no date32[day]"


def test_given_types_are_also_those_of_the_fast_way(tmp_path: Path) -> None:
    text = '{"day":"2020-01-01","price":1.10,"share":0.5}\n' * 3 + '{"day":"x","price":1,"share":0}\n'
    types = {"day": "date", "price": "decimal(5, 2)", "share": "float32"}
    read = read_all(write(tmp_path / "a.jsonl", text), types=types)
    assert read.tables[0].schema.types == [pa.date32(), pa.decimal128(5, 2), pa.float32()]
    assert [one.place for one in read.rejected] == ["a.jsonl:4"]


def test_a_pretty_printed_file_is_never_half_read(tmp_path: Path) -> None:
    text = json.dumps({"a": 1, "b": [1, 2]}, indent=1)
    read = read_all(write(tmp_path / "a.jsonl", text))
    assert not read.records
    assert len(read.rejected) == len(text.splitlines())


def test_a_long_line_is_cut_and_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a":1}\n{"a":"')
        for _ in range(200):
            file.write(b"x" * 100_000)
        file.write(b'"}\n{"a":3}')
    read = read_all(path, block_bytes=65_536, record_bytes=1 << 20)
    assert [one["a"] for one in read.records] == [1, 3]
    assert [one.place for one in read.rejected] == ["a.jsonl:2"]
    assert "record_bytes" in read.rejected[0].reason


@given(st.binary(max_size=80))
def test_depth_is_never_underestimated(line: bytes) -> None:
    deepest = depth = 0
    for letter in line:
        depth += (letter in b"[{") - (letter in b"]}")
        deepest = max(deepest, depth)
    repeated = line.replace(b'"', b"") * 60
    assert _jsonl.depth_of(b"[" * 200 + b"]" * 200) == 200
    assert _jsonl.depth_of(repeated) >= 0


@NO_RESET
@given(st.lists(OBJECTS, min_size=1, max_size=8))
def test_any_objects_come_back(tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, objects)))
    read = read_all(path, block_bytes=64)
    assert not read.rejected
    assert len(read.records) == len(objects)
    for record, written in zip(read.records, objects, strict=True):
        assert same(record, written), (record, written)


def same(read: Any, written: Any) -> bool:
    """Equal, but for keys that are null because other records have them, and mixed lists as text."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(same(read.get(key), written.get(key)) for key in {*read, *written})
    if isinstance(written, list) and isinstance(read, list):
        return len(read) == len(written) and all(map(same, read, written))
    if isinstance(written, (list, dict)) and isinstance(read, str):
        return bool(json.loads(read) == written)
    if written is None or written == {}:
        return read is None or same(read, {}) if read != {} else True
    return bool(read == written) and (isinstance(read, str) == isinstance(written, str))


@NO_RESET
@given(st.lists(OBJECTS, min_size=1, max_size=8), st.sampled_from([16, 64]))
def test_reading_resumes_at_every_cursor(tmp_path: Path, objects: list[dict[str, Any]], block: int) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, objects)) + "\nbad\n")
    for whole, parts in resumed(path, block_bytes=block, record_bytes=1 << 20):
        assert [str(one) for one in parts.records] == [str(one) for one in whole.records]
        assert [one.schema for one in parts.tables] == [one.schema for one in whole.tables]
        assert parts.rejected == whole.rejected


def test_what_polars_and_duckdb_write_comes_back(tmp_path: Path) -> None:
    frame = polars.DataFrame({"a": [1, None], "b": ["x", 'y\n"'], "c": [[1.5], []]})
    frame.write_ndjson(tmp_path / "p.jsonl")
    assert read_all(tmp_path / "p.jsonl").records == frame.to_dicts()
    # Not the connection that all tests share: another may have left a result on it.
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 1 AS a, 'ä' AS b UNION ALL SELECT 2, NULL) TO '{tmp_path}/d.jsonl' (FORMAT json)"
        )
    assert sorted(read_all(tmp_path / "d.jsonl").records, key=lambda one: one["a"]) == [
        {"a": 1, "b": "ä"},
        {"a": 2, "b": None},
    ]


def test_kinds_join_only_where_nothing_is_lost() -> None:
    kind = _json_values.kind_of
    for one, other, joined in [
        (1, 1.5, 0.5),
        (2**60, 1, 2**60),
        (2**60, 1.5, None),
        (True, 1, None),
        ([1], [None], [1]),
        ({"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}),
        ("x", 1, None),
    ]:
        expected = kind(joined) if joined is not None else None
        first, second = kind(one), kind(other)
        assert first is not None
        assert second is not None
        assert _json_values.join(first, second) == expected


PIECES = st.sampled_from(
    [b'{"a":1}', b'{"a":', b'"x"', b"}", b"{", b"[", b"]", b"null", b" ", b"\n", b"\r\n", b"\r", b"\xff", b",", b"{}"]
)


@NO_RESET
@given(st.lists(PIECES, max_size=24).map(b"".join), st.integers(16, 64))
def test_every_line_is_a_record_or_a_dead_letter(tmp_path: Path, content: bytes, block: int) -> None:
    path = write(tmp_path / "a.jsonl", b"{}\n" + content)
    read = read_all(path, block_bytes=block, record_bytes=block)
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    assert sum(table.num_rows for table in read.tables) + len(read.rejected) == len(lines)
