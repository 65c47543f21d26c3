"""Texts and JSON documents with places for the values of a record; no code, no attributes, no items.

A place is ``{field}``. Inside the braces stand, in this order: the field's name as it is, also with
dots and spaces, or ``"quoted"`` where it holds one of ``:|{}``; a format after a colon,
``{amount:,.2f}`` or ``{day:%d %b}``; and after a bar the text for null, ``{name|nobody}``. Where no
field is called ``a.b``, ``{a.b}`` is the field ``b`` of the record in ``a``. ``{{`` and ``}}`` are
braces.
"""

from __future__ import annotations

import base64
import difflib
import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Template", "UnknownFieldError"]

_TOKEN = re.compile(r'\{\{|\}\}|\{(?P<inside>"(?:[^"]|""){1,1000}"[^{}]*|[^{}]*)\}|[{}]')
_INSIDE = re.compile(r'(?P<name>"(?:[^"]|"")+"|[^:|]+)(?P<spec>:[^|]*)?(?P<fallback>\|.*)?', re.DOTALL)
# Python's own format specifications, without what depends on the locale of the machine.
_NUMBER = re.compile(
    r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>\d*)[,_]?(?:\.(?P<precision>\d+))?[bdeEfFgGosxX%]?", re.DOTALL
)
# The C library also knows widths such as %1000000000Y, which nothing would stop.
_DATE = re.compile(r"(?:[^%]|%-?[aAbBcdfGHIjmMpSuUVwWxXyYzZ%])+")
_WIDEST, _MOST_PRECISE, _LONGEST_SPEC, _DEEPEST = 200, 50, 100, 32


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
        return cls(node, frozenset(place.name for place in _places(node)))

    def render(
        self, record: Mapping[str, Any], *, escape: Callable[[str], str] = str, decimal: Callable[[Decimal], Any] = str
    ) -> Any:
        """The template with the record's values in their places.

        A text that is nothing but one place without a format becomes the value itself, as JSON has
        it: a number stays one, a time is ISO 8601, bytes are base64. Every other text stays a text.

        Args:
            record: Python values, as ``Delivery.records`` gives them.
            escape: Applied to each text that a value brings in, and to nothing else.
            decimal: What becomes of a decimal that stands alone.

        Raises:
            UnknownFieldError: The record lacks a field.
            ValueError: A format does not fit the value.
        """
        return _rendered(self._node, record, _Writing(escape, decimal))


@frozen
class _Place:
    """One ``{...}``."""

    name: str
    spec: str = ""
    fallback: str | None = None

    @property
    def alone(self) -> bool:
        """Whether it is the value itself where it is the whole text."""
        return not self.spec


@frozen
class _Text:
    pieces: tuple[str | _Place, ...]


@frozen
class _Writing:
    escape: Callable[[str], str]
    decimal: Callable[[Decimal], Any]


