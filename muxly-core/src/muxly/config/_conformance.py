"""Checks of values against JSON Schema: a quick yes or no, and a message for each reason of a no.

``fits`` is a second validator beside jsonschema for speed alone. With jsonschema in its place and validators that
are made once, `muxly run` with nothing new takes 10 % more CPU (paired, 40 turns), and `muxly config validate` 20 %.
It is exactly as strict as jsonschema, which a property test proves; jsonschema is imported only when the answer is
no, to find every reason.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from muxly._annotations import expected_instead, nearest, one_of, quoted, shown_value
from muxly.config._document import Document, KeyPath, Problem
from muxly.config._schema import EXPECTED, Schema, kinds_of

Defs = Mapping[str, Schema]


def fits(schema: Schema, value: Any, defs: Defs) -> bool:
    """Whether the value fits.

    Args:
        schema: The schema that it must fit.
        value: Dicts, lists and scalars.
        defs: Where ``$ref`` finds ``#/$defs/NAME``.
    """
    for keyword, wanted in schema.items():
        if keyword in _PLAIN:
            kind, test = _PLAIN[keyword]
            if is_type(value, kind) and not test(value, wanted):
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
    return any(equal(choice, value) for choice in wanted)


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
"""Keywords about the value itself: the type that they apply to, and the test."""


def _ref(value: Any, wanted: str, schema: Schema, defs: Defs) -> bool:
    return fits(defs[wanted.removeprefix("#/$defs/")], value, defs)


def _any_of(value: Any, wanted: list[Schema], schema: Schema, defs: Defs) -> bool:
    return any(fits(branch, value, defs) for branch in wanted)


def _all_of(value: Any, wanted: list[Schema], schema: Schema, defs: Defs) -> bool:
    return all(fits(branch, value, defs) for branch in wanted)


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
    return not isinstance(value, list) or all(map(lambda part, item: fits(part, item, defs), wanted, value))


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
"""Keywords that apply further schemas to the value or to parts of it."""


_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
_SWITCHES = {"yes", "no", "on", "off", "y", "n", "true", "false"}
_BOUNDS = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be greater than",
    "exclusiveMaximum": "must be less than",
}
_LENGTHS = {
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} entries",
    "maxProperties": "must have at most {} entries",
}
_SHOWN_KEYS = 15


def problems_of(
    schema: Schema,
    value: Any,
    defs: Mapping[str, Schema],
    document: Document,
    *,
    under: KeyPath = (),
    hidden: Callable[[KeyPath], bool] = lambda path: False,
) -> list[Problem]:
    """Everything that is wrong with a value.

    Args:
        schema: The schema that it must fit.
        value: The value.
        defs: Where ``$ref`` finds ``#/$defs/NAME``.
        document: Where values and keys are written.
        under: The value's path in the document.
        hidden: Whether the value of a path must not be got, whatever the schema says.
    """
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry: a $ref to a URL or a file is never fetched.
    validator = Draft202012Validator({**schema, "$defs": dict(defs)}, registry=Registry())
    writer = _ProblemWriter(document, under, hidden, defs)
    return [problem for error in validator.iter_errors(value) for problem in writer.problems(error)]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message about a key that nothing reads."""
    known = sorted(known)
    close = nearest(key, known)
    if close:
        return f'unknown key; did you mean "{close}"?'
    got = ", ".join(known[:_SHOWN_KEYS]) + (", ..." if len(known) > _SHOWN_KEYS else "")
    return f"unknown key; known: {got}" if known else "unknown key; no key is known here"


