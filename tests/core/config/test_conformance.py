"""The quick check is exactly as strict as jsonschema, on schemas and values of every kind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry

from muxly.config._conformance import fits
from muxly.config._file_schema import Components, core_schema
from tests.core.config.components import NUMBERS, SHELF
from tests.core.config.mutating import changed, paths

_NAMES = st.sampled_from(["a", "b", "c", "type"])
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, 1.5, -2.0, 1e300])
    | st.sampled_from(["", "a", "ab", "abc", "1", "5m", "x\n", "\N{GRINNING FACE}"])
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3), max_leaves=6
)
_TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


def _optional(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


_LEAVES: st.SearchStrategy[dict[str, Any]] = (
    st.just({})
    | _optional(type=_TYPES | st.lists(_TYPES, min_size=1, max_size=3, unique=True), enum=st.lists(_VALUES, min_size=1))
    | _optional(const=_VALUES)
    | _optional(minimum=st.integers(-2, 2), maximum=st.integers(-2, 2), type=_TYPES)
    | _optional(exclusiveMinimum=st.integers(-2, 2), exclusiveMaximum=st.sampled_from([0.5, 2]))
    | _optional(minLength=st.integers(0, 3), maxLength=st.integers(0, 3), pattern=st.sampled_from(["^a", "b$", "^.$"]))
    | _optional(minItems=st.integers(0, 2), maxItems=st.integers(0, 2), uniqueItems=st.booleans())
    | _optional(minProperties=st.integers(0, 2), maxProperties=st.integers(0, 2))
    | st.just({"$ref": "#/$defs/one"})
)


def _deeper(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return (
        _optional(
            properties=st.dictionaries(_NAMES, inner, max_size=3),
            additionalProperties=st.booleans() | inner,
            propertyNames=inner,
            required=st.lists(_NAMES, unique=True, max_size=2),
        )
        | _optional(items=inner, prefixItems=st.lists(inner, min_size=1, max_size=2))
        | _optional(anyOf=st.lists(inner, min_size=1, max_size=3), allOf=st.lists(inner, min_size=1, max_size=2))
        | st.fixed_dictionaries({"if": inner, "then": inner})
    )


_SCHEMAS = st.recursive(_LEAVES, _deeper, max_leaves=5)


def _agrees(schema: dict[str, Any], value: Any, defs: dict[str, Any]) -> bool:
    validator = Draft202012Validator({**schema, "$defs": defs}, registry=Registry())
    wanted: bool = validator.is_valid(value)
    assert fits(schema, value, defs) is wanted
    return wanted


@settings(max_examples=200)
@given(_SCHEMAS, _LEAVES.filter(lambda schema: "$ref" not in schema), _VALUES)
def test_it_agrees_with_jsonschema_on_any_schema(schema: dict[str, Any], one: dict[str, Any], value: Any) -> None:
    _agrees(schema, value, {"one": one})


_RIGHT: dict[str, Any] = {
    "version": 1,
    "connectors": {"hub": {"type": "x", "any": [1, {"b": None}]}},
    "pipelines": {
        "daily": {
            "connector": "hub",
            "parallel": 2,
            "memory_bytes": "64 MiB",
            "segment_seconds": "1h 30m",
            "streams": {"contacts": None, "deals*": {"read": "full", "primary_key": "id", "new_columns": "freeze"}},
            "routes": {
                "lake": {
                    "router": {"type": "y"},
                    "mode": "append",
                    "streams": ["a", "b"],
                    "columns": {"include": ["a"], "exclude": "b", "rename": {"a": "c"}},
                    "batch": {"records": None, "bytes": 5, "seconds": 0.5},
                    "required": False,
                    "retry": {"attempts": 1},
                }
            },
        }
    },
    "jobs": {"j": {"pipeline": "daily", "triggers": [{"type": "cron", "more": 1}], "later": True}},
    "events": {"routes": {"alerts": {"router": {"type": "z"}}}},
    "store": {"url": "sqlite://"},
    "spool": {"budget_bytes": 5},
    "profiles": {"prod": {"anything": 1}},
}


def test_a_right_configuration_fits_the_envelope() -> None:
    schema, defs = core_schema()
    assert _agrees(schema, _RIGHT, defs)


@settings(max_examples=150)
@given(st.sampled_from(paths(_RIGHT)), _VALUES, st.none() | _NAMES)
def test_it_agrees_with_jsonschema_on_mutated_configurations(path: tuple[Any, ...], new: Any, key: str | None) -> None:
    """One place of a right configuration is replaced, or gets one more key."""
    schema, defs = core_schema()
    new = {**new, key: 1} if isinstance(new, dict) and key else new
    _agrees(schema, changed(_RIGHT, path, new), defs)


_OPTIONS = {
    NUMBERS: ["token", "url", "retries", "ratio", "window", "page_bytes", "poll_seconds", "reports", "folder", "color",
              "since", "tags", "pair", "names", "extra", "either", "small", "secrets"],
    SHELF: ["path", "format", "even", "key"],
}  # fmt: skip


@settings(max_examples=150)
@given(st.data())
def test_it_agrees_with_jsonschema_on_the_options_of_components(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([NUMBERS, SHELF]))
    schema, defs = Components().schema("connector" if name == NUMBERS else "router", name)
    options = data.draw(st.dictionaries(st.sampled_from(_OPTIONS[name]) | _NAMES, _VALUES, max_size=5))
    _agrees(schema, {"type": name, **options}, defs)


@pytest.mark.parametrize(
    ("schema", "value", "right"),
    [
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, True, False),
        ({"type": "number"}, False, False),
        ({"enum": [1]}, True, False),
        ({"enum": [1]}, 1.0, True),
        ({"const": [1, {"a": True}]}, [1, {"a": 1}], False),
        ({"uniqueItems": True}, [1, True], True),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], False),
        ({"minLength": 2}, 1, True),
        ({"required": ["a"]}, [], True),
    ],
)
def test_corners_of_the_standard(schema: dict[str, Any], value: Any, right: bool) -> None:
    assert _agrees(schema, value, {}) is right
