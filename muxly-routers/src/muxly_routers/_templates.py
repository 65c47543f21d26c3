"""Texts and JSON documents with placeholders for the values of a record; no code, no attributes, no items.

A placeholder is ``{field}``. Inside the braces stand, in this order: the field's name as it is, also with
dots and spaces, or ``"quoted"`` where it holds one of ``:|{}``; a format after a colon,
``{amount:,.2f}`` or ``{day:%d %b}``; and after a bar the text for null, ``{name|nobody}``. Where no
field is called ``a.b``, ``{a.b}`` is the field ``b`` of the record in ``a``. ``{{`` and ``}}`` are
braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

import muxly
from muxly.suggest import suggest
from muxly_routers import _values
from muxly_routers._values import Number, check_spec, number_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Escape", "Placeholder", "Template", "UnknownFieldError", "check_fields", "split_text"]

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
        near = suggest(field, known)
        hint = f'; did you mean "{near}"?' if near else f"; there are {', '.join(sorted(known)[:20]) or 'none'}"
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
        return cls(node, frozenset(placeholder.name for placeholder in _placeholders(node)))

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
    parts: tuple[str | Placeholder, ...]


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
        return [_parsed(child, f"{where}[{number}]", depth + 1) for number, child in enumerate(source)]
    if isinstance(source, dict):
        return {key: _parsed(child, f"{where}.{key}".lstrip("."), depth + 1) for key, child in source.items()}
    return source


def _placeholders(node: Any) -> Iterator[Placeholder]:
    if isinstance(node, _TextNode):
        yield from (part for part in node.parts if isinstance(part, Placeholder))
    elif isinstance(node, list | dict):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _placeholders(child)


def _rendered(node: Any, record: Mapping[str, Any], writing: _Rendering) -> Any:
    if isinstance(node, _TextNode):
        return _filled(node.parts, record, writing)
    if isinstance(node, list):
        return [_rendered(child, record, writing) for child in node]
    if isinstance(node, dict):
        return {key: _rendered(child, record, writing) for key, child in node.items()}
    return node


def _filled(parts: tuple[str | Placeholder, ...], record: Mapping[str, Any], writing: _Rendering) -> Any:
    if len(parts) == 1 and isinstance(placeholder := parts[0], Placeholder) and placeholder.alone:
        value = _value(placeholder, record)
        if value is None:
            return placeholder.fallback
        return _values.as_json(value, text=lambda text: writing.escape(text, ""), number=writing.number)
    written = ""
    for part in parts:
        written += part if isinstance(part, str) else _as_text(part, record, writing, written)
    return written


def _as_text(placeholder: Placeholder, record: Mapping[str, Any], writing: _Rendering, before: str) -> str:
    value = _value(placeholder, record)
    if value is None:
        return placeholder.fallback or ""
    return writing.escape(_formatted(placeholder, value) if placeholder.spec else _values.as_text(value), before)


def _formatted(placeholder: Placeholder, value: Any) -> str:
    try:
        return _values.formatted(value, placeholder.spec)
    except ValueError as error:
        raise ValueError(f'the format {placeholder.spec!r} of "{placeholder.name}" {error}') from None


def _value(placeholder: Placeholder, record: Mapping[str, Any]) -> Any:
    found, value = _looked_up(placeholder.name, record)
    if not found:
        raise UnknownFieldError(placeholder.name, tuple(str(name) for name in record))
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


_TOKEN = re.compile(r'\{\{|\}\}|\{(?P<inside>"(?:[^"]|""){1,1000}"[^{}]*|[^{}]*)\}|[{}]')
_INSIDE = re.compile(r'(?P<name>"(?:[^"]|"")+"|[^:|]+)(?P<spec>:[^|]*)?(?P<fallback>\|.*)?', re.DOTALL)


@frozen
class Placeholder:
    """One ``{...}``.

    Args:
        name: The field's.
        spec: Its format; empty = none.
        fallback: What stands for null; None = nothing.
    """

    name: str
    spec: str = ""
    fallback: str | None = None

    @property
    def alone(self) -> bool:
        """Whether it is the value itself where it is the whole text."""
        return not self.spec


def split_text(source: str, where: str) -> tuple[str | Placeholder, ...]:
    """Texts and places, in their order.

    Args:
        source: The text.
        where: Where it stands in the template, for errors; empty for a template that is a text.

    Raises:
        ValueError: It is no text of a template; the message says where and why.
    """
    parts: list[str | Placeholder] = []
    end = 0
    for token in _TOKEN.finditer(source):
        parts.append(source[end : token.start()])
        end = token.end()
        try:
            parts.append(_parsed_token(token))
        except ValueError as error:
            place = f"{where}: " if where else ""
            raise ValueError(f"{place}character {token.start() + 1}: {error}") from None
    parts.append(source[end:])
    return tuple(part for part in parts if part != "")


def _parsed_token(token: re.Match[str]) -> str | Placeholder:
    text = token[0]
    if text in ("{{", "}}"):
        return text[0]
    if text in ("{", "}"):
        raise ValueError(f"a single {text}; write {text}{text} for a brace, or {{field}} for a value")
    return _placeholder(token["inside"])


def _placeholder(inside: str) -> Placeholder:
    match = _INSIDE.fullmatch(inside)
    if match is None or not (name := _name(match["name"])):
        raise ValueError(f"{{{inside}}} names no field; write {{field}}, or {{{{ and }}}} for braces")
    spec = (match["spec"] or "")[1:]
    check_spec(spec)
    fallback = match["fallback"]
    return Placeholder(name, spec, None if fallback is None else fallback[1:])


def _name(written: str) -> str:
    return written[1:-1].replace('""', '"') if written[0] == '"' and written[-1] == '"' else written


def check_fields(template: Template, schema: pa.Schema, stream: str) -> None:
    """Look before the first record is sent.

    Raises:
        StreamError: The records lack a field.
    """
    try:
        template.render({column.name: _nothing(column.type) for column in schema})
    except ValueError as error:
        raise muxly.StreamError(f"stream {stream!r}: the template does not fit: {error}") from error


def _nothing(kind: pa.DataType) -> Any:
    """A value with all fields of a type, all of them null."""
    import pyarrow as pa  # templates are parsed where Arrow is not loaded

    return {inner.name: _nothing(inner.type) for inner in kind} if pa.types.is_struct(kind) else None