def expected(schema: Schema, defs: Mapping[str, Schema]) -> list[str]:
    """What the schema accepts, as text for messages."""
    if EXPECTED in schema:
        return [schema[EXPECTED]]
    if "$ref" in schema:
        return expected(defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    if "anyOf" in schema:
        return list(dict.fromkeys(text for branch in schema["anyOf"] for text in expected(branch, defs)))
    if "const" in schema:
        return [quoted(schema["const"])]
    if "enum" in schema:
        return [one_of(schema["enum"])]
    return [_TYPES[kind] for kind in kinds_of(schema) if kind != "null"]


class _ProblemWriter:
    """Turns errors (``jsonschema.ValidationError``) into problems with locations; never shows a secret."""

    def __init__(
        self, document: Document, under: KeyPath, hidden: Callable[[KeyPath], bool], defs: Mapping[str, Schema]
    ) -> None:
        self.document, self.under, self.hidden, self.defs = document, under, hidden, defs

    def problems(self, error: Any) -> Iterator[Problem]:
        """The problems that one error of jsonschema stands for."""
        path = self.under + tuple(error.absolute_path)
        keyword = str(error.validator)
        if keyword == "additionalProperties":
            yield from self.unknown_keys(error, path)
        elif keyword == "required":
            yield self.missing_key(error, path)
        elif "propertyNames" in list(error.relative_schema_path)[-2:]:
            yield self.bad_key(error, path)
        elif keyword == "anyOf":
            yield from self.no_branch(error, path)
        else:
            yield Problem(self.document.location(path), path, self.sentence(error, keyword, path))

    def unknown_keys(self, error: Any, path: KeyPath) -> Iterator[Problem]:
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key not in known and self.meant(key, error.instance, error.schema) is None:
                yield Problem(self.document.key_location((*path, key)), (*path, key), unknown_key(key, known))

    @staticmethod
    def meant(key: str, instance: Mapping[str, Any], schema: Schema) -> str | None:
        """The required key that an unknown one is a misspelling of."""
        missing = [name for name in schema.get("required", ()) if name not in instance]
        return nearest(key, missing)

    def missing_key(self, error: Any, path: KeyPath) -> Problem:
        missing = [name for name in error.validator_value if name not in error.instance]
        name = next(key for key in missing if error.message.startswith(repr(key)))
        unknown = [key for key in error.instance if key not in error.schema.get("properties", {})]
        misspelt = [key for key in unknown if self.meant(key, error.instance, error.schema) == name]
        message = f'missing required key "{name}"'
        if misspelt:
            message += f"; the key {quoted(misspelt[0])} looks like a misspelling"
            return Problem(self.document.key_location((*path, misspelt[0])), path, message)
        return Problem(self.document.key_location(path), path, message + self.about(error.schema, name))

    @staticmethod
    def about(schema: Schema, name: str) -> str:
        text = schema.get("properties", {}).get(name, {}).get("description")
        return f": {text}" if text else ""

    def bad_key(self, error: Any, path: KeyPath) -> Problem:
        key = error.instance
        alternatives = " or ".join(expected(error.schema, self.defs))
        path = (*path, key)
        return Problem(self.document.key_location(path), path, f"this name cannot be used; expected {alternatives}")

    def no_branch(self, error: Any, path: KeyPath) -> Iterator[Problem]:
        """Report the one branch that was meant, if the value's type shows which."""
        branches: dict[Any, list[Any]] = {}
        for reason in error.context:
            branches.setdefault(reason.relative_schema_path[0], []).append(reason)
        meant = [errors for errors in branches.values() if not any(map(_is_type_error, errors))]
        if len(meant) == 1 and not all(map(_is_value_error, meant[0])):
            for reason in meant[0]:
                yield from self.problems(reason)
        else:
            yield Problem(self.document.location(path), path, self.sentence(error, "type", path))

    def sentence(self, error: Any, keyword: str, path: KeyPath) -> str:
        schema, value = error.schema, error.instance
        got = "" if self.is_secret(schema, path) else f", got {shown_value(value)}"
        if keyword in _BOUNDS:
            return f"{_BOUNDS[keyword]} {quoted(error.validator_value)}{got}"
        if keyword in _LENGTHS:
            return _length_message(keyword, error.validator_value)
        if keyword == "uniqueItems":
            return "an item appears twice; remove one of the two"
        alternatives = expected(schema, self.defs)
        if keyword == "pattern" and EXPECTED not in schema:
            alternatives = [f"text that matches {error.validator_value}"]
        near = _choices(schema) if got else ()
        return expected_instead(alternatives, near, value, got + (got and _hint(schema, value)))

    def is_secret(self, schema: Schema, path: KeyPath) -> bool:
        branches = schema.get("anyOf", [schema])
        return any(branch.get("writeOnly") for branch in branches) or self.hidden(path)


def _is_type_error(error: Any) -> bool:
    return error.validator == "type" and not error.relative_path


def _is_value_error(error: Any) -> bool:
    return error.validator in {"pattern", "enum", "const"} and not error.relative_path


def _choices(schema: Schema) -> list[str]:
    branches = schema.get("anyOf", [schema])
    return [word for branch in branches for word in branch.get("enum", ()) if isinstance(word, str)]


def _length_message(keyword: str, wanted: int) -> str:
    if keyword.startswith("min") and wanted == 1:
        return "must not be empty"
    message = _LENGTHS[keyword].format(wanted)
    return message if wanted != 1 else message.removesuffix("s").replace("entrie", "entry")


def _hint(schema: Schema, value: Any) -> str:
    """The next step, where the value shows what was meant."""
    branches = schema.get("anyOf", [schema])
    kinds = {kind for branch in branches for kind in kinds_of(branch)}
    if isinstance(value, str):
        if "boolean" in kinds and value.lower() in _SWITCHES:
            return "; write true or false (YAML 1.2)"
        if kinds & {"integer", "number"} and value.replace(".", "", 1).lstrip("-").isdigit():
            return "; remove the quotes"
        return f"; write it as a list: [{value}]" if "array" in kinds and value.isalnum() else ""
    return "; put it in quotes" if "string" in kinds and isinstance(value, bool | int | float) else ""
