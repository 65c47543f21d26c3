"""The schema of a stream only grows, and no value is lost on the way into it."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from muxly._runner.schema import evolution
from muxly._runner.schema.types import canonical, join
from muxly.errors import StreamError
from muxly.pipeline import StreamRules

EVOLVE = StreamRules()
UTC = dt.UTC
moment = dt.datetime.fromisoformat  # without a zone

PLAIN = [
    pa.null(),
    pa.bool_(),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(5, 2), pa.decimal128(38, 0), pa.decimal256(60, 10), pa.decimal128(5, -2)),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(4), pa.binary_view()),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns")),
    *(pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin")),
    *(pa.duration("s"), pa.duration("ns"), pa.month_day_nano_interval()),
    pa.dictionary(pa.int32(), pa.string()),
    pa.run_end_encoded(pa.int32(), pa.int64()),
    pa.uuid(),
]


def nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    fields = st.dictionaries(st.sampled_from("abc"), inner, min_size=0, max_size=3)
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 2)),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
        fields.map(lambda named: pa.struct(list(named.items()))),
    )


kinds = st.recursive(st.sampled_from(PLAIN), nested, max_leaves=4)
spool_kinds = kinds.map(canonical)


def alike(one: pa.DataType | None, other: pa.DataType | None) -> bool:
    """Equal up to the order of a struct's fields."""
    return bool(ordered(one) == ordered(other))


def ordered(kind: pa.DataType | None) -> Any:
    if kind is None:
        return "conflict"
    if pa.types.is_struct(kind):
        return {child.name: ordered(child.type) for child in kind}
    if pa.types.is_map(kind):
        return ("map", ordered(kind.key_type), ordered(kind.item_type))
    if pa.types.is_list(kind):
        return ("list", ordered(kind.value_type))
    return str(kind)


def conform(
    columns: Any, before: pa.Schema | None, rules: StreamRules = EVOLVE, **types: pa.DataType
) -> evolution.Conformed:
    return evolution.conform(table(columns, **types), before, rules, stream="deals")


def table(columns: dict[str, Any], **types: pa.DataType) -> pa.Table:
    return pa.table(
        {name: pa.array(values, types.get(name)) for name, values in columns.items()},
    )


def schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema(list(types.items()))


@given(kinds)
def test_the_spool_type_of_a_spool_type_is_itself(kind: pa.DataType) -> None:
    assert canonical(canonical(kind)) == canonical(kind)


@given(spool_kinds, spool_kinds)
def test_join_is_commutative(one: pa.DataType, other: pa.DataType) -> None:
    assert alike(join(one, other), join(other, one))


@given(spool_kinds, spool_kinds, spool_kinds)
def test_join_is_associative(one: pa.DataType, two: pa.DataType, three: pa.DataType) -> None:
    left, right = join(one, two), join(two, three)
    first = None if left is None else join(left, three)
    second = None if right is None else join(one, right)
    assert alike(first, second)


@given(spool_kinds, spool_kinds)
def test_join_is_idempotent_and_holds_both(one: pa.DataType, other: pa.DataType) -> None:
    joined = join(one, other)
    assume(joined is not None)
    assert join(joined, one) == joined
    assert join(joined, other) == joined
    assert canonical(joined) == joined


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int8(), pa.decimal128(20, 0)),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.int64(), pa.decimal128(10, 2), pa.decimal128(21, 2)),
        (pa.decimal128(38, 0), pa.decimal128(10, 9), pa.decimal256(47, 9)),
        (pa.decimal256(76, 0), pa.decimal128(10, 9), None),
        (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.date32(), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"), pa.timestamp("ns", "UTC")),
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
        (pa.float64(), pa.decimal128(5, 2), None),
        (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.list_(pa.string()), pa.string(), None),
        (
            pa.struct([("a", pa.int8())]),
            pa.struct([("b", pa.string()), ("a", pa.int64())]),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
        ),
    ],
)
def test_the_table_of_joins(one: pa.DataType, other: pa.DataType, joined: pa.DataType | None) -> None:
    assert join(one, other) == joined


