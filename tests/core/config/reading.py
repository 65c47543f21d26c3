"""Shortcuts of the tests of reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muxly.config._document import LIMITS, FileLimits, Problems, UnreadableError, decode_text
from muxly.config._layers import parse_document

if TYPE_CHECKING:
    from muxly.config._document import Document


def read(text: str | bytes, suffix: str, limits: FileLimits = LIMITS) -> Document:
    """The document of a text that is right."""
    problems = Problems()
    document = parse_document(_text(text, suffix), suffix, problems, limits)
    assert problems.found == []
    return document


def problems_of(text: str | bytes, suffix: str, limits: FileLimits = LIMITS) -> list[str]:
    """What is wrong with a text, one line each."""
    problems = Problems()
    try:
        parse_document(_text(text, suffix), suffix, problems, limits)
    except UnreadableError as stop:
        problems.found.append(stop.problem)
    return [str(one) for one in problems.sorted()]


def _text(text: str | bytes, suffix: str):  # type: ignore[no-untyped-def]
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return decode_text(content, f"muxly{suffix}")
