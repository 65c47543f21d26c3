"""Names stay harmless and different, whatever they are made from."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_routers._files import layout
from muxly_routers._files.layout import PartitionKey

HOSTILE = (
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/absolute",
    "a/b",
    "a\\b",
    ".hidden",
    "-rf",
    "con",
    "CON.txt",
    "lpt1",
    "a.",
    "a ",
    "x" * 255,
    "é",
    "日本語",
    "\x00",
    "new\nline",
    "\u202e",
    "%2e%2e",
    "a:b",
    "~",
    "$HOME",
    "{stream}",
    "\ud800",
    "COM1",
)
SAFE = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*")


@pytest.mark.parametrize("text", HOSTILE)
def test_slug_is_one_harmless_component(text: str) -> None:
    name = layout.slug(text)
    assert SAFE.fullmatch(name)
    assert len(name) <= 100
    assert not name.endswith(".")
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name)


@pytest.mark.parametrize("text", ["orders", "orders_2", "a.b", "a=b", "UPPER", "01JW00002SWA0K053QKCXMSBW9"])
def test_slug_keeps_a_name_that_is_fit(text: str) -> None:
    assert layout.slug(text) == text


@given(st.lists(st.text(max_size=30), min_size=2, max_size=2, unique=True))
def test_slugs_of_different_texts_differ(texts: list[str]) -> None:
    assert layout.slug(texts[0]) != layout.slug(texts[1])


def test_slug_of_one_stream_cannot_be_taken_by_another() -> None:
    """A stream may be named like the hashed name of another."""
    taken = layout.slug("deals:contacts")
    assert layout.slug(taken) != taken


def test_folder_name_is_what_hive_readers_expect() -> None:
    assert layout.folder_name("country", "DE") == "country=DE"
    assert layout.folder_name("country", None) == "country=__HIVE_DEFAULT_PARTITION__"
    assert layout.folder_name("city", "São Paulo/x") == "city=S%C3%A3o%20Paulo%2Fx"
    assert layout.folder_name("a b", "") == "a%20b="


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_folder_names_of_different_values_differ(values: list[str]) -> None:
    first, second = (layout.folder_name("c", value) for value in values)
    assert first != second
    assert re.fullmatch(r"c=[A-Za-z0-9._%~-]*", first)
    assert len(first) <= 210
    assert not first.endswith(".")


def test_folder_name_of_a_long_value_is_cut_and_still_its_own() -> None:
    one, two = layout.folder_name("c", "x" * 300), layout.folder_name("c", "x" * 301)
    assert one != two
    assert layout.is_cut(one)
    assert not layout.is_cut(layout.folder_name("c", "~" * 20))


def test_partition_keys_are_read() -> None:
    assert PartitionKey.parse("country") == PartitionKey("country", None, "country")
    assert PartitionKey.parse("month(created at)") == PartitionKey("created at", "month", "month")
    assert PartitionKey.parse("day(at) as at_day") == PartitionKey("at", "day", "at_day")
    with pytest.raises(ValueError, match="neither a column nor one of"):
        PartitionKey.parse("")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("all", "{stream} must be in"),
        ("{stream}/{day}", "{day} is not known"),
        ("../{stream}", "is not a name"),
        ("/{stream}", "is not a name"),
        ("{stream}/", "is not a name"),
        ("a b/{stream}", "is not a name"),
    ],
)
def test_template_that_could_harm_is_refused(template: str, problem: str) -> None:
    found = layout.template_problem(template, "stream", ("stream", "pipeline"))
    assert found is not None
    assert problem in found


def test_template_is_filled_with_slugs_only() -> None:
    assert layout.template_problem("raw/{pipeline}-{stream}", "stream", ("stream", "pipeline")) is None
    name = layout.rendered("raw-{stream}", {"stream": "../x"})
    assert "/" not in name
    assert name.startswith("raw-x-")
