"""Text that every database takes: PostgreSQL refuses NUL, and UTF-8 has no lone surrogates."""

from __future__ import annotations

import json

_QUOTE = '"'


def readable(text: str) -> str:
    """The text for people to read; what no database takes is written as an escape."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def stored(name: str) -> str:
    """A name of any characters as text that ``given`` turns back into the same name."""
    return name if readable(name) == name and not name.startswith(_QUOTE) else json.dumps(name)


def given(text: str) -> str:
    """The name that ``stored`` was given."""
    return str(json.loads(text)) if text.startswith(_QUOTE) else text
