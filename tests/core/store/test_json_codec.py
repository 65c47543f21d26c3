"""Values come back equal and of the same type; what cannot is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxly.errors import PluginError, StoreError
from muxly.store.json_codec import decode, digest, encode

_offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
_zones = st.sampled_from(
    ["Africa/Monrovia", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "UTC"]
).map(ZoneInfo)
_moments = st.datetimes(timezones=st.none() | st.just(UTC) | _offsets | _zones, allow_imaginary=True)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.builds(lambda moment, fold: moment.replace(fold=fold), _moments, st.sampled_from([0, 1]))
    | st.decimals(allow_nan=False, allow_infinity=False)
)
_keys = st.text() | st.sampled_from(["$date", "$datetime", "$dict", "$tuple", "$", "$ref"])
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=12,
)


@given(_values)
def test_every_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert _shape(back) == _shape(value)


@given(_values)
@example(datetime(2000, 1, 1, tzinfo=timezone(timedelta(microseconds=1))))
@example(datetime.min.replace(tzinfo=timezone(timedelta(microseconds=1))))
@example(datetime.max.replace(tzinfo=timezone(timedelta(microseconds=-1))))
def test_text_is_ascii_and_canonical(value: Any) -> None:
    text = encode(value)
    assert text.isascii()
    assert encode(decode(text)) == text


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_keys_changes_neither_text_nor_digest(value: dict[str, int]) -> None:
    other = dict(reversed(list(value.items())))
    assert encode(other) == encode(value)
    assert digest(other) == digest(value)


@given(_values, _values)
def test_digests_differ_when_values_do(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (encode(one) == encode(other))


def test_digest_is_the_same_on_every_machine_and_in_every_release() -> None:
    value = {"at": datetime(2026, 11, 23, tzinfo=UTC), "ids": [1, 2.5, Decimal("1.10")], "none": None}
    assert digest(value) == "d6574979becb5dd41a0f9a41478f1378"


def test_number_text_and_truth_have_different_digests() -> None:
    assert len({digest(value) for value in (1, 1.0, True, "1", Decimal(1))}) == 5


def test_repeated_hour_keeps_its_fold_and_zone() -> None:
    second = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode(encode(second))
    assert (back, back.fold, back.tzinfo) == (second, 1, ZoneInfo("Europe/Berlin"))
    assert back.utcoffset() == timedelta(hours=1)


def test_other_kind_of_zone_comes_back_at_the_same_instant() -> None:
    class Odd(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            return timedelta(hours=5, minutes=45)

        def tzname(self, moment: datetime | None) -> str:
            return "odd"

        def dst(self, moment: datetime | None) -> None:
            return None

    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=Odd())
    back = decode(encode(moment))
    assert back == moment
    assert back.tzinfo == timezone(timedelta(hours=5, minutes=45))


def test_dict_that_looks_like_a_date_stays_a_dict() -> None:
    assert decode(encode({"$date": "2026-01-01"})) == {"$date": "2026-01-01"}


class _Number(IntEnum):
    ONE = 1


class _Word(StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(float("nan"), r"^cursor: nan is not a finite number", id="nan"),
        pytest.param([1, float("-inf")], r"^cursor\[1\]: -inf is not a finite number", id="infinity"),
        pytest.param(Decimal("sNaN"), r"^cursor: Decimal sNaN is not a finite number", id="decimal"),
        pytest.param({1: "a"}, r"^cursor: the key 1 is not text", id="key"),
        pytest.param({"a": {None: 1}}, r"^cursor\['a'\]: the key None is not text", id="inner-key"),
        pytest.param({"a": [{"b": {1, 2}}]}, r"^cursor\['a'\]\[0\]\['b'\]: a builtins\.set cannot be stored", id="set"),
        pytest.param(_Number.ONE, r"_Number cannot be stored", id="int-enum"),
        pytest.param(_Word.A, r"_Word cannot be stored", id="text-enum"),
        pytest.param(np.float64(1.5), r"numpy\.float64 cannot be stored .* use None, bool, int", id="numpy"),
        pytest.param(pd.Timestamp("2026-01-01"), r"Timestamp cannot be stored .* datetime", id="pandas"),
        pytest.param(timedelta(1), r"datetime\.timedelta cannot be stored", id="duration"),
        pytest.param(10**5000, r"4300 digits", id="long-int"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        encode(value)


def test_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PluginError, match="nested more than 100 levels deep, or contains itself"):
        encode(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"$unknown": 1}',
        '{"$bytes": "0"}',
        '{"$date": 3}',
        '{"$date": "2026-13-01"}',
        '{"$datetime": []}',
        '{"$datetime": ["2026-01-01T00:00:00", 0, "../../etc/passwd"]}',
        '{"$decimal": "x"}',
        '{"$dict": 1}',
        '{"$tuple": 1}',
    ],
    ids=range(12),
)
def test_text_that_muxly_did_not_write_is_an_error_with_a_next_step(text: str) -> None:
    with pytest.raises(StoreError, match=r"was not written by Muxly .* run `muxly db check`"):
        decode(text)


def test_unknown_zone_says_how_to_learn_it() -> None:
    text = json.dumps({"$datetime": ["2026-01-01T00:00:00", 0, "Moon/Tranquility"]})
    with pytest.raises(StoreError, match=r"time zone that this machine does not have .* pip install tzdata"):
        decode(text)


def test_error_about_a_large_value_is_short() -> None:
    with pytest.raises(StoreError, match="was not written by Muxly") as caught:
        decode('"' + "x" * 1_000_000)
    assert len(str(caught.value)) < 400


def _shape(value: Any) -> Any:
    """The value with its types spelled out, so that 1, 1.0 and True differ, and fold and zone count."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (type(value), [_shape(item) for item in value])
    if isinstance(value, datetime):
        return (datetime, value.replace(tzinfo=None), value.fold, value.tzinfo)
    if isinstance(value, float | Decimal):
        return (type(value), str(value))
    return (type(value), value)


def test_date_is_not_a_datetime() -> None:
    assert type(decode(encode(date(2026, 1, 1)))) is date
