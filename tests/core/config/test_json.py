"""JSON: RFC 8259, with duplicate keys refused."""

from __future__ import annotations

from tests.core.config.reading import problems_of, read


def test_json_is_read_with_every_kind_of_value() -> None:
    text = '{"a": [1, -2.5e3, true, false, null, "x\\u00e9\\n"], "b": {}, "c": []}'
    assert read(text, ".json").value == {"a": [1, -2500.0, True, False, None, "xé\n"], "b": {}, "c": []}


def test_duplicate_keys_are_named_with_both_lines() -> None:
    assert problems_of('{"a": 1,\n "a": 2}', ".json") == [
        'muxly.json:2:2: duplicate key "a"; it is already on line 1, remove one of the two'
    ]


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert read('{"a": "\\ud83d\\ude00"}', ".json").value == {"a": "\N{GRINNING FACE}"}
