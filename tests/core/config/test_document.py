"""Key paths are written and read back; problems are in the order of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly
from muxly._annotations import quoted
from muxly.config._document import Location, Problem, Problems, parse_path, path_text

if TYPE_CHECKING:
    from muxly.config._document import KeyPath

_KEYS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=6)


@given(st.lists(_KEYS, min_size=1), st.integers(0, 20))
def test_a_path_is_read_back_as_it_was(keys: list[str], number: int) -> None:
    path: KeyPath = (keys[0], number, *keys[1:])
    assert parse_path(path_text(path)) == path
    assert path_text(path).isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("pipelines", "daily", "routes", "lake"), "pipelines.daily.routes.lake"),
        (("triggers", 0, "type"), "triggers[0].type"),
        (("streams", "associations:*"), "streams.associations:*"),
        (("streams", "a.b", "read"), 'streams."a.b".read'),
        (("a b",), '"a b"'),
        (("",), '""'),
    ],
)
def test_paths_are_written_as_people_write_them(path: KeyPath, text: str) -> None:
    assert path_text(path) == text


@pytest.mark.parametrize("text", ["", ".a", "a.", "a..b", "a[x]", 'a."b', "a b[", "a[1"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a key; write it as pipelines.daily.parallel"):
        parse_path(text)


def test_problems_are_told_once_in_the_order_of_files_and_lines() -> None:
    problems = Problems(files=["b", "a"])
    for file, line in [("a", 1), ("x", 0), ("b", 10), ("b", 9), ("b", 9)]:
        problems.add(Location(file, line, 1), ("k",), "m")
    with pytest.raises(muxly.ConfigurationError, match=r"b:9:1: k: m\nb:10:1: k: m\na:1:1: k: m\nx: k: m\Z"):
        problems.raise_any()


def test_nothing_wrong_raises_nothing() -> None:
    Problems().raise_any()
    assert str(Problem(Location("f"), (), "m")) == "f: m"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", '"a\\nb"'), ("\u202e", '"\\u202e"'), ("x" * 100, '"' + "x" * 56 + '..."'), (1, "1"), (None, "null")],
)
def test_values_are_shown_on_one_line_and_not_endless(value: object, text: str) -> None:
    assert quoted(value) == text
