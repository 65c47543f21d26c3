"""Templates put values into texts and JSON documents, and do nothing else."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_routers._templates import Template, UnknownFieldError

RECORD: dict[str, Any] = {
    "name": "Ann <b>",
    "amount": 1234.5,
    "price": Decimal("12.30"),
    "count": 7,
    "day": date(2026, 3, 1),
    "at": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    "none": None,
    "flag": True,
    "raw": b"\x00\xff",
    "nested": {"city": "Köln", "deep": {"x.y": 1}},
    "tags": ["a", "b"],
    "dotted.name": "as is",
    "with space": "yes",
    "odd:na|me{}": "quoted",
    "gone": None,
}


def rendered(source: Any, **options: Any) -> Any:
    return Template.parse(source).render(RECORD, **options)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("Hi {name}!", "Hi Ann <b>!"),
        ("{{{name}}}", "{Ann <b>}"),
        ("{{name}}", "{name}"),
        ("{dotted.name}!", "as is!"),
        ("{with space}!", "yes!"),
        ('{"odd:na|me{}"}!', "quoted!"),
        ("{nested.city}!", "Köln!"),
        ("{nested.deep.x.y}!", "1!"),
        ("{amount:,.2f}", "1,234.50"),
        ("{price:.1f}", "12.3"),
        ("{count:05d}", "00007"),
        ("{name:>10}", "   Ann <b>"),
        ("{amount:.1%}", "123450.0%"),
        ("{day:%d %b %Y}", "01 Mar 2026"),
        ("{at:%H:%M}", "12:30"),
        ("{none}!", "!"),
        ("{none|nobody}!", "nobody!"),
        ("{none:.2f|0}!", "0!"),
        ("{none|}!", "!"),
        ("{gone.by|never}!", "never!"),
        ("{flag}!", "true!"),
        ("{price}!", "12.30!"),
        ("{at}!", "2026-03-01T12:30:00Z!"),
        ("{raw}!", "AP8=!"),
        ("{tags}!", '["a", "b"]!'),
        ("{nested}!", '{"city": "Köln", "deep": {"x.y": 1}}!'),
    ],
)
def test_text_with_places(source: str, expected: str) -> None:
    assert rendered(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{count}", 7),
        ("{amount}", 1234.5),
        ("{price}", "12.30"),
        ("{flag}", True),
        ("{none}", None),
        ("{none|nobody}", "nobody"),
        ("{at}", "2026-03-01T12:30:00Z"),
        ("{day}", "2026-03-01"),
        ("{raw}", "AP8="),
        ("{tags}", ["a", "b"]),
        ("{nested}", {"city": "Köln", "deep": {"x.y": 1}}),
        ({"a": ["{count}", 1, None, {"{b}": "x {count}"}]}, {"a": [7, 1, None, {"{b}": "x 7"}]}),
    ],
)
def test_place_alone_is_the_value_as_json_has_it(source: Any, expected: Any) -> None:
    value = rendered(source)
    assert value == expected
    assert type(value) is type(expected)
    json.dumps(value)


def test_decimal_alone_becomes_what_the_caller_says() -> None:
    assert rendered(["{price}", "{price}!"], number=float) == [12.3, "12.30!"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (timedelta(days=1, seconds=2, microseconds=500_000), "P1DT2.5S"),
        (timedelta(0), "PT0S"),
        (timedelta(seconds=-90), "-PT90S"),
        (timedelta(days=3), "P3D"),
        (time(1, 2), "01:02:00"),
        (float("nan"), None),
        (float("-inf"), None),
    ],
)
def test_odd_values_alone(value: Any, expected: str | None) -> None:
    assert Template.parse("{x}").render({"x": value}) == expected


def test_not_a_number_inside_a_text_is_named() -> None:
    assert Template.parse("{x}!").render({"x": float("nan")}) == "nan!"


def test_only_what_a_value_brings_in_is_escaped() -> None:
    def escape(text: str, before: str) -> str:
        return text.replace("<", "&lt;")

    assert rendered("<i>{name}</i>", escape=escape) == "<i>Ann &lt;b></i>"
    assert rendered("{name}", escape=escape) == "Ann &lt;b>"
    assert rendered("{none|<none>}!", escape=escape) == "<none>!"
    assert rendered("{name:>10}", escape=escape) == "   Ann &lt;b>"
    nested = Template.parse(["{x}"])
    assert nested.render({"x": {"<k": ["<v", 1]}}, escape=escape) == [{"&lt;k": ["&lt;v", 1]}]


def test_escape_is_told_what_stands_before_in_the_same_text() -> None:
    told: list[tuple[str, str]] = []

    def escape(text: str, before: str) -> str:
        told.append((text, before))
        return text.upper()

    assert rendered(["{{<{none}{name}|{count}>", "{raw}", "{with space}"], escape=escape) == [
        "{<ANN <B>|7>",
        "AP8=",
        "YES",
    ]
    assert told == [("Ann <b>", "{<"), ("7", "{<ANN <B>|"), ("AP8=", ""), ("yes", "")]


def test_decimal_shows_all_its_digits_alone_and_inside_a_text() -> None:
    record = {"x": Decimal("1E-9"), "y": {"z": Decimal("2E+3")}}
    assert Template.parse(["{x}", "{x}!", "{y}"]).render(record) == ["0.000000001", "0.000000001!", {"z": "2000"}]


def test_fields_are_named_as_they_are_written() -> None:
    template = Template.parse({"a": "{name} {nested.city}", "b": ['{"odd:na|me{}":>5|x}', 3]})
    assert template.fields == {"name", "nested.city", "odd:na|me{}"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a { b", r"character 3: a single \{"),
        ("a } b", r"character 3: a single \}"),
        ("{}", r"character 1: .*names no field"),
        ("{:.2f}", r"names no field"),
        ("{x:%q}", r"'%q' is no format"),
        ("{x:.2n}", r"is no format"),
        ("{x:%1000000000Y}", r"is no format"),
        ("{x:999999999}", r"wider than 200"),
        ("{x:.999999999f}", r"more precise than 50"),
        ("{x:" + "%d" * 60 + "}", r"at most 100 characters"),
        ({"a": [{"b": "ok"}, {"b": "xx{"}]}, r"^a\[1\]\.b: character 3: "),
    ],
)
def test_what_is_no_template_is_refused_where_it_is_wrong(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Template.parse(source)


def test_endless_nesting_is_refused() -> None:
    source: Any = "{x}"
    for _ in range(100):
        source = [source]
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        Template.parse(source)


@pytest.mark.parametrize(
    "source",
    ["{name.__class__}", "{0.__class__}", "{tags[0]}", "{name!r}", "{__init__}", "{nested.__class__}", "{tags.0}"],
)
def test_attributes_and_items_are_out_of_reach(source: str) -> None:
    with pytest.raises(UnknownFieldError, match="the records have no field"):
        rendered(source)


def test_unknown_field_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownFieldError, match='no field "amuont"; did you mean "amount"') as caught:
        rendered("{amuont}")
    assert caught.value.field == "amuont"
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("source", ["{name:.2f}", "{day:.2f}", "{amount:%d}", "{tags:>5}", "{amount:x}", "{flag:%Y}"])
def test_format_that_does_not_fit_the_value_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match=r"the format .* does not fit a value of type"):
        rendered(source)


def test_endless_number_is_not_written_out() -> None:
    record = {"x": Decimal("1E+999999")}
    assert Template.parse("{x}!").render(record) == "1E+999999!"
    with pytest.raises(ValueError, match="does not fit"):
        Template.parse("{x:.2f}").render(record)


@given(st.text(), st.text())
def test_values_are_never_read_as_templates(before: str, value: str) -> None:
    source = before.replace("{", "{{").replace("}", "}}") + "{x}!"
    assert Template.parse(source).render({"x": value}) == f"{before}{value}!"


@given(st.text(alphabet="{}:|.%\"'ab0 "))
def test_any_text_is_a_template_or_an_error_with_a_place(source: str) -> None:
    try:
        Template.parse(source)
    except ValueError as error:
        assert "character " in str(error)  # noqa: PT017 - both outcomes are right
