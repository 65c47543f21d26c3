"""The options of a class: their names, resolved types, help and validators."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import attrs

from muxly._annotations import resolved
from muxly.options import HELP

_SECTION = re.compile(r"^ *Args:\n(?P<body>(?:(?: +.*)?\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^(?P<indent> +)(?P<name>\w+): (?P<text>.*(?:\n(?P=indent) +.*)*)", re.MULTILINE)


class Field(NamedTuple):
    """One option of a class.

    Args:
        name: Its key in the configuration.
        type: Its type, with names resolved.
        attribute: What attrs knows of it.
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
def fields(model: type) -> tuple[Field, ...]:
    """The options of an attrs class in the order of its definition.

    Raises:
        PluginError: The type of an option cannot be resolved.
    """
    known = attrs.fields(model)
    return tuple(Field(one.alias or one.name, resolved(model, one), one) for one in known if one.init)


def argument_help(model: type) -> dict[str, str]:
    """The sentences of a docstring's ``Args:``, for options that carry no help themselves."""
    section = _SECTION.search((model.__doc__ or "") + "\n")
    if section is None:
        return {}
    found = _ARGUMENT.finditer(section["body"])
    return {one["name"]: " ".join(one["text"].split()).replace("``", "`") for one in found}


def validators(validator: object) -> list[Any]:
    """The single validators that one is made of; ``optional`` and ``and_`` are opened."""
    if validator is None:
        return []
    parts = getattr(validator, "_validators", None)
    if parts is not None:
        return [leaf for part in parts for leaf in validators(part)]
    if type(validator).__name__ == "_OptionalValidator":
        return validators(getattr(validator, "validator", None))
    return [validator]
