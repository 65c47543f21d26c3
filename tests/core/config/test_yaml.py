"""YAML is read by the rules of 1.2, duplicates and tags refused, merges and aliases with their places."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.core.config.reading import problems_of, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("012", "012"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("08", "08"),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ('"1"', "1"),
        ("'true'", "true"),
        ("|\n  7\n", "7\n"),
        ("=", "="),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = read(f"key: {text}", ".yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_as_they_are_written() -> None:
    assert read("on: 1\n1: 2\nnull: 3\n1.5: 4\ntrue: 5", ".yaml").value == {
        "on": 1,
        "1": 2,
        "null": 3,
        "1.5": 4,
        "true": 5,
    }


def test_duplicate_keys_are_all_named_with_both_lines() -> None:
    text = "a: 1\nb:\n  c: 1\n  c: 2\na: 3\na: 4\n"
    assert problems_of(text, ".yaml") == [
        'muxly.yaml:4:3: duplicate key "c"; it is already on line 3, remove one of the two',
        'muxly.yaml:5:1: duplicate key "a"; it is already on line 1, remove one of the two',
        'muxly.yaml:6:1: duplicate key "a"; it is already on line 1, remove one of the two',
    ]


def test_merged_keys_keep_the_place_of_their_source_and_do_not_win() -> None:
    document = read("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 5\n", ".yaml")
    assert document.value["z"] == {"a": 5, "b": 2, "c": 4}
    assert str(document.location(("z", "a"))) == "muxly.yaml:5:6"
    assert str(document.location(("z", "b"))) == "muxly.yaml:1:17"
    assert str(document.key_location(("z", "c"))) == "muxly.yaml:2:14"


def test_an_alias_stands_where_it_is_used_and_its_inside_at_the_anchor() -> None:
    document = read("x: &x {a: [1]}\ny: *x\n", ".yaml")
    assert document.value["y"] == {"a": [1]}
    assert document.value["y"] is not document.value["x"]
    assert str(document.location(("y",))) == "muxly.yaml:2:4"
    assert str(document.location(("y", "a", 0))) == "muxly.yaml:1:12"


def test_an_anchor_on_a_key_can_be_repeated() -> None:
    assert read("&k a: 1\nb: *k\nc: {*k : 2}", ".yaml").value == {"a": 1, "b": "a", "c": {"a": 2}}


def test_the_reader_without_the_c_library_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &a {b: [1, '2', on]}\nc: *a\nd:\n- e\n- |\n  f\n"
    expected = read(text, ".yaml")
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert read(text, ".yaml") == expected
    assert problems_of("[" * 5000, ".yaml") == ["muxly.yaml:1:102: nested more than 100 levels deep"]
