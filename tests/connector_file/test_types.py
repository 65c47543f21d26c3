from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_connector_file import _source, _types

UTC = datetime.UTC


def text(*values: str | None) -> pa.StringArray:
    return pa.array(values, pa.string())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0"], pa.int64()),
        (["9223372036854775807"], pa.int64()),
        (["9223372036854775808"], pa.decimal128(38, 0)),
        (["9" * 30, "1"], pa.decimal128(38, 0)),
        (["9" * 70], pa.decimal256(76, 0)),
        (["9" * 77], pa.string()),
        (["1.5", "2", "-.5", "1e5", "nan", "inf"], pa.float64()),
        (["-0"], pa.float64()),
        (["1e400"], pa.string()),
        (["9007199254740993", "1.5"], pa.string()),
        (["007", "008"], pa.string()),
        (["1.5", "01.5"], pa.string()),
        (["+491701234567"], pa.string()),
        (["0x10"], pa.string()),
        ([" 5"], pa.string()),
        (["1_000"], pa.string()),
        (["true", "False", "TRUE"], pa.bool_()),
        (["0", "1"], pa.int64()),
        (["2020-01-01", "0001-01-01", "9999-12-31"], pa.date32()),
        (["2020-02-30"], pa.string()),
        (["10000-01-01"], pa.string()),
        (["2020-01-01T10:00:00", "2020-01-01 10:00"], pa.timestamp("us")),
        (["2020-01-01T10:00:00Z", "2020-01-01T10:00:00+02:00"], pa.timestamp("us", "UTC")),
        (["2020-01-01T10:00:00.123456789"], pa.timestamp("ns")),
        (["2020-01-01T23:59:60"], pa.string()),
        (["2020-01-01T10:00:00Z", "2020-01-01T10:00:00"], pa.string()),
        (["1", "x"], pa.string()),
        ([""], pa.string()),
        ([None], pa.null()),
        ([], pa.null()),
        ([None, "1"], pa.int64()),
    ],
)
def test_the_narrowest_exact_type_is_inferred(values: list[str | None], kind: pa.DataType) -> None:
    assert _types.infer(text(*values)) == kind


@given(st.lists(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5)).map(str), min_size=1))
def test_whatever_is_inferred_holds_every_value(values: list[str]) -> None:
    column = text(*values)
    kind = _types.infer(column)
    converted = _types.convert(column, kind, given=False)
    assert converted.misfits is None
    assert converted.values.null_count == 0
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        assert [str(one) for one in converted.values.to_pylist()] == values
    if pa.types.is_floating(kind):
        assert converted.values.to_pylist() == [float(one) for one in values]


@pytest.mark.parametrize(
    ("kind", "values", "result"),
    [
        ("int64", ["1", " x", "007", " +5", "0x1f", None, "1.5", "9" * 20], [1, "x", 7, 5, "x", None, "x", "x"]),
        ("int8", ["127", "128"], [127, "x"]),
        (
            "decimal(5, 2)",
            ["1", "1.239", "9999.99", "+1.5", "999.99"],
            [Decimal(1), "x", "x", Decimal("1.5"), Decimal("999.99")],
        ),
        ("decimal(38, 0)", ["9" * 38, "9" * 39, "9" * 70], [Decimal("9" * 38), "x", "x"]),
        ("bool", ["true", "1", "yes", "FALSE"], [True, True, "x", False]),
        ("date", ["2020-01-01", "2020-1-1", "2020-02-30"], [datetime.date(2020, 1, 1), "x", "x"]),
        ("time", ["10:00", "10:00:00.5", "25:00"], [datetime.time(10), datetime.time(10, 0, 0, 500_000), "x"]),
        ("timestamp", ["2020-01-01 10:00", "2020-01-01T10:00:00Z"], [datetime.datetime(2020, 1, 1, 10), "x"]),  # noqa: DTZ001
        (
            "timestamp(us, UTC)",
            ["2020-01-01", "2020-01-01T10:00", "2020-01-01T10:00:00+02:00", "x"],
            [
                datetime.datetime(2020, 1, 1, tzinfo=UTC),
                datetime.datetime(2020, 1, 1, 10, tzinfo=UTC),
                datetime.datetime(2020, 1, 1, 8, tzinfo=UTC),
                "x",
            ],
        ),
        ("float64", ["1.5", "007", "+1", "abc"], [1.5, 7.0, 1.0, "x"]),
        ("string", ["007", " a "], ["007", " a "]),
        ("binary", ["a"], [b"a"]),
    ],
)
def test_a_given_type_takes_every_spelling_and_names_what_does_not_fit(
    kind: str, values: list[str | None], result: list[Any]
) -> None:
    converted = _types.convert(text(*values), _types.arrow_type(kind), given=True)
    misfits = converted.misfits.to_pylist() if converted.misfits is not None else [False] * len(values)
    assert misfits == [one == "x" for one in result]
    assert converted.values.to_pylist() == [None if one == "x" else one for one in result]


def test_many_misfits_are_found_in_reasonable_time() -> None:
    column = text(*(str(n) if n % 2 else f"x{n}" for n in range(50_000)))
    converted = _types.convert(column, pa.int64(), given=False)
    assert converted.misfits is not None
    assert converted.misfits.true_count == 25_000


@pytest.mark.parametrize("name", ["int64", "decimal(12, 2)", "timestamp(ns, Europe/Berlin)", "decimal(76)", "time"])
def test_names_of_types(name: str) -> None:
    assert isinstance(_types.arrow_type(name), pa.DataType)


@pytest.mark.parametrize(
    ("name", "message"),
    [("integer64", "there is no type 'integer64'"), ("in64", "did you mean 'int64'"), ("decimal(77, 2)", "76 digits")],
)
def test_unknown_types_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _source.parse_type(name)
