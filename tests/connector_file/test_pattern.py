from __future__ import annotations

import pytest

from muxly_connector_file import _storage


@pytest.mark.parametrize(
    ("path", "base", "pattern"),
    [
        ("/a/b.csv", "/a/b.csv", ""),
        ("/a/*.csv", "/a", "*.csv"),
        ("/a/**/b/*.csv", "/a", "**/b/*.csv"),
        ("/a/x-*/b.csv", "/a", "x-*/b.csv"),
        ("*.csv", ".", "*.csv"),
        ("/*.csv", "/", "*.csv"),
    ],
)
def test_the_folder_before_the_first_wildcard_is_the_base(path: str, base: str, pattern: str) -> None:
    assert _storage.split_pattern(path) == (base, pattern)


@pytest.mark.parametrize(
    ("pattern", "match", "no_match"),
    [
        ("*.csv", ["a.csv", "ä b.csv"], ["b/a.csv", "a.csv.gz", "a.csv\n"]),
        ("**/*.csv", ["a.csv", "b/a.csv", "b/c/a.csv"], ["a.txt"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[ab].csv", ["a.csv", "b.csv"], ["c.csv"]),
        ("[!ab].csv", ["c.csv"], ["a.csv", "/.csv"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("*.{csv,jsonl}", ["a.csv", "a.jsonl"], ["a.parquet"]),
        ("a.b+c(1)", ["a.b+c(1)"], ["aXb+c(1)"]),
        ("[]]", ["]"], ["["]),
    ],
)
def test_a_pattern_matches_whole_paths(pattern: str, match: list[str], no_match: list[str]) -> None:
    expression = _storage.compile_pattern(pattern)
    assert all(expression.match(one) for one in match)
    assert not any(expression.match(one) for one in no_match)


@pytest.mark.parametrize("pattern", ["[a", "{a,b", "[z-a]"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a path pattern"):
        _storage.compile_pattern(pattern)


def test_depth_is_how_far_a_pattern_reaches_down() -> None:
    assert [_storage.pattern_depth(one) for one in ("*.csv", "*/*.csv", "**/*.csv")] == [0, 1, None]