def test_merge_names_every_conflict() -> None:
    with pytest.raises(evolution.ConflictingTypesError, match=r"'a' \(int64 and string\), 'b'") as caught:
        evolution.merge(schema(a=pa.int64(), b=pa.bool_()), schema(a=pa.string(), b=pa.int8(), c=pa.int8()))
    assert [name for name, *_ in caught.value.columns] == ["a", "b"]


def test_merge_keeps_the_order_of_columns_and_adds_new_ones_at_the_end() -> None:
    merged = evolution.merge(schema(b=pa.int8(), a=pa.null()), schema(c=pa.large_string(), a=pa.int64()))
    assert merged == schema(b=pa.int8(), a=pa.int64(), c=pa.string())
    assert evolution.merge(merged, merged) is merged
    assert evolution.merge(None, schema(a=pa.string_view())) == schema(a=pa.string())


def test_an_equal_schema_costs_nothing_and_copies_nothing() -> None:
    batch = table({"a": [1, 2]})
    kept = evolution.conform(batch, batch.schema, EVOLVE, stream="s")
    assert kept.table is batch
    assert (kept.changed, kept.rejected) == (False, ())
    labelled = batch.replace_schema_metadata({"pandas": "{}"})
    kept = evolution.conform(labelled, batch.schema, EVOLVE, stream="s")
    assert kept.table.schema.metadata is None
    assert kept.table["a"].chunk(0).buffers()[1].address == batch["a"].chunk(0).buffers()[1].address


def test_the_first_schema_is_accepted_under_every_rule() -> None:
    rules = StreamRules(new_columns="freeze", new_types="freeze")
    kept = conform({"a": ["x"]}, None, rules, a=pa.large_string())
    assert kept.schema == schema(a=pa.string())
    assert kept.changed


def test_missing_columns_are_null_and_the_order_is_the_schemas() -> None:
    kept = conform({"b": [1], "a": ["x"]}, schema(a=pa.string(), b=pa.int64(), c=pa.bool_()))
    assert kept.table.to_pylist() == [{"a": "x", "b": 1, "c": None}]
    assert not kept.changed


def test_a_null_column_takes_the_first_type_that_comes() -> None:
    first = conform({"a": [None]}, None)
    assert first.schema == schema(a=pa.null())
    second = conform({"a": ["x"]}, first.schema, StreamRules(new_columns="freeze", new_types="freeze"))
    assert (second.schema, second.changed) == (schema(a=pa.string()), True)


def test_integers_become_floats_only_when_a_value_needs_it() -> None:
    known = schema(a=pa.int64())
    whole = conform({"a": [1.0, None, 3.0]}, known)
    assert (whole.schema, whole.table["a"].to_pylist()) == (known, [1, None, 3])
    broken = conform({"a": [1.5]}, known)
    assert (broken.schema, broken.changed) == (schema(a=pa.float64()), True)


def test_small_values_of_a_wider_type_do_not_widen_the_column() -> None:
    kept = conform({"a": [7]}, schema(a=pa.int8()), a=pa.int64())
    assert (kept.schema, kept.changed) == (schema(a=pa.int8()), False)
    assert conform({"a": [700]}, schema(a=pa.int8()), a=pa.int64()).schema == schema(a=pa.int64())


def test_integers_that_a_float_cannot_hold_go_beside_it() -> None:
    kept = conform({"a": [1, 2**53 + 1, None]}, schema(a=pa.float64()))
    assert kept.schema == schema(a=pa.float64(), a__v_bigint=pa.int64())
    assert kept.table.to_pylist() == [
        {"a": 1.0, "a__v_bigint": None},
        {"a": None, "a__v_bigint": 2**53 + 1},
        {"a": None, "a__v_bigint": None},
    ]
    assert kept.rejected == ()