def _parsed(source: Any, where: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{where}: nested more than {_DEEPEST} deep")
    if isinstance(source, str):
        return _text(source, where)
    if isinstance(source, list | tuple):
        return [_parsed(one, f"{where}[{number}]", depth + 1) for number, one in enumerate(source)]
    if isinstance(source, dict):
        return {key: _parsed(one, f"{where}.{key}".lstrip("."), depth + 1) for key, one in source.items()}
    return source


def _text(source: str, where: str) -> _Text:
    pieces: list[str | _Place] = []
    end = 0
    for found in _TOKEN.finditer(source):
        pieces.append(source[end : found.start()])
        end = found.end()
        try:
            pieces.append(_token(found))
        except ValueError as error:
            place = f"{where}: " if where else ""
            raise ValueError(f"{place}character {found.start() + 1}: {error}") from None
    pieces.append(source[end:])
    return _Text(tuple(piece for piece in pieces if piece != ""))


def _token(found: re.Match[str]) -> str | _Place:
    text = found[0]
    if text in ("{{", "}}"):
        return text[0]
    if text in ("{", "}"):
        raise ValueError(f"a single {text}; write {text}{text} for a brace, or {{field}} for a value")
    return _place(found["inside"])


def _place(inside: str) -> _Place:
    found = _INSIDE.fullmatch(inside)
    if found is None or not (name := _name(found["name"])):
        raise ValueError(f"{{{inside}}} names no field; write {{field}}, or {{{{ and }}}} for braces")
    spec = (found["spec"] or "")[1:]
    _check_spec(spec)
    fallback = found["fallback"]
    return _Place(name, spec, None if fallback is None else fallback[1:])


def _name(written: str) -> str:
    return written[1:-1].replace('""', '"') if written[0] == '"' and written[-1] == '"' else written


def _check_spec(spec: str) -> None:
    if len(spec) > _LONGEST_SPEC:
        raise ValueError(f"a format has at most {_LONGEST_SPEC} characters")
    found = _NUMBER.fullmatch(spec)
    if found is None and not _is_date(spec):
        raise ValueError(f"{spec!r} is no format; write one such as ,.2f for numbers or %Y-%m-%d for dates")
    if found is not None and (int(found["width"] or 0) > _WIDEST or int(found["precision"] or 0) > _MOST_PRECISE):
        raise ValueError(f"{spec!r} is wider than {_WIDEST} or more precise than {_MOST_PRECISE} digits")


def _is_date(spec: str) -> bool:
    return "%" in spec and _NUMBER.fullmatch(spec) is None and _DATE.fullmatch(spec) is not None


def _places(node: Any) -> Iterator[_Place]:
    if isinstance(node, _Text):
        yield from (piece for piece in node.pieces if isinstance(piece, _Place))
    elif isinstance(node, list | dict):
        for one in node.values() if isinstance(node, dict) else node:
            yield from _places(one)


def _rendered(node: Any, record: Mapping[str, Any], writing: _Writing) -> Any:
    if isinstance(node, _Text):
        return _filled(node.pieces, record, writing)
    if isinstance(node, list):
        return [_rendered(one, record, writing) for one in node]
    if isinstance(node, dict):
        return {key: _rendered(one, record, writing) for key, one in node.items()}
    return node


def _filled(pieces: tuple[str | _Place, ...], record: Mapping[str, Any], writing: _Writing) -> Any:
    if len(pieces) == 1 and isinstance(place := pieces[0], _Place) and place.alone:
        value = _value(place, record)
        return place.fallback if value is None else _json(value, writing)
    return "".join(piece if isinstance(piece, str) else _as_text(piece, record, writing) for piece in pieces)


def _as_text(place: _Place, record: Mapping[str, Any], writing: _Writing) -> str:
    value = _value(place, record)
    if value is None:
        return place.fallback or ""
    return writing.escape(_formatted(place, value) if place.spec else _plain(value))


def _value(place: _Place, record: Mapping[str, Any]) -> Any:
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


def _formatted(place: _Place, value: Any) -> str:
    if isinstance(value, date | datetime | time):
        fits = _is_date(place.spec)
    else:
        fits = isinstance(value, str | int | float | Decimal) and not _is_date(place.spec)
    try:
        if fits and not _is_endless(value):
            return format(value, place.spec)
    except (ValueError, TypeError):
        pass
    raise ValueError(f'the format {place.spec!r} of "{place.name}" does not fit a value of type {type(value).__name__}')


def _is_endless(value: Any) -> bool:
    """Whether writing the number out would take a long text, as for 1E+999999."""
    return isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > 400


def _plain(value: Any) -> str:
    """A value as it stands inside a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    plain = _json(value, _Writing(str, _decimal_text))
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _decimal_text(value: Decimal) -> str:
    return str(value) if _is_endless(value) else format(value, "f")


def _json(value: Any, writing: _Writing) -> Any:
    """A value as JSON has it: null, true, a number, a text, a list or an object."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return writing.escape(value)
    if isinstance(value, Decimal):
        return writing.decimal(value)
    if isinstance(value, dict):
        return {writing.escape(str(key)): _json(one, writing) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one, writing) for one in value]
    return writing.escape(_scalar_text(value))


def _scalar_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _duration(value: timedelta) -> str:
    """ISO 8601, such as ``P1DT2.5S``."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = (
        f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".") if value.microseconds else value.seconds
    )
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S" if seconds or not days else f"{sign}P{days}"
