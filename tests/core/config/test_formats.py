"""YAML, JSON and TOML are one model, and every node of it has its place."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.config.reading import read
from tests.core.config.writers import DOCUMENTS, Writer, write_json, write_toml, write_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly.config._document import Document


def _written(write: Callable[..., None], value: dict[str, Any], seed: int) -> Writer:
    gaps = random.Random(seed)
    writer = Writer(lambda: gaps.choice(["", "", " ", "\n", "\n  "]) if write is write_json else "")
    write(value, writer)
    return writer


def _assert_same(document: Document, value: dict[str, Any], writer: Writer) -> None:
    assert document.value == value
    assert _types(document.value) == _types(value)
    assert {path: (at.line, at.column) for path, at in document.values.items()} == writer.values
    assert {path: (at.line, at.column) for path, at in document.keys.items()} == writer.keys


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return [_types(item) for item in value] if isinstance(value, list) else type(value)


@given(DOCUMENTS, st.integers(0, 1000))
def test_json_keeps_every_value_and_its_place(value: dict[str, Any], seed: int) -> None:
    writer = _written(write_json, value, seed)
    _assert_same(read(writer.text, ".json"), value, writer)


@given(DOCUMENTS, st.integers(0, 1000))
def test_json_is_yaml_with_the_same_places(value: dict[str, Any], seed: int) -> None:
    writer = _written(write_json, value, seed)
    indented = "\n".join(" " + line for line in writer.text.split("\n"))
    document = read(indented, ".yaml")
    assert document.value == value
    assert {path: (at.line, at.column - 1) for path, at in document.values.items()} == writer.values


@given(DOCUMENTS)
def test_yaml_keeps_every_value_and_its_place(value: dict[str, Any]) -> None:
    writer = _written(write_yaml, value, 0)
    _assert_same(read(writer.text, ".yaml"), value, writer)


@given(DOCUMENTS)
def test_toml_keeps_every_value_and_its_place(value: dict[str, Any]) -> None:
    writer = _written(write_toml, value, 0)
    _assert_same(read(writer.text, ".toml"), value, writer)


@given(DOCUMENTS)
def test_the_three_formats_give_one_model(value: dict[str, Any]) -> None:
    texts = {".json": write_json, ".toml": write_toml, ".yaml": write_yaml}
    models = [read(_written(write, value, 0).text, suffix).value for suffix, write in texts.items()]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".toml"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_breaks_and_byte_order_marks_do_not_move_places(suffix: str, line_break: str, mark: str) -> None:
    texts = {
        ".json": ["{", '  "a": {', '    "\N{GRINNING FACE}é": 1}', "}"],
        ".yaml": ["a:", "    b: 2", '    "\N{GRINNING FACE}é": 1'],
        ".toml": ["[a]", "b = 2", '    "\N{GRINNING FACE}é" = 1'],
    }
    document = read(mark + line_break.join(texts[suffix]), suffix)
    assert document.value["a"]["\N{GRINNING FACE}é"] == 1
    place = document.keys["a", "\N{GRINNING FACE}é"]
    assert (place.line, place.column) == (3, 5)
    assert str(document.values["a", "\N{GRINNING FACE}é"]).startswith(f"muxly{suffix}:3:")


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_an_empty_file_is_an_empty_mapping(suffix: str) -> None:
    assert read("", suffix).value == {}
    assert read("# nothing\n\n", suffix).value == {}