@pytest.mark.parametrize(
    ("known", "value", "name"),
    [
        (pa.int64(), "x", "text"),
        (pa.string(), 7, "bigint"),
        (pa.string(), 1.5, "double"),
        (pa.string(), True, "bool"),
        (pa.string(), Decimal("1.50"), "decimal"),
        (pa.string(), dt.date(2024, 1, 2), "date"),
        (pa.string(), dt.time(1, 2, 3), "time"),
        (pa.string(), dt.timedelta(seconds=5), "duration"),
        (pa.string(), moment("2024-01-02"), "timestamp_naive"),
        (pa.string(), dt.datetime(2024, 1, 2, tzinfo=UTC), "timestamp"),
        (pa.string(), b"\xff", "binary"),
        (pa.float64(), Decimal("0.1"), "decimal"),
        (pa.timestamp("us", "UTC"), moment("2024-01-02"), "timestamp_naive"),
    ],
)
def test_a_value_of_another_type_goes_into_the_variant_column(known: pa.DataType, value: Any, name: str) -> None:
    kept = conform({"a": [value, None]}, schema(a=known))
    assert kept.table.to_pylist() == [{"a": None, f"a__v_{name}": value}, {"a": None, f"a__v_{name}": None}]
    again = conform({"a": [value]}, kept.schema)
    assert (again.schema, again.changed) == (kept.schema, False)


def test_nested_values_of_another_type_are_kept_as_json() -> None:
    kept = conform({"a": [{"x": "é", "d": dt.date(2024, 1, 2), "n": float("nan"), "b": b"\x01"}]}, schema(a=pa.int64()))
    text = kept.table["a__v_json"].to_pylist()[0]
    assert json.loads(text) == {"x": "é", "d": "2024-01-02", "n": "nan", "b": "01"}


def test_only_the_records_that_do_not_fit_inside_leave_a_nested_column() -> None:
    known = schema(a=pa.struct([("x", pa.int64()), ("y", pa.string())]))
    incoming = pa.struct([("x", pa.string()), ("y", pa.large_string())])
    kept = conform({"a": [{"x": None, "y": "b"}, {"x": "no", "y": "c"}, None]}, known, a=incoming)
    assert kept.table.to_pylist() == [
        {"a": {"x": None, "y": "b"}, "a__v_json": None},
        {"a": None, "a__v_json": '{"x": "no", "y": "c"}'},
        {"a": None, "a__v_json": None},
    ]


def test_lists_are_fitted_element_by_element_in_slices_too() -> None:
    kind = pa.large_list(pa.struct([("x", pa.int64())]))
    rows = [[{"x": 1}], [{"x": 2**60}, {"x": 1}], None, [], [{"x": 3}, None]]
    whole = table({"a": [[{"x": 9}], *rows]}, a=kind).slice(1)
    known = schema(a=pa.list_(pa.struct([("x", pa.float64())])))
    kept = evolution.conform(whole, known, EVOLVE, stream="s")
    assert kept.table["a"].to_pylist() == [[{"x": 1.0}], None, None, [], [{"x": 3.0}, None]]
    assert json.loads(kept.table["a__v_json"].to_pylist()[1]) == [{"x": 2**60}, {"x": 1}]


def test_a_variant_column_never_takes_over_a_real_one() -> None:
    kept = conform({"a": ["x"], "a__v_text": ["mine"]}, schema(a=pa.int64()))
    assert kept.table.to_pylist() == [{"a": None, "a__v_text_2": "x", "a__v_text": "mine"}]
    kept = conform({"a": ["x"]}, schema(a=pa.int64(), a__v_text=pa.int64()))
    assert kept.table.to_pylist() == [{"a": None, "a__v_text": None, "a__v_text_2": "x"}]


