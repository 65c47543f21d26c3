"""What a route delivers: columns, names and records, and every mistake in asking for them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly import Delivery, Route, Router, Stream
from muxly._runner.deliver.selection import Selection, selection_problems
from muxly._runner.deliver.where import Filter, check_where
from muxly.errors import ConfigurationError, RouteError, StreamError
from muxly.router import Mode

DEALS = Stream("deals", ("id",), cursor_field="at", overwrite_key=("day",))
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.float64()),
        ("at", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("_deleted_at", pa.timestamp("us", "UTC")),
    ]
)


class Nowhere(Router):
    def deliver(self, delivery: Delivery) -> None: ...


def route(**options: Any) -> Route:
    return Route("lake", Nowhere(), **options)


def selection(mode: Mode = "append", schema: pa.Schema = SCHEMA, **options: Any) -> Selection:
    return Selection.of(route(**options), schema, DEALS, mode)


def records(*rows: dict[str, Any], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([*rows], schema=schema)


def applied(chosen: Selection, batch: pa.RecordBatch) -> pa.RecordBatch:
    return chosen.apply(batch, chosen.mask(batch))


def problems(mode: Mode = "append", schema: pa.Schema | None = SCHEMA, **options: Any) -> list[ConfigurationError]:
    return list(selection_problems(route(**options), {"deals": (DEALS, schema)}, {"deals": mode}))


def passing(expression: str, columns: dict[str, Any]) -> list[bool]:
    batch = pa.record_batch(columns)
    kept: list[bool] = Filter(expression, batch.schema).mask(batch).to_pylist()
    return kept


def test_everything_is_the_same_batch_and_stream_keys() -> None:
    whole = selection()
    batch = records({"id": 1})
    assert applied(whole, batch) is batch
    assert whole.schema == SCHEMA
    assert whole.stream.primary_key == ("id",)
    assert whole.stream.schema == SCHEMA


def test_included_columns_come_in_their_order_and_the_mark_of_deletion_with_them() -> None:
    chosen = selection(columns={"include": ["name", "id"]})
    assert chosen.schema.names == ["name", "id", "_deleted_at"]
    batch = records({"id": 1, "name": "a", "amount": 2.0})
    result = applied(chosen, batch)
    assert result.to_pylist() == [{"name": "a", "id": 1, "_deleted_at": None}]
    assert result.column(1).buffers()[1].address == batch.column(0).buffers()[1].address


def test_renamed_keys_are_renamed_in_the_stream_too() -> None:
    chosen = selection(mode="upsert", columns={"rename": {"id": "deal_id", "at": "changed_at"}, "exclude": ["name"]})
    assert chosen.schema.names == ["deal_id", "amount", "changed_at", "day", "_deleted_at"]
    assert chosen.stream.primary_key == ("deal_id",)
    assert chosen.stream.cursor_field == "changed_at"
    assert chosen.stream.overwrite_key == ("day",)
    assert applied(chosen, records({"id": 7})).to_pylist()[0]["deal_id"] == 7


def test_two_columns_can_swap_their_names() -> None:
    chosen = selection(columns={"include": ["id", "name"], "rename": {"id": "name", "name": "id"}})
    assert applied(chosen, records({"id": 1, "name": "a"})).to_pylist() == [{"name": 1, "id": "a", "_deleted_at": None}]


def test_a_key_that_is_left_out_is_no_key_for_the_router() -> None:
    chosen = selection(columns={"exclude": ["id", "at"]})
    assert chosen.stream.primary_key == ()
    assert chosen.stream.cursor_field is None


def test_columns_that_do_not_exist_yet_are_left_out_until_they_do() -> None:
    asked = {"include": ["id", "later"], "exclude": ["other"]}
    assert selection(columns=asked).schema.names == ["id", "_deleted_at"]
    grown = SCHEMA.append(pa.field("later", pa.string()))
    assert selection(columns=asked, schema=grown).schema.names == ["id", "later", "_deleted_at"]


@pytest.mark.parametrize(
    ("mode", "columns", "path", "said"),
    [
        ("upsert", {"exclude": ["name", "id"]}, ("columns", "exclude", 1), "'id' .*part of the primary key"),
        ("upsert", {"include": ["name", "at"]}, ("columns", "include"), "'id' .*add it to `include`"),
        ("upsert", {"exclude": ["at"]}, ("columns", "exclude", 0), "'at' .*the cursor field"),
        (
            "upsert",
            {"exclude": ["_deleted_at"]},
            ("columns", "exclude", 0),
            "'_deleted_at' .*the marker for deleted records",
        ),
        ("overwrite", {"exclude": ["day"]}, ("columns", "exclude", 0), "'day' .*part of the overwrite key"),
    ],
)
@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_a_column_that_the_mode_needs_cannot_be_left_out(
    mode: Mode, columns: dict[str, Any], path: tuple[Any, ...], said: str, schema: pa.Schema | None
) -> None:
    [problem] = problems(mode, schema, columns=columns)
    assert problem.path == path
    with pytest.raises(ConfigurationError, match=f"column {said}"):
        raise problem


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_other_modes_need_no_column(mode: Mode) -> None:
    assert problems(mode, columns={"include": ["name"]}) == []


@pytest.mark.parametrize(
    ("columns", "path", "said"),
    [
        ({"include": ["id", "nmae"]}, ("columns", "include", 1), "there is no column 'nmae'; did you mean 'name'"),
        ({"exclude": ["zzz"]}, ("columns", "exclude", 0), "there are id, name"),
        ({"rename": {"ID": "x"}}, ("columns", "rename", "ID"), "there is no column 'ID'"),
        ({"rename": {"id": "name"}}, ("columns", "rename", "id"), "delivered as 'name'"),
        ({"rename": {"name": "x", "id": "x"}}, ("columns", "rename", "name"), "column 'id' has that name"),
        ({"rename": {"id": ""}}, ("columns", "rename", "id"), "not a valid column name"),
        ({"rename": {"_deleted_at": "gone"}}, ("columns", "rename", "_deleted_at"), "is reserved"),
        ({"exclude": ["_deleted_at"], "rename": {"at": "_deleted_at"}}, ("columns", "rename", "at"), "not a valid"),
    ],
)
def test_mistakes_are_placed_and_named(columns: dict[str, Any], path: tuple[Any, ...], said: str) -> None:
    [problem] = problems(columns=columns)
    assert problem.path == path
    assert said in problem.message


def test_all_mistakes_come_at_once() -> None:
    found = problems("upsert", columns={"exclude": ["nmae", "id"]}, where="amuont > 1")
    assert [problem.path for problem in found] == [("columns", "exclude", 0), ("columns", "exclude", 1), ("where",)]


def test_a_column_of_one_of_the_streams_is_enough() -> None:
    other = pa.schema([("email", pa.string())])
    both: dict[str, tuple[Stream, pa.Schema | None]] = {"deals": (DEALS, SCHEMA), "c": (Stream("c"), other)}
    modes: dict[str, Mode] = {"deals": "append", "c": "append"}
    asked = route(columns={"exclude": ["email", "name"]}, where="amount > 1")
    assert list(selection_problems(asked, both, modes)) == []
    unknown = {**both, "d": (Stream("d"), None)}
    assert list(selection_problems(route(columns={"exclude": ["x"]}), unknown, {**modes, "d": "append"})) == []


def test_the_digest_part_changes_with_what_is_selected_only() -> None:
    same = [selection(columns={"exclude": ["name", "day"]}), selection(columns={"exclude": ["day", "name"]})]
    assert same[0].digest_part == same[1].digest_part
    others = [selection(), selection(where="id > 1"), selection(where="id > 2"), selection(mode="upsert")]
    others += [selection(columns={"include": ["id"]}), selection(columns={"rename": {"id": "x"}}), same[0]]
    assert len({chosen.digest_part for chosen in others}) == len(others)


def test_the_filter_sees_columns_that_are_not_delivered_and_keeps_the_order() -> None:
    chosen = selection(where="amount > 100", columns={"include": ["id"], "exclude": ["_deleted_at"]})
    batch = records(*({"id": place, "amount": amount} for place, amount in enumerate([500.0, None, 50.0, 101.0])))
    assert applied(chosen, batch).to_pylist() == [{"id": 0}, {"id": 3}]


def test_a_batch_that_passes_whole_is_not_copied() -> None:
    batch = records({"amount": 5.0})
    assert applied(selection(where="amount > 1"), batch) is batch


def test_what_is_null_in_the_filter_is_counted_as_left_out() -> None:
    chosen = selection(where="amount > 100")
    mask = chosen.mask(records({"id": 1}, {"id": 2, "amount": 500.0}))
    assert mask is not None
    assert (mask.true_count, mask.false_count) == (1, 1)
    assert applied(chosen, records({"id": 1})).num_rows == 0


def test_threads_filter_at_the_same_time() -> None:
    ready = Filter("a % 7 = 0", pa.schema([("a", pa.int64())]))
    batch = pa.record_batch({"a": range(10_000)})
    with ThreadPoolExecutor(8) as pool:
        counts = [mask.true_count for mask in pool.map(ready.mask, [batch] * 40)]
    assert counts == [1429] * 40


def test_tombstones_pass_the_filter_of_an_upsert_only() -> None:
    gone = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    batch = records({"id": 1, "_deleted_at": gone}, {"id": 2, "amount": 5.0}, {"id": 3, "amount": 500.0})
    assert applied(selection("upsert", where="amount > 100"), batch)["id"].to_pylist() == [1, 3]
    assert applied(selection("append", where="amount > 100"), batch)["id"].to_pylist() == [3]


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("a > 1", [False, True, False]),
        ("A > 1", [False, True, False]),
        ("a > 1 -- a comment", [False, True, False]),
        ("a > 1 /* ) from x */", [False, True, False]),
        ("a is null or a = 1", [True, False, True]),
        ("true", [True, True, True]),
        ("s.x in ('q', 'r')", [True, False, False]),
        ("l[1] = 7", [True, False, False]),
        ("n like 'it''s%'", [True, False, False]),
        ("case when a = 1 then true else n is null end", [True, False, True]),
        ("coalesce(a, 0) between 0 and 1", [True, False, True]),
        ("lower(n) = 'x'", [False, True, False]),
        ("t >= timestamptz '2024-01-01 00:00:00+00'", [True, False, False]),
        ("t::date = date '2024-01-01' + interval 0 day", [True, False, False]),
        ("year(t) = 2024", [True, False, False]),
        ("try_cast(n as integer) is null", [True, True, True]),
        ("j->>'$.k' = 'v'", [True, False, False]),
        ("nullif(a, 1) is null", [True, False, True]),
        ("list_sum(l) > 7", [True, False, False]),
        ("replace(replace(n, 'it', ''), 's', 'z') = chr(39) || 'z '", [True, False, False]),
        ("missing > 1", [False, False, False]),
        ("missing is null", [True, True, True]),
    ],
)
def test_expressions_are_evaluated_record_by_record(expression: str, kept: list[bool]) -> None:
    utc = dt.UTC
    columns = {
        "a": [1, 2, None],
        "s": [{"x": "q"}, {"x": "z"}, None],
        "l": [[7, 8], [], None],
        "n": ["it's it", "X", None],
        "t": pa.array([dt.datetime(2024, 1, 1, tzinfo=utc), dt.datetime(2023, 1, 1, tzinfo=utc), None]),
        "j": ['{"k": "v"}', '{"k": "w"}', None],
    }
    assert passing(expression, columns) == kept


def test_columns_may_have_any_name() -> None:
    columns = {'a "b"': [1], "ü": [2], "select": [3], "c.d": [4], "records": [5], "current_date": [6], "x'": [7]}
    whole = ''' "a ""b""" = 1 and ü = 2 and "select" = 3 and "c.d" = 4 and records = 5 and "x'" = 7 '''
    assert passing(whole + "and current_date = 6", columns) == [True]


def test_twins_in_all_but_case_are_told_apart() -> None:
    columns = {"A": [1], "a": [2]}
    assert passing('"A" = 1 and a = 2', columns) == [True]
    with pytest.raises(ConfigurationError, match=r"'AB' could be any of 'Ab', 'aB'; write the exact name"):
        passing("AB = 1", {"Ab": [1], "aB": [2]})


@pytest.mark.parametrize(
    "kind",
    [
        pa.null(),
        pa.uint64(),
        pa.decimal128(38, 4),
        pa.decimal256(60, 4),
        pa.binary(),
        pa.time64("ns"),
        pa.timestamp("ns", "UTC"),
        pa.duration("us"),
        pa.list_(pa.null()),
        pa.struct([]),
        pa.map_(pa.string(), pa.int64()),
        pa.month_day_nano_interval(),
    ],
)
def test_every_type_of_the_spool_can_be_asked_for(kind: pa.DataType) -> None:
    assert passing("a is null", {"a": pa.nulls(1, kind)}) == [True]


HOSTILE = {
    "": "it is empty",
    "a >": "syntax error",
    "at > 1": "at is an SQL keyword: if it is a column, write .at. in double quotes",
    "1; drop table records": "syntax error",
    "1) from read_csv('/etc/passwd'": "must be one expression",
    "1) union select (2": "must be one expression",
    "a), (a": "must be one expression",
    "a) as b, (a": "must be one expression",
    "a) order by (1": "must be one expression",
    "a) limit (1": "must be one expression",
    "a) where (true": "must be one expression",
    "1); select (2": "must be one expression",
    "1); attach 'x' as y; select (2": "Only SELECT statements",
    "select 1": "subqueries",
    "(select 1)": "subqueries",
    "exists (select 1)": "subqueries",
    "a in (select a from records)": "subqueries",
    "a = any([1])": "subqueries",
    "read_csv('/etc/passwd')": "not a function of a single record",
    "read_text('/etc/passwd') = ''": "not a function of a single record",
    "unnest([1]) = 1": "not a function",
    "getenv('HOME') = '/'": "there is no function getenv",
    "copy records to '/tmp/x'": "syntax error",
    "pragma version": "syntax error",
    "sum(a) > 1": "sum is not a function of a single record",
    "count(*) > 1": "not a function of a single record",
    "max(a) filter (where true) > 1": "FILTER, DISTINCT or ORDER BY",
    "row_number() over () = 1": "window functions",
    "random() > 0.5": "random does not return the same value on each call",
    "uuid() = a": "uuid does not return the same value on each call",
    "gen_random_uuid() is null": "does not return the same value",
    "now() > changed": "now does not return the same value on each call",
    "current_timestamp > changed": "current_timestamp does not return the same value on each call",
    "current_date > changed": "current_date does not return the same value on each call",
    "today() > changed": "does not return the same value",
    "localtimestamp > changed": "localtimestamp does not return the same value on each call",
    "current_localtimestamp() > changed": "current_localtimestamp does not return the same value on each call",
    "age(changed) > interval 1 day": "age does not return the same value on each call",
    "ago(interval 1 day) > changed": "ago is not allowed",
    "nextval('s') = 1": "does not return the same value",
    "getvariable('x') = 1": "does not return the same value",
    "current_setting('threads') = 1": "does not return the same value",
    "sleep_ms(1000) is null": "does not return the same value",
    "error('x') is null": "does not return the same value",
    "pg_sleep(10) is null": "pg_sleep is not allowed",
    "version() = 'x'": "version is not allowed",
    "list_aggregate([1], 'sum') = 1": "list_aggregate is not allowed",
    "repeat('x', 4000000000) = 'x'": "repeat is not allowed",
    "lpad('x', 2000000000, 'y') = 'x'": "lpad is not allowed",
    "len(range(1000000000000)) > 1": "range is not allowed",
    "printf('%1000000000d', 1) = 'x'": "printf is not allowed",
    "hex(hex(a)) = ''": "hex inside hex is not allowed",
    "replace(replace('aaaa', 'a', 'aaaa'), 'a', 'aaaa') = ''": "replace inside replace is not allowed",
    "regexp_replace(lower(to_base64(a)), '.', b, 'g') = ''": "to_base64 inside regexp_replace",
    "json_execute_serialized_sql('x')": "not a function of a single record",
    "json_serialize_sql('select 1') = ''": "not supported|not allowed",
    "a = $1": "parameters",
    "a = ?": "parameters",
    "#1 = 1": "positional references",
    "columns('a') > 1": "COLUMNS",
    "*": "COLUMNS|syntax error",
    "list_filter([1], lambda x: x > 1) = [1]": "lambda functions",
    "[x for x in [1]] = [1]": "lambda functions",
    "a -> '$.x' = 1": "lambda functions",
    "grouping(a) = 1": "not supported|not allowed",
    "try(a / 0) = 1": "not supported|not allowed",
    "default": "not supported|syntax error",
    "main.lower('A') = 'a'": "without a dot",
    "a.lower() = 'a'": "without a dot",
    "a /* never closed": "unterminated",
    "'never closed": "unterminated",
    "lowr(a) = 'x'": "there is no function lowr; did you mean lower",
    "(" * 5000 + "1" + ")" * 5000: "at most 10000 are allowed",
    "(" * 4000 + "1" + ")" * 4000: "depth|deep|syntax|expression",
    "not " * 2000 + "true": "depth|deep",
    "1+" * 3000 + "1 > 1": "depth|deep",
}


@pytest.mark.parametrize("expression", HOSTILE)
def test_anything_but_a_deterministic_scalar_expression_is_refused(expression: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)where: .*({HOSTILE[expression]})") as caught:
        check_where(expression)
    assert caught.value.path == ("where",)


def test_unknown_columns_are_named_with_the_nearest() -> None:
    check_where("amount > 1 and NAME = 'x'", SCHEMA)
    with pytest.raises(ConfigurationError, match=r"no column 'amuont'; did you mean 'amount'"):
        check_where("amuont > 1", SCHEMA)
    with pytest.raises(ConfigurationError, match=r"no column 'zzz'; there are id, name"):
        check_where("zzz > 1", SCHEMA)


def test_types_are_checked_when_the_schema_is_known() -> None:
    with pytest.raises(ConfigurationError, match="returns double, not true or false"):
        check_where("amount", SCHEMA)
    with pytest.raises(ConfigurationError, match="failed: Cannot compare values"):
        check_where("day > 3", SCHEMA)
    check_where("day > 3")


def test_a_value_that_breaks_the_expression_stops_the_route_without_showing_it() -> None:
    with pytest.raises(RouteError, match="Could not convert string") as caught:
        passing("cast(n as integer) = 1", {"n": ["secret"]})
    assert "secret" not in str(caught.value)


def test_a_filter_works_again_after_it_failed() -> None:
    batch = pa.record_batch({"n": ["x"]})
    engine = Filter("cast(n as integer) = 1", batch.schema)
    with pytest.raises(RouteError, match="failed"):
        engine.mask(batch)
    assert engine.mask(pa.record_batch({"n": ["1"]})).to_pylist() == [True]


def test_without_duckdb_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from muxly._runner.deliver.where import check_where\n"
        "try: check_where('a > 1')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError where: a filter needs DuckDB; install it with `pip install")


@pytest.fixture(scope="module")
def above() -> Filter:
    return Filter("a > b", pa.schema([("a", pa.int64()), ("b", pa.int64())]))


@given(st.lists(st.none() | st.integers(-5, 5), max_size=50), st.integers(-5, 5))
def test_the_filter_agrees_with_python(above: Filter, values: list[int | None], limit: int) -> None:
    kept = above.mask(pa.record_batch({"a": pa.array(values, pa.int64()), "b": pa.repeat(limit, len(values))}))
    assert kept.to_pylist() == [value is not None and value > limit for value in values]


def test_filter_that_finds_no_memory_is_no_wrong_filter() -> None:
    doubled = "text"
    for _ in range(4):
        doubled = f"({doubled} || {doubled})"
    records = pa.record_batch({"text": ["x" * 1_000_000] * 50})
    with pytest.raises(StreamError, match="could not be evaluated: failed to allocate"):
        Filter(f"{doubled} LIKE '%y'", records.schema).mask(records)
