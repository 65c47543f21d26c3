"""Templates: texts, or lists and dicts of texts, that are filled with the values of a record."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from muxly_routers._templates import values
from muxly_routers._templates.places import Placeholder, split_text
from muxly_routers._templates.values import Number, number_json

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Escape", "Template", "UnknownFieldError"]

Escape = Callable[[str, str], str]
"""What becomes of a text that a value brings in; it is also given what stands before it in the same text."""

_DEEPEST = 32


class UnknownFieldError(ValueError):
    """The record has no field of that name.

    Args:
        field: The name, as the template has it.
        known: The names that the record has.
    """

    def __init__(self, field: str, known: tuple[str, ...]) -> None:
        self.field, self.known = field, known
        near = difflib.get_close_matches(field, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(sorted(known)[:20]) or 'none'}"
        super().__init__(f'the records have no field "{field}"{hint}')

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.known)


@frozen
class Template:
    """A text, or lists and dicts of texts, with places for the values of a record.

    Args:
        fields: The names of all fields it needs, as they are written in it.
    """

    _node: Any = field(repr=False)
    fields: frozenset[str]

    @classmethod
    def parse(cls, source: Any) -> Template:
        """Read a template.

        Args:
            source: A text, or a JSON value with texts in it; keys are kept as they are.

        Raises:
            ValueError: It is no template; the message says where and why.
        """
        node = _parsed(source, "")
        return cls(node, frozenset(place.name for place in _placeholders(node)))

    def render(
        self,
        record: Mapping[str, Any],
        *,
        escape: Escape | None = None,
        number: Callable[[Number], Any] = number_json,
    ) -> Any:
        """The template with the record's values in their places.

        A text that is nothing but one place without a format becomes the value itself, as JSON has
        it: a number stays one, a time is ISO 8601, bytes are base64. Every other text stays a text.

        Args:
            record: Python values, as ``Delivery.records`` gives them.
            escape: Applied to each text that a value brings in, and to nothing else.
            number: What becomes of a decimal, of NaN and of infinity that stand alone; default text and null.

        Raises:
            UnknownFieldError: The record lacks a field.
            ValueError: A format does not fit the value.
        """
        return _rendered(self._node, record, _Rendering(escape or _as_it_is, number))


@frozen
class _TextNode:
    split_text: tuple[str | Placeholder, ...]


@frozen
class _Rendering:
    escape: Escape
    number: Callable[[Number], Any]


def _as_it_is(text: str, before: str) -> str:
    return text


def _parsed(source: Any, where: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{where}: nested more than {_DEEPEST} deep")
    if isinstance(source, str):
        return _TextNode(split_text(source, where))
    if isinstance(source, list | tuple):
        return [_parsed(one, f"{where}[{number}]", depth + 1) for number, one in enumerate(source)]
    if isinstance(source, dict):
        return {key: _parsed(one, f"{where}.{key}".lstrip("."), depth + 1) for key, one in source.items()}
    return source


def _placeholders(node: Any) -> Iterator[Placeholder]:
    if isinstance(node, _TextNode):
        yield from (piece for piece in node.split_text if isinstance(piece, Placeholder))
    elif isinstance(node, list | dict):
        for one in node.values() if isinstance(node, dict) else node:
            yield from _placeholders(one)


def _rendered(node: Any, record: Mapping[str, Any], writing: _Rendering) -> Any:
    if isinstance(node, _TextNode):
        return _filled(node.split_text, record, writing)
    if isinstance(node, list):
        return [_rendered(one, record, writing) for one in node]
    if isinstance(node, dict):
        return {key: _rendered(one, record, writing) for key, one in node.items()}
    return node


def _filled(found: tuple[str | Placeholder, ...], record: Mapping[str, Any], writing: _Rendering) -> Any:
    if len(found) == 1 and isinstance(place := found[0], Placeholder) and place.alone:
        value = _value(place, record)
        if value is None:
            return place.fallback
        return values.as_json(value, text=lambda text: writing.escape(text, ""), number=writing.number)
    written = ""
    for piece in found:
        written += piece if isinstance(piece, str) else _as_text(piece, record, writing, written)
    return written


def _as_text(place: Placeholder, record: Mapping[str, Any], writing: _Rendering, before: str) -> str:
    value = _value(place, record)
    if value is None:
        return place.fallback or ""
    return writing.escape(_formatted(place, value) if place.spec else values.as_text(value), before)


def _formatted(place: Placeholder, value: Any) -> str:
    try:
        return values.formatted(value, place.spec)
    except ValueError as error:
        raise ValueError(f'the format {place.spec!r} of "{place.name}" {error}') from None


def _value(place: Placeholder, record: Mapping[str, Any]) -> Any:
    found, value = _looked_up(place.name, record)
    if not found:
        raise UnknownFieldError(place.name, tuple(str(name) for name in record))
    return value


def _looked_up(name: str, record: Any) -> tuple[bool, Any]:
    """Whether there is such a field, and its value; a null on the way to a nested field is its value."""
    if not isinstance(record, Mapping):
        return record is None, None
    if name in record:
        return True, record[name]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:length])
        if head in record:
            found, value = _looked_up(".".join(parts[length:]), record[head])
            if found:
                return True, value
    return False, None