def test_times_beyond_the_finer_unit_go_beside_the_column() -> None:
    far = moment("9999-12-31")
    kept = conform({"a": [far, moment("2024-01-01")]}, schema(a=pa.timestamp("ns")), a=pa.timestamp("us"))
    assert kept.table["a__v_timestamp_naive"].to_pylist() == [far, None]
    assert kept.table["a"].null_count == 1


def test_times_beyond_microseconds_are_kept_as_the_number_they_are() -> None:
    kept = conform({"a": [2**60, 5]}, None, a=pa.timestamp("s"))
    assert kept.schema == schema(a=pa.timestamp("us"), a__v_bigint=pa.int64())
    assert kept.table["a__v_bigint"].to_pylist() == [2**60, None]


def test_days_that_are_no_days_and_days_beyond_nanoseconds_are_kept() -> None:
    odd = pa.table({"a": pa.array([86_400_000, 86_400_005, None, -1], pa.int64()).view(pa.date64())})
    kept = evolution.conform(odd, None, EVOLVE, stream="s")
    assert kept.table["a"].to_pylist() == [dt.date(1970, 1, 2), None, None, None]
    assert kept.table["a__v_bigint"].to_pylist() == [None, 86_400_005, None, -1]
    far = conform({"a": [dt.date(9999, 12, 31), dt.date(2024, 1, 1)]}, schema(a=pa.timestamp("ns")))
    assert far.table["a__v_date"].to_pylist() == [dt.date(9999, 12, 31), None]


def test_numbers_without_a_common_type_still_fit_value_by_value() -> None:
    kept = conform({"a": [5, 2**64 - 1]}, schema(a=pa.float64()), a=pa.uint64())
    assert kept.table.to_pylist() == [
        {"a": 5.0, "a__v_decimal": None},
        {"a": None, "a__v_decimal": Decimal(2**64 - 1)},
    ]


def test_a_record_with_a_time_that_python_does_not_have_is_reported_too() -> None:
    far = pa.array([253_402_300_800], pa.int64()).cast(pa.timestamp("s"))  # the year 10000
    inside = pa.StructArray.from_arrays([far], names=["t"])
    rules = StreamRules(new_types="discard_record")
    batch = pa.table({"id": ["x"], "at": far, "in": inside})
    known = schema(**{"id": pa.int64(), "at": pa.timestamp("us"), "in": inside.type})
    [rejected] = evolution.conform(batch, known, rules, stream="s").rejected
    assert rejected.record["id"] == "x"
    assert rejected.record["at"] == "253402300800"
    assert "10000-01-01" in rejected.record["in"]
    with pytest.raises(StreamError, match=r"column 'in' got a value of struct.* that no other column can hold"):
        evolution.conform(batch.select(["in"]), schema(**{"in": pa.int64()}), EVOLVE, stream="s")


def test_frozen_columns_stop_the_stream_and_name_the_next_step() -> None:
    rules = StreamRules(new_columns="freeze")
    with pytest.raises(StreamError, match=r"stream 'deals': column 'b' \(string\) .* record 2 .*new_columns: evolve"):
        conform({"a": [1, 2], "b": [None, "x"]}, schema(a=pa.int64()), rules)


def test_frozen_types_stop_the_stream_and_name_both_types() -> None:
    rules = StreamRules(new_types="freeze")
    with pytest.raises(StreamError, match=r"column 'a' is int64 and got string .*new_types is freeze"):
        conform({"a": ["x"]}, schema(a=pa.int64()), rules)


def test_a_new_column_without_values_breaks_no_contract() -> None:
    rules = StreamRules(new_columns="freeze")
    kept = conform({"a": [1], "b": [None]}, schema(a=pa.int64()), rules, b=pa.string())
    assert (kept.table.to_pylist(), kept.changed) == ([{"a": 1}], False)


