"""Annotations of options: their types, the choices of a ``Literal``, and messages for values that do not fit."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import attrs

from muxly.errors import ConfigurationError, PluginError
from muxly.suggest import suggest

_SHOWN_LETTERS = 60


def resolved(model: type, attribute: attrs.Attribute[Any]) -> Any:
    """The attribute's type; text is looked up where the class was written, without its TYPE_CHECKING imports.

    Raises:
        PluginError: A name in it is not known there.
    """
    if attribute.type is None:
        return Any
    home = _home(model, attribute.name)
    holder = types.SimpleNamespace(__annotations__={"it": attribute.type})
    names = vars(sys.modules[home.__module__]) if home.__module__ in sys.modules else {}
    try:
        return typing.get_type_hints(holder, names, dict(vars(home)), include_extras=True)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise PluginError(
            f"the type {attribute.type!r} of option {attribute.name!r} of {model.__module__}.{model.__qualname__} "
            f"cannot be resolved: {error}; import it at the top of the module, not under TYPE_CHECKING"
        ) from error


def _home(model: type, name: str) -> type:
    """The class of the MRO that defines the attribute itself."""
    for base in model.__mro__:
        for attribute in base.__dict__.get("__attrs_attrs__", ()):
            if attribute.name == name and not attribute.inherited:
                return base
    return model


@lru_cache(maxsize=2048)
def _choices_of(model: type, name: str) -> tuple[Any, ...]:
    """The values that a ``Literal`` allows, None among them where the option may be None; empty = any value.

    A type that cannot be resolved allows any value, for in Python nobody else needs to know it.
    """
    try:
        return _choices(resolved(model, getattr(attrs.fields(model), name)))
    except PluginError:
        return ()


def _choices(kind: Any) -> tuple[Any, ...]:
    if kind is types.NoneType:
        return (None,)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return arguments
    if origin is typing.Annotated:
        return _choices(arguments[0])
    if origin in {typing.Union, types.UnionType}:
        parts = [_choices(argument) for argument in arguments]
        return tuple(choice for part in parts for choice in part) if all(parts) else ()
    return _choices(kind.__value__) if hasattr(kind, "__value__") else ()


def chosen(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what a ``Literal`` does not name; the validator of every option, for a type is known only later.

    A default is its author's own, so it may be something else.
    """
    if value is attribute.default:
        return
    model: type = type(instance)
    choices = _choices_of(model, attribute.name)
    if choices and value not in choices:
        where = f"{model.__name__}.{attribute.name}"
        near = [choice for choice in choices if isinstance(choice, str)]
        expected = expected_instead([one_of(choices)], near, value, f", got {shown_value(value)}")
        raise ConfigurationError(f"{where}: {expected}", path=(attribute.name,))


def expected_instead(descriptions: Iterable[str], near: Iterable[str], value: object, got: str) -> str:
    """The message for a value that is none of those expected, in Python as in a file.

    Args:
        descriptions: What is expected, in words.
        near: Values that might have been meant.
        value: The wrong value.
        got: The end of the message where none of them is near.
    """
    expected = f"expected {' or '.join(descriptions)}"
    close = nearest(value, near) if isinstance(value, str) else None
    return f'{expected}; did you mean "{close}"?' if close else expected + got


def one_of(choices: Iterable[object]) -> str:
    """The choices in words."""
    shown = [choice if isinstance(choice, str) else quoted(choice) for choice in choices if choice is not None]
    return f"one of {', '.join(shown)}" if len(shown) > 1 else "".join(shown)


def shown_value(value: object) -> str:
    """A value in a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return quoted(value)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, whatever its case."""
    lowered = {name.lower(): name for name in known}
    close = suggest(word.lower(), lowered)
    return None if close is None else lowered[close]


def quoted(value: object) -> str:
    """A value as it may stand in a message: on one line, without control characters, not endless."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 3] + '..."'
