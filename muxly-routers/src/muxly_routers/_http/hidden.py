"""Secrets that an answer may repeat: a page that says what is not there names the address."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Redaction", "parts_of", "paths_of"]

# Shorter texts are in others by chance.
_SHORTEST = 8
_LOOKED_AT_CHARACTERS, _SHOWN_CHARACTERS = 2000, 200
_BETWEEN_PARTS = re.compile(r"[/?&=;#]|\{[^{}]*\}")


@frozen
class Redaction:
    """Texts that no message may show, longest first."""

    _texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redaction:
        """Hides these, in each form in which a page or a JSON document spells them; not what is very short."""
        found = {form for one in secrets for form in _forms(one) if len(form) >= _SHORTEST}
        return cls(tuple(sorted(found, key=lambda text: (-len(text), text))))

    def shown(self, text: str) -> str:
        """The beginning of a text from outside, in one line that does no harm, with stars in their places."""
        for one in self._texts:
            text = text.replace(one, "***")
        words = "".join(letter if letter.isprintable() else " " for letter in text[:_LOOKED_AT_CHARACTERS])
        return " ".join(words.split())[:_SHOWN_CHARACTERS]


def paths_of(url: str) -> list[str]:
    """What follows the host of a URL: with its query, and without."""
    path = "/" + url.partition("://")[2].partition("/")[2]
    return [path, path.partition("?")[0]]


def parts_of(url: str) -> list[str]:
    """The parts of a URL's path and query; of a template without what is put into its places."""
    return _BETWEEN_PARTS.split(paths_of(url)[0])


def _forms(text: str) -> set[str]:
    return {text, unquote(text), html.escape(text), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
