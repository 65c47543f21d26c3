"""The schema of a class: types, validators, quantities, words, and what no file can hold."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import attrs
import pytest
from attrs.validators import and_, ge, gt, in_, le, lt, matches_re, max_len, min_len, optional

import muxly
from muxly.config._file_schema import Components
from muxly.config._schema import SchemaWriter
from muxly.errors import PluginError
from tests.core.config.components import NUMBERS, TYPED, UNFIT, Color, Numbers, Report

Name = NewType("Name", str)


def _kind(kind: Any) -> dict[str, Any]:
    return SchemaWriter().kind(kind)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (Name, {"type": "string"}),
        (Path, {"type": "string", "format": "path", "minLength": 1}),
        (muxly.Secret, {"type": "string", "writeOnly": True}),
        (str | None, {"type": ["string", "null"]}),
        (int | str, {"type": ["integer", "string"]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Color, {"enum": ["red", "blue"]}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (tuple[str, ...], {"type": "array", "items": {"type": "string"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            Mapping[Literal["a", "b"], int],
            {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["a", "b"]}},
        ),
        (
            list[int] | None,
            {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        ),
        (Annotated[int, "of the day"], {"type": "integer"}),
        (Report | str, {"anyOf": [{"$ref": "#/$defs/Report"}, {"type": "string"}]}),
    ],
)
def test_types_become_schemas(kind: Any, schema: dict[str, Any]) -> None:
    assert _kind(kind) == schema


@pytest.mark.parametrize("kind", [complex, dict[int, str], bytes, type, list[complex]])
def test_types_that_no_file_holds_are_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"use text, numbers|keys must be text"):
        _kind(kind)


def _option(kind: Any, validator: Any, name: str = "value") -> dict[str, Any]:
    model = attrs.make_class("Model", {name: attrs.field(type=kind, validator=validator)})
    schema: dict[str, Any] = SchemaWriter().mapping(model)["properties"][name]
    return schema


@pytest.mark.parametrize(
    ("kind", "validator", "schema"),
    [
        (int, ge(1), {"type": "integer", "minimum": 1}),
        (int, and_(gt(0), lt(5)), {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 5}),
        (int | None, optional(le(9)), {"type": ["integer", "null"], "maximum": 9}),
        (str, min_len(1), {"type": "string", "minLength": 1}),
        (list[str], max_len(2), {"type": "array", "items": {"type": "string"}, "maxItems": 2}),
        (dict, min_len(1), {"type": "object", "minProperties": 1}),
        (str, in_(["a", "b"]), {"type": "string", "enum": ["a", "b"]}),
        (str | None, optional(in_(["a"])), {"type": ["string", "null"], "enum": ["a", None]}),
        (str, matches_re("a+"), {"type": "string", "pattern": "^(?:a+)$"}),
        (str, matches_re("a+", func=re.match), {"type": "string", "pattern": "^(?:a+)"}),
        (str, matches_re("a+", func=re.search), {"type": "string", "pattern": "a+"}),
        (str, matches_re("a+", re.IGNORECASE), {"type": "string"}),
        (Color, in_([Color.RED, Color.BLUE]), {"enum": ["red", "blue"]}),
    ],
)
def test_validators_become_keywords(kind: Any, validator: Any, schema: dict[str, Any]) -> None:
    assert _option(kind, validator) == schema


def test_sizes_and_durations_may_have_units() -> None:
    for name in ("bytes", "page_bytes"):
        schema = _option(int, ge(1), name)
        assert schema["anyOf"][0] == {"type": "integer", "minimum": 1}
        assert schema["anyOf"][1]["type"] == "string"
    assert len(_option(float | None, None, "poll_seconds")["anyOf"]) == 2
    assert len(_kind(timedelta)["anyOf"]) == 2
    assert _option(str, None, "bytes") == {"type": "string"}


def test_a_class_takes_only_its_options_and_needs_those_without_default() -> None:
    schema = SchemaWriter().mapping(Report)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["metrics"]
    assert list(schema["properties"]) == ["metrics", "limit"]


def test_words_and_defaults_are_there_when_they_are_asked_for() -> None:
    properties = SchemaWriter(documented=True).mapping(Numbers)["properties"]
    assert properties["retries"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 10,
        "description": "Tries in all.",
        "default": 3,
    }
    assert properties["window"]["default"] == "1w"
    assert properties["color"]["default"] == "red"
    assert properties["folder"]["default"] == "cache"
    assert properties["pair"]["default"] == [1, "a"]
    assert properties["reports"]["default"] == {}
    assert "default" not in properties["token"]


def test_help_of_the_cores_own_classes_comes_from_their_docstrings() -> None:
    properties = SchemaWriter(documented=True).mapping(muxly.Columns)["properties"]
    assert properties["include"]["description"] == "Only these, in this order; None = all."


def test_classes_of_one_name_have_schemas_of_their_own() -> None:
    class Report(muxly.Options):
        other: int = 1

    writer = SchemaWriter()
    first = writer.kind(Numbers)
    second = writer.model(Report)
    assert first != second
    assert len(writer.defs) == 3


class Tree(muxly.Options):
    children: list[Tree] = muxly.option("More.", factory=list)


def test_a_class_may_hold_itself() -> None:
    writer = SchemaWriter()
    assert writer.model(Tree) == {"$ref": "#/$defs/Tree"}
    assert writer.defs["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


class Shade(enum.Enum):
    DARK = 1


def test_references_may_stand_for_scalars_where_files_are_described() -> None:
    writer = SchemaWriter(references=True)
    reference = {"$ref": "#/$defs/reference"}
    properties = writer.mapping(Numbers)["properties"]
    assert reference in properties["retries"]["anyOf"]
    assert reference in properties["url"]["anyOf"]
    assert reference in properties["color"]["anyOf"]
    assert properties["token"] == {"type": "string", "writeOnly": True}
    assert reference in properties["pair"]["prefixItems"][0]["anyOf"]
    assert properties["reports"] == {"type": "object", "additionalProperties": {"$ref": "#/$defs/Report"}}


def test_a_component_may_not_name_an_option_type() -> None:
    with pytest.raises(PluginError, match='Typed has an option named "type", which chooses the plugin'):
        Components().schema("router", TYPED)


def test_an_option_that_no_file_holds_is_told_with_its_class() -> None:
    with pytest.raises(PluginError, match=r"option 'when' of .*Unfit has the type <class 'complex'>"):
        Components().schema("router", UNFIT)


def test_a_type_that_is_imported_for_type_checkers_only_is_told() -> None:
    class Lost(muxly.Options):
        when: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PluginError, match=r"the type 'Missing' of option 'when' .* cannot be resolved"):
        SchemaWriter().mapping(Lost)


def test_inherited_options_are_resolved_where_they_were_written() -> None:
    class Derived(Numbers):
        mine: int = 1

    properties = SchemaWriter().mapping(Derived)["properties"]
    assert next(iter(properties)) == "mine", "own options stand before inherited ones"
    assert properties["token"] == {"type": "string", "writeOnly": True}


def test_type_must_be_the_plugins_name() -> None:
    schema, _defs = Components().schema("connector", NUMBERS)
    assert schema["properties"]["type"] == {"const": NUMBERS}
    assert schema["required"] == ["type", "token"]
