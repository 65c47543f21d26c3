"""JSON Schema (2020-12) of attrs classes: the one description that validation, editors and documentation share."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import pathlib
import re
import types
import typing
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import attrs

from muxly._annotations import resolved
from muxly.errors import PluginError
from muxly.options import HELP, Secret

_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
    "KB": 1000,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_TIME_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?([kKMGT]?B|[KMGT]iB)$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)? ?(ms|s|m|h|d|w) ?)+$"
_SIZE_PARTS = re.compile(r"([0-9.]+) ?([A-Za-z]*)")
_DURATION_PART = re.compile(r"([0-9.]+) ?([a-z]+)")


def size_bytes(text: str) -> int:
    """Bytes of a text that matches ``SIZE_PATTERN``."""
    match = _SIZE_PARTS.fullmatch(text)
    assert match is not None
    return round(float(match[1]) * _SIZE_UNITS[match[2]])


def duration_seconds(text: str) -> float:
    """Seconds of a text that matches ``DURATION_PATTERN``."""
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def duration_text(duration: timedelta) -> str:
    """The shortest text that ``duration_seconds`` reads as this duration."""
    seconds = duration.total_seconds()
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % _TIME_UNITS[unit] == 0:
            return f"{seconds / _TIME_UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


Schema = dict[str, Any]
EXPECTED = "x-muxly-expected"
"""Annotation: what a value must be, as text for messages, where the keywords would say it badly."""

REFERENCE: Schema = {"type": "string", "pattern": r"\$\{", EXPECTED: "a reference such as ${NAME}"}
_SIZE: Schema = {"type": "string", "pattern": SIZE_PATTERN, EXPECTED: 'a size such as "64 MiB"'}
_DURATION: Schema = {"type": "string", "pattern": DURATION_PATTERN, EXPECTED: 'a duration such as "15m"'}
_SCALARS: dict[Any, Schema] = {
    Any: {},
    Secret: {"type": "string", "writeOnly": True},
    bool: {"type": "boolean"},
    datetime.date: {"type": "string", "format": "date", EXPECTED: "a date such as 2026-01-31"},
    datetime.datetime: {"type": "string", "format": "date-time", EXPECTED: "a time such as 2026-01-31T08:00:00Z"},
    datetime.timedelta: {"anyOf": [{"type": "number", "minimum": 0}, _DURATION]},
    float: {"type": "number"},
    int: {"type": "integer"},
    object: {},
    pathlib.Path: {"type": "string", "format": "path", "minLength": 1},
    str: {"type": "string"},
    type(None): {"type": "null"},
}
_SIMPLE = ("boolean", "integer", "number", "string")
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class SchemaWriter:
    """Writes the schema of classes; classes become ``$defs`` that refer to each other.

    Args:
        references: Whether ``${NAME}`` may stand for any scalar: true for the schema of files as
            they are written, false for the one of values after references are resolved.
        documented: Whether to add descriptions and defaults, which are only for people.
        special: Schemas of single options, by class and name, instead of those of their types;
            None leaves the option out.
    """

    def __init__(
        self,
        *,
        references: bool = False,
        documented: bool = False,
        special: typing.Mapping[tuple[type, str], Schema | None] | None = None,
    ) -> None:
        self.defs: dict[str, Schema] = {"reference": REFERENCE} if references else {}
        self.references, self.documented, self.special = references, documented, special or {}
        self._names: dict[type, str] = {}

    def model(self, model: type) -> Schema:
        """A ``$ref`` to the class's schema, which is written if it is new."""
        if model not in self._names:
            name = model.__qualname__.replace("<locals>.", "")
            if name in self.defs:
                name = f"{model.__module__}.{name}"
            self._names[model] = name
            self.defs[name] = {}
            self.defs[name].update(self.mapping(model))
        return {"$ref": f"#/$defs/{self._names[model]}"}

    def mapping(self, model: type) -> Schema:
        """The schema of a class's options, as an object that takes no other key."""
        given = {field.name: field for field in fields(model)}
        written = {name: self.option(model, field) for name, field in given.items()}
        properties = {name: schema for name, schema in written.items() if schema is not None}
        required = [name for name in properties if given[name].required]
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": required} if required else schema

    def option(self, model: type, field: OptionField) -> Schema | None:
        """The schema of one option; None if it is left out."""
        key = (model, field.name)
        schema = self.special[key] if key in self.special else self.limited(model, field)
        if schema is None or not self.documented:
            return schema
        return {**schema, **self._documentation(model, field)}

    def limited(self, model: type, field: OptionField) -> Schema:
        """The schema of an option's type, with the constraints of its validators."""
        try:
            schema = self.kind(field.type)
        except TypeError as error:
            raise PluginError(
                f"option {field.name!r} of {model.__module__}.{model.__qualname__} has the type {field.type!r}, "
                f"which a configuration cannot give: {error}"
            ) from None
        for validator in validators(field.attribute.validator):
            schema = _with(schema, validator)
        schema = with_quantities(schema, field.name)
        return self._referable(schema) if self.references else schema

    def kind(self, kind: Any) -> Schema:  # noqa: C901, PLR0911
        """The schema of a type.

        Raises:
            TypeError: A file cannot hold such a value.
        """
        if kind in _SCALARS:
            return dict(_SCALARS[kind])
        if is_model(kind):
            return self.model(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": [member.value for member in kind]}
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is typing.Annotated:
            return self.kind(arguments[0])
        if origin in {typing.Union, types.UnionType}:
            return self._union([self.kind(argument) for argument in arguments])
        if (origin or kind) in _LISTS:
            return self._list(origin or kind, arguments)
        if (origin or kind) in _MAPPINGS:
            return self._open_mapping(arguments)
        inner = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
        if inner is None:
            raise TypeError("use text, numbers, true or false, lists, mappings, Secret, Path, or Options classes")
        return self.kind(inner)

    def _list(self, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        if origin is tuple and arguments and arguments[-1] is not ...:
            items = [self.item(argument) for argument in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        schema: Schema = {"type": "array"}
        if arguments:
            schema["items"] = self.item(arguments[0])
        if origin in {set, frozenset}:
            schema["uniqueItems"] = True
        return schema

    def _open_mapping(self, arguments: tuple[Any, ...]) -> Schema:
        if not arguments:
            return {"type": "object"}
        key = self.kind(arguments[0])
        if "enum" not in key and key != _SCALARS[str]:
            raise TypeError("keys must be text")
        schema: Schema = {"type": "object", "additionalProperties": self.item(arguments[1])}
        return {**schema, "propertyNames": key} if "enum" in key else schema

    def item(self, kind: Any) -> Schema:
        """The schema of a list's item or a mapping's value."""
        schema = self.kind(kind)
        return self._referable(schema) if self.references else schema

    def _union(self, members: list[Schema]) -> Schema:
        simple = [member for member in members if set(member) == {"type"} and isinstance(member["type"], str)]
        if len(simple) == len(members):
            return {"type": [member["type"] for member in members]}
        return {"anyOf": members}

    def _referable(self, schema: Schema) -> Schema:
        """Let ``${NAME}`` stand for a scalar; free text accepts it already."""
        branches = schema.get("anyOf", [schema])
        free_text = any("string" in kinds_of(branch) and not _limits_text(branch) for branch in branches)
        only_nested = all(
            "$ref" in branch or {"array", "object"}.issuperset(kinds_of(branch) or ["any"]) for branch in branches
        )
        if not schema or free_text or only_nested:
            return schema
        return {"anyOf": [*branches, {"$ref": "#/$defs/reference"}]}

    def _documentation(self, model: type, field: OptionField) -> Schema:
        text = field.help or argument_help(model).get(field.name)
        documentation: Schema = {"description": text} if text else {}
        default = plain_default(field)
        return {**documentation, "default": default} if default is not attrs.NOTHING else documentation


def kinds_of(schema: Schema) -> list[str]:
    """The types that a schema names; an empty list means any type."""
    kinds: str | list[str] = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def with_quantities(schema: Schema, name: str) -> Schema:
    """Let sizes and durations be written with a unit; the option's name shows that it is one."""
    text = _SIZE if is_size(name) else _DURATION if is_duration(name) else None
    if text is None:
        return schema
    branches = schema.get("anyOf", [schema])
    if not any({"integer", "number"}.intersection(kinds_of(branch)) for branch in branches):
        return schema
    return {"anyOf": [*branches, text]}


def is_size(name: str) -> bool:
    """Whether an option of this name is a number of bytes."""
    return name == "bytes" or name.endswith("_bytes")


def is_duration(name: str) -> bool:
    """Whether an option of this name is a number of seconds."""
    return name == "seconds" or name.endswith("_seconds")


def plain_default(field: OptionField) -> Any:
    """The option's default as a file would give it; NOTHING if it has none that can be shown."""
    default: Any = field.attribute.default
    if hasattr(default, "takes_self"):
        return attrs.NOTHING if default.takes_self else _plain(default.factory())
    return _plain(default)


def _plain(value: Any) -> Any:
    if value is attrs.NOTHING or value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.timedelta):
        return duration_text(value)
    if isinstance(value, pathlib.Path):
        return value.as_posix()
    if isinstance(value, dict) and not value:
        return {}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        return items if attrs.NOTHING not in items else attrs.NOTHING
    return attrs.NOTHING


def _limits_text(schema: Schema) -> bool:
    return bool(schema.keys() & {"pattern", "minLength", "maxLength", "enum"})


def _with(schema: Schema, validator: Any) -> Schema:
    """Add the constraint of a validator; in a choice, to each branch that it fits."""
    if "anyOf" in schema:
        return {"anyOf": [_with(branch, validator) for branch in schema["anyOf"]]}
    kinds = kinds_of(schema)
    keywords = _keywords(validator, kinds[0]) if kinds else {}
    if "enum" in keywords and "null" in kinds:
        keywords = {"enum": [*keywords["enum"], None]}
    return {**schema, **keywords}


_BOUNDS = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum"}
_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}
_ANCHORS = {"fullmatch": "^(?:{})$", "match": "^(?:{})", "search": "{}"}


def _keywords(validator: Any, kind: str) -> Schema:
    """The constraint of a validator of ``attrs.validators``, as far as a schema can express it.

    The build step runs the validator itself, so nothing is lost where a schema cannot.
    """
    name = type(validator).__name__
    if name == "_NumberValidator" and kind in {"integer", "number"}:
        return {_BOUNDS[validator.compare_op]: validator.bound}
    if name == "_MinLengthValidator" and kind in _LENGTHS:
        return {f"min{_LENGTHS[kind]}": validator.min_length}
    if name == "_MaxLengthValidator" and kind in _LENGTHS:
        return {f"max{_LENGTHS[kind]}": validator.max_length}
    if name == "_MatchesReValidator" and kind == "string" and validator.pattern.flags == re.UNICODE:
        return {"pattern": _ANCHORS[validator.match_func.__name__].format(validator.pattern.pattern)}
    if name == "_InValidator" and kind in _SIMPLE:
        options = [_plain(option) for option in validator.options]
        return {"enum": options} if attrs.NOTHING not in options else {}
    return {}


_SECTION = re.compile(r"^ *Args:\n(?P<body>(?:(?: +.*)?\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^(?P<indent> +)(?P<name>\w+): (?P<text>.*(?:\n(?P=indent) +.*)*)", re.MULTILINE)


class OptionField(NamedTuple):
    """One option of a class.

    Args:
        name: Its key in the configuration.
        type: Its type, with names resolved.
        attribute: Its attrs attribute.
    """

    name: str
    type: Any
    attribute: attrs.Attribute[Any]

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.attribute.default is attrs.NOTHING

    @property
    def help(self) -> str | None:
        """Its sentence for the reference."""
        text: str | None = self.attribute.metadata.get(HELP)
        return text


def is_model(kind: object) -> bool:
    """Whether the type is a class whose options are known: an attrs class."""
    return isinstance(kind, type) and attrs.has(kind)


@lru_cache(maxsize=512)
def fields(model: type) -> tuple[OptionField, ...]:
    """The options of an attrs class in the order of its definition.

    Raises:
        PluginError: The type of an option cannot be resolved.
    """
    known = attrs.fields(model)
    return tuple(
        OptionField(option.alias or option.name, resolved(model, option), option) for option in known if option.init
    )


def argument_help(model: type) -> dict[str, str]:
    """The sentences of a docstring's ``Args:``, for options that have no help of their own."""
    section = _SECTION.search((model.__doc__ or "") + "\n")
    if section is None:
        return {}
    matches = _ARGUMENT.finditer(section["body"])
    return {match["name"]: " ".join(match["text"].split()).replace("``", "`") for match in matches}


def validators(validator: object) -> list[Any]:
    """The single validators that one consists of; ``optional`` and ``and_`` are unwrapped."""
    if validator is None:
        return []
    parts = getattr(validator, "_validators", None)
    if parts is not None:
        return [leaf for part in parts for leaf in validators(part)]
    if type(validator).__name__ == "_OptionalValidator":
        return validators(getattr(validator, "validator", None))
    return [validator]