def test_discard_record_sets_the_record_aside_as_it_came() -> None:
    rules = StreamRules(new_columns="discard_record", new_types="discard_record")
    kept = conform({"a": [1, 2, 3], "b": [None, "x", None]}, schema(a=pa.int64()), rules)
    assert kept.table.to_pylist() == [{"a": 1}, {"a": 3}]
    [rejected] = kept.rejected
    assert rejected.record == {"a": 2, "b": "x"}
    assert rejected.reason == ("column 'b' (string) is not in the schema of the stream; new_columns is discard_record")


def test_discard_value_empties_the_value_and_keeps_the_whole_record_beside() -> None:
    rules = StreamRules(new_types="discard_value")
    kept = conform({"id": [1, 2], "a": ["x", None]}, schema(id=pa.int64(), a=pa.int64()), rules)
    assert kept.table.to_pylist() == [{"id": 1, "a": None}, {"id": 2, "a": None}]
    assert [(item.record, item.reason) for item in kept.rejected] == [
        ({"id": 1, "a": "x"}, "column 'a' is int64 and got string; new_types is discard_value")
    ]


def test_a_record_with_two_faults_is_reported_once() -> None:
    rules = StreamRules(new_columns="discard_value", new_types="discard_record")
    kept = conform({"a": ["x"], "b": [1]}, schema(a=pa.int64()), rules)
    assert kept.table.num_rows == 0
    [rejected] = kept.rejected
    assert "column 'a'" in rejected.reason
    assert "column 'b'" in rejected.reason


def test_fields_that_appear_inside_a_struct_are_new_columns() -> None:
    known = schema(a=pa.struct([("x", pa.int64())]))
    rows = {"a": [{"x": 1, "y": None}, {"x": 2, "y": 3}]}
    grown = conform(rows, known)
    assert grown.schema == schema(a=pa.struct([("x", pa.int64()), ("y", pa.int64())]))
    kept = conform(rows, known, StreamRules(new_columns="discard_record"))
    assert (kept.table.to_pylist(), kept.changed) == ([{"a": {"x": 1}}], False)
    assert kept.rejected[0].record == {"a": {"x": 2, "y": 3}}
    with pytest.raises(StreamError, match="new_columns is freeze"):
        conform(rows, known, StreamRules(new_columns="freeze"))


def test_widening_is_accepted_under_every_rule() -> None:
    rules = StreamRules(new_columns="freeze", new_types="freeze")
    kept = conform({"a": [2**40]}, schema(a=pa.int8()), rules)
    assert kept.schema == schema(a=pa.int64())


def test_tombstones_pass_every_contract_and_are_timestamps() -> None:
    frozen = StreamRules(new_columns="freeze")
    at = dt.datetime(2024, 1, 1, tzinfo=UTC)
    kept = conform({"a": [1], "_deleted_at": [at]}, schema(a=pa.int64()), frozen)
    assert kept.table["_deleted_at"].to_pylist() == [at]
    with pytest.raises(StreamError, match="'_deleted_at' is bool; it is reserved"):
        conform({"_deleted_at": [True]}, None)


@pytest.mark.parametrize(
    ("names", "said"), [(["a", ""], "column 2 of 2 has no name"), (["a", "b", "a"], "two columns are named 'a'")]
)
def test_columns_have_names_of_their_own(names: list[str], said: str) -> None:
    batch = pa.Table.from_arrays([pa.array([1])] * len(names), names=names)
    with pytest.raises(StreamError, match=f"stream 'deals': {said}"):
        evolution.conform(batch, None, EVOLVE, stream="deals")


def test_fields_of_a_struct_have_names_of_their_own() -> None:
    twins = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(StreamError, match="two fields named 'x'"):
        evolution.conform(pa.table({"a": twins}), None, EVOLVE, stream="deals")


