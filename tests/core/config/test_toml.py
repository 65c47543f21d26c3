"""TOML: what only TOML has, each with its place."""

from __future__ import annotations

import pytest

from tests.core.config.reading import problems_of, read

_TEXT = '''\
title = "x" # a comment ] }
"quoted.key" = 'literal'
a.b . "c" = 1
date = 1979-05-27 07:32:00
times = [07:32:00, 1979-05-27T07:32:00.5Z, 2000-01-01]
numbers = [1_000, 0xFF, 1_0.5, 6e2, +7]
multi = """
line "quoted"
"""
inline = { x = 1, y.z = [
  { w = true }, # trailing commas are TOML 1.1
], }

[table . sub]
key = """""two quotes"""""
[[list]]
n = 1
[[list]]
[list.inner]
m = 2
[[list.inner.more]]
[table]
after = 1
'''


def test_toml_is_read_with_dates_as_text() -> None:
    value = read(_TEXT, ".toml").value
    assert value["date"] == "1979-05-27 07:32:00"
    assert value["times"] == ["07:32:00", "1979-05-27T07:32:00.5Z", "2000-01-01"]
    assert value["numbers"] == [1000, 255, 10.5, 600.0, 7]
    assert value["a"] == {"b": {"c": 1}}
    assert value["inline"] == {"x": 1, "y": {"z": [{"w": True}]}}
    assert value["table"] == {"sub": {"key": '""two quotes""'}, "after": 1}
    assert value["list"] == [{"n": 1}, {"inner": {"m": 2, "more": [{}]}}]
    assert value["multi"] == 'line "quoted"\n'


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("title",), "1:1", "1:9"),
        (("quoted.key",), "2:1", "2:16"),
        (("a", "b", "c"), "3:7", "3:13"),
        (("times", 1), None, "5:20"),
        (("inline", "y", "z", 0, "w"), "11:5", "11:9"),
        (("table", "sub"), "14:10", "14:10"),
        (("table", "sub", "key"), "15:1", "15:7"),
        (("list",), "16:3", "16:3"),
        (("list", 0), None, "16:3"),
        (("list", 1), None, "18:3"),
        (("list", 1, "inner", "m"), "20:1", "20:5"),
        (("table", "after"), "23:1", "23:9"),
    ],
)
def test_every_node_has_its_place(path: tuple[str | int, ...], key: str | None, value: str) -> None:
    document = read(_TEXT, ".toml")
    assert str(document.values[path]) == f"muxly.toml:{value}"
    assert (str(document.keys[path]) if path in document.keys else None) == (key and f"muxly.toml:{key}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\na = 2", 'muxly.toml:2:1: duplicate key "a"; it is already on line 1'),
        ("[a]\n[b]\n[a]", 'muxly.toml:3:2: duplicate key "a"; it is already on line 1'),
        ("a = {b = 1, b = 2}", 'muxly.toml:1:13: duplicate key "b"; it is already on line 1'),
        ("[a]\nb = 1\n[c]\na.b = 1\n[a.b]", "muxly.toml:5:5: cannot overwrite"),
        ("a = 1 b = 2", "muxly.toml:1:7: expected newline"),
        ("a = ", "muxly.toml:1:5: invalid value"),
        ("= 1", "muxly.toml:1:1: invalid"),
        ('"\\q" = 1', "muxly.toml:1:4: unescaped"),
        ("a = 1\n[a]", "muxly.toml:2:3: cannot overwrite a value"),
    ],
)
def test_what_is_not_toml_is_told_with_its_place(text: str, message: str) -> None:
    (found,) = problems_of(text, ".toml")
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = data/x.csv", "1:5"), ("[t]\na = [é]", "2:6"), ("a = {b = some words}", "1:10"), ("a = ${HOME}", "1:5")],
)
def test_text_without_quotes_is_told_to_need_them(text: str, place: str) -> None:
    assert problems_of(text, ".toml") == [f'muxly.toml:{place}: invalid value; text goes in quotes: key = "text"']


@pytest.mark.parametrize("text", ["a = ", "a = # none", "a = [,]", 'a = "never closed'])
def test_what_is_no_bare_text_is_not_told_to_need_quotes(text: str) -> None:
    (found,) = problems_of(text, ".toml")
    assert "quotes" not in found
