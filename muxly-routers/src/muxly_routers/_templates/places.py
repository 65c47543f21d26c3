"""A text of a template, taken apart into what stands in it and the places for values."""

from __future__ import annotations

import re

from attrs import frozen

__all__ = ["Placeholder", "is_date_format", "split_text"]

_TOKEN = re.compile(r'\{\{|\}\}|\{(?P<inside>"(?:[^"]|""){1,1000}"[^{}]*|[^{}]*)\}|[{}]')
_INSIDE = re.compile(r'(?P<name>"(?:[^"]|"")+"|[^:|]+)(?P<spec>:[^|]*)?(?P<fallback>\|.*)?', re.DOTALL)
# Python's own format specifications, without what depends on the locale of the machine.
_NUMBER = re.compile(
    r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>\d*)[,_]?(?:\.(?P<precision>\d+))?[bdeEfFgGosxX%]?", re.DOTALL
)
# The C library also knows widths such as %1000000000Y, which nothing would stop.
_DATE = re.compile(r"(?:[^%]|%-?[aAbBcdfGHIjmMpSuUVwWxXyYzZ%])+")
_WIDEST, _MOST_PRECISE, _LONGEST_SPEC = 200, 50, 100


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
    found: list[str | Placeholder] = []
    end = 0
    for token in _TOKEN.finditer(source):
        found.append(source[end : token.start()])
        end = token.end()
        try:
            found.append(_parsed_token(token))
        except ValueError as error:
            place = f"{where}: " if where else ""
            raise ValueError(f"{place}character {token.start() + 1}: {error}") from None
    found.append(source[end:])
    return tuple(piece for piece in found if piece != "")


def _parsed_token(token: re.Match[str]) -> str | Placeholder:
    text = token[0]
    if text in ("{{", "}}"):
        return text[0]
    if text in ("{", "}"):
        raise ValueError(f"a single {text}; write {text}{text} for a brace, or {{field}} for a value")
    return _placeholder(token["inside"])


def _placeholder(inside: str) -> Placeholder:
    found = _INSIDE.fullmatch(inside)
    if found is None or not (name := _name(found["name"])):
        raise ValueError(f"{{{inside}}} names no field; write {{field}}, or {{{{ and }}}} for braces")
    spec = (found["spec"] or "")[1:]
    _check_spec(spec)
    fallback = found["fallback"]
    return Placeholder(name, spec, None if fallback is None else fallback[1:])


def _name(written: str) -> str:
    return written[1:-1].replace('""', '"') if written[0] == '"' and written[-1] == '"' else written


def _check_spec(spec: str) -> None:
    if len(spec) > _LONGEST_SPEC:
        raise ValueError(f"a format has at most {_LONGEST_SPEC} characters")
    found = _NUMBER.fullmatch(spec)
    if found is None and not is_date_format(spec):
        raise ValueError(f"{spec!r} is no format; write one such as ,.2f for numbers or %Y-%m-%d for dates")
    if found is not None and (int(found["width"] or 0) > _WIDEST or int(found["precision"] or 0) > _MOST_PRECISE):
        raise ValueError(f"{spec!r} is wider than {_WIDEST} or more precise than {_MOST_PRECISE} digits")


def is_date_format(spec: str) -> bool:
    """Whether a format is one of dates and times, and not of numbers and texts."""
    return "%" in spec and _NUMBER.fullmatch(spec) is None and _DATE.fullmatch(spec) is not None