def test_encoded_columns_are_decoded_also_inside_others() -> None:
    inner = pa.StructArray.from_arrays([pa.array(["u", None]).dictionary_encode()], names=["x"])
    batch = pa.table(
        {
            "d": pa.array(["a", "b"]).dictionary_encode(),
            "r": pa.RunEndEncodedArray.from_arrays([2], ["z"]),
            "n": inner,
            "v": pa.array(["p", "q"], pa.string_view()),
            "u": pa.array([b"0" * 16, None], pa.uuid()),
            "m": pa.array([[("k", 1)], None], pa.map_(pa.large_string(), pa.int8())),
        }
    )
    kept = evolution.conform(batch, None, EVOLVE, stream="s")
    assert kept.schema == evolution.merge(None, batch.schema)
    assert kept.table["n"].to_pylist() == [{"x": "u"}, {"x": None}]
    assert kept.table["u"].to_pylist() == [b"0" * 16, None]
    assert kept.table["m"].to_pylist() == [[("k", 1)], None]
    kept.table.validate(full=True)


def test_records_without_columns_are_counted() -> None:
    batch = pa.table({"_": pa.nulls(3)}).select([])
    assert evolution.conform(batch, None, EVOLVE, stream="s").table.num_rows == 3
    assert evolution.conform(batch, schema(a=pa.int64()), EVOLVE, stream="s").table["a"].null_count == 3


@pytest.mark.parametrize("of", [pa.Table, pa.RecordBatch])
def test_older_records_fit_the_grown_schema(of: Any) -> None:
    before = of.from_arrays([pa.array([1], pa.int32()), pa.array(["x"])], names=["a", "b"])
    grown = schema(b=pa.string(), c=pa.float64(), a=pa.int64())
    after = evolution.fit(before, grown)
    assert isinstance(after, of)
    assert after.schema == grown
    assert after.to_pylist() == [{"b": "x", "c": None, "a": 1}]
    assert evolution.fit(after, grown) is after


def test_fitting_refuses_what_would_lose_a_value() -> None:
    with pytest.raises(evolution.ConflictingTypesError, match=r"'a' \(int64 and double\)"):
        evolution.fit(table({"a": [2**60]}), schema(a=pa.float64()))
    with pytest.raises(evolution.ConflictingTypesError, match=r"'a' \(int64 and no column\)"):
        evolution.fit(table({"a": [1]}), schema(b=pa.int64()))


def test_a_schema_comes_back_from_its_bytes() -> None:
    whole = schema(a=pa.decimal256(60, 2), b=pa.list_(pa.struct([("x", pa.timestamp("ns", "UTC"))])))
    assert evolution.schema_from_bytes(evolution.schema_to_bytes(whole)) == whole
    assert evolution.same(whole, whole.with_metadata({"k": "v"}))
    assert not evolution.same(whole, None)


VALUES = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "bool": st.booleans(),
    "time": st.datetimes(),
    "day": st.dates(),
    "list": st.lists(st.integers(0, 9), max_size=2),
    "struct": st.fixed_dictionaries({"x": st.integers(0, 9) | st.none()}),
}
batches = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.lists(st.none() | VALUES[kind], min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


@given(batches)
def test_every_value_of_every_batch_is_somewhere(columns: list[list[Any]]) -> None:
    known: pa.Schema | None = None
    for values in columns:
        kept = conform({"a": values}, known)
        assert kept.rejected == ()
        kept.table.validate(full=True)
        known = kept.schema
        for value, record in zip(values, kept.table.to_pylist(), strict=True):
            found = [held for held in record.values() if held is not None]
            assert len(found) == (value is not None)
            assert value is None or equal(found[0], value)


def equal(kept: Any, value: Any) -> bool:
    if isinstance(kept, str) and isinstance(value, (list, dict)):
        return equal(json.loads(kept), value)
    if type(value) is dt.date and isinstance(kept, dt.datetime):
        return kept == moment(value.isoformat())
    if isinstance(value, dict):
        return {name: item for name, item in kept.items() if item is not None} == {
            name: item for name, item in value.items() if item is not None
        }
    return bool(kept == value)
