"""A quick yes or no: does a value fit a schema that ``SchemaWriter`` wrote?

It is exactly as strict as jsonschema, which a property test proves, and costs nothing to import.
jsonschema is asked only when the answer is no, to find every reason.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly.config._schema import Schema

    Defs = Mapping[str, Schema]


def fits(schema: Schema, value: Any, defs: Defs) -> bool:
    """Whether the value fits.

    Args:
        schema: What it must fit.
        value: Dicts, lists and scalars.
        defs: Where ``$ref`` finds ``#/$defs/NAME``.
    """
    for keyword, wanted in schema.items():
        if keyword in _PLAIN:
            heeds, test = _PLAIN[keyword]
            if is_type(value, heeds) and not test(value, wanted):
                return False
        elif keyword in _NESTED and not _NESTED[keyword](value, wanted, schema, defs):
            return False
    return True


_PYTHON_TYPES: dict[str, Any] = {
    "any": object,
    "array": list,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def is_type(value: Any, name: str) -> bool:
    """Whether the value is of a type of JSON Schema; ``1.0`` is an integer, ``true`` is not."""
    if isinstance(value, bool):
        return name in {"boolean", "any"}
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return name != "boolean" and isinstance(value, _PYTHON_TYPES[name])


def equal(first: Any, second: Any) -> bool:
    """Equality of JSON Schema: ``1`` is ``1.0``, and ``true`` is not ``1``."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(item, second[key]) for key, item in first.items())
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)


def _type(value: Any, wanted: str | list[str]) -> bool:
    return any(is_type(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _enum(value: Any, wanted: list[Any]) -> bool:
    return any(equal(one, value) for one in wanted)


def _unique(value: list[Any], wanted: bool) -> bool:
    return not wanted or not any(
        equal(first, second) for number, first in enumerate(value) for second in value[:number]
    )


def _shortest(value: Any, wanted: int) -> bool:
    return len(value) >= wanted


def _longest(value: Any, wanted: int) -> bool:
    return len(value) <= wanted


def _required(value: dict[str, Any], wanted: list[str]) -> bool:
    return all(key in value for key in wanted)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _pattern(value: str, wanted: str) -> bool:
    return _compiled(wanted).search(value) is not None


_PLAIN: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "const": ("any", equal),
    "enum": ("any", _enum),
    "exclusiveMaximum": ("number", operator.lt),
    "exclusiveMinimum": ("number", operator.gt),
    "maxItems": ("array", _longest),
    "maxLength": ("string", _longest),
    "maxProperties": ("object", _longest),
    "maximum": ("number", operator.le),
    "minItems": ("array", _shortest),
    "minLength": ("string", _shortest),
    "minProperties": ("object", _shortest),
    "minimum": ("number", operator.ge),
    "pattern": ("string", _pattern),
    "required": ("object", _required),
    "type": ("any", _type),
    "uniqueItems": ("array", _unique),
}
"""Keywords that look at the value itself: the type that heeds them, and the test."""


def _ref(value: Any, wanted: str, schema: Schema, defs: Defs) -> bool:
    return fits(defs[wanted.removeprefix("#/$defs/")], value, defs)


def _any_of(value: Any, wanted: list[Schema], schema: Schema, defs: Defs) -> bool:
    return any(fits(one, value, defs) for one in wanted)


def _all_of(value: Any, wanted: list[Schema], schema: Schema, defs: Defs) -> bool:
    return all(fits(one, value, defs) for one in wanted)


def _if(value: Any, wanted: Schema, schema: Schema, defs: Defs) -> bool:
    return not fits(wanted, value, defs) or fits(schema.get("then", {}), value, defs)


def _properties(value: Any, wanted: Defs, schema: Schema, defs: Defs) -> bool:
    if not isinstance(value, dict):
        return True
    return all(fits(wanted[key], item, defs) for key, item in value.items() if key in wanted)


def _additional(value: Any, wanted: Schema | bool, schema: Schema, defs: Defs) -> bool:
    if not isinstance(value, dict) or wanted is True:
        return True
    known = schema.get("properties", {})
    extra = [item for key, item in value.items() if key not in known]
    return not extra if wanted is False else all(fits(wanted, item, defs) for item in extra)


def _property_names(value: Any, wanted: Schema, schema: Schema, defs: Defs) -> bool:
    return not isinstance(value, dict) or all(fits(wanted, key, defs) for key in value)


def _items(value: Any, wanted: Schema, schema: Schema, defs: Defs) -> bool:
    first = len(schema.get("prefixItems", ()))
    return not isinstance(value, list) or all(fits(wanted, item, defs) for item in value[first:])


def _prefix_items(value: Any, wanted: list[Schema], schema: Schema, defs: Defs) -> bool:
    return not isinstance(value, list) or all(map(lambda one, item: fits(one, item, defs), wanted, value))


_NESTED: dict[str, Callable[[Any, Any, Schema, Defs], bool]] = {
    "$ref": _ref,
    "additionalProperties": _additional,
    "allOf": _all_of,
    "anyOf": _any_of,
    "if": _if,
    "items": _items,
    "prefixItems": _prefix_items,
    "properties": _properties,
    "propertyNames": _property_names,
}
"""Keywords that look at parts of the value with further schemas."""
