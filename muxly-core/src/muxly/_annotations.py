"""What the annotation of an option means: its type, the choices of a ``Literal``, and the words for a wrong one."""

from __future__ import annotations

import json
import sys
import types
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from muxly.errors import ConfigurationError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        for one in base.__dict__.get("__attrs_attrs__", ()):
            if one.name == name and not one.inherited:
                return base
    return model


@lru_cache(maxsize=2048)
def _left(model: type, name: str) -> tuple[Any, ...]:
    """The values that a ``Literal`` leaves to an option, None among them where it may be None; empty = any value.

    A type that cannot be resolved leaves any value, for in Python nobody else needs to know it.
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
        parts = [_choices(one) for one in arguments]
        return tuple(one for part in parts for one in part) if all(parts) else ()
    return _choices(kind.__value__) if hasattr(kind, "__value__") else ()


def chosen(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse what a ``Literal`` does not name; the validator of every option, for a type is known only later.

    A default is its author's own, so it may be something else.
    """
    if value is attribute.default:
        return
    model: type = type(instance)
    choices = _left(model, attribute.name)
    if choices and value not in choices:
        where = f"{model.__name__}.{attribute.name}"
        near = [one for one in choices if isinstance(one, str)]
        words = expected_instead([one_of(choices)], near, value, f", got {shown_value(value)}")
        raise ConfigurationError(f"{where}: {words}", path=(attribute.name,))


def expected_instead(words: Iterable[str], near: Iterable[str], value: object, got: str) -> str:
    """What to say of a value that is none of those expected, in Python as in a file."""
    told = f"expected {' or '.join(words)}"
    close = nearest(value, near) if isinstance(value, str) else None
    return f'{told}; did you mean "{close}"?' if close else told + got


def one_of(choices: Iterable[object]) -> str:
    """The choices in words."""
    shown = [one if isinstance(one, str) else quoted(one) for one in choices if one is not None]
    return f"one of {', '.join(shown)}" if len(shown) > 1 else "".join(shown)


def shown_value(value: object) -> str:
    """A value in a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return quoted(value)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    import difflib

    lowered = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def quoted(value: object) -> str:
    """A value as it may stand in a message: on one line, without control characters, not endless."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 3] + '..."'
