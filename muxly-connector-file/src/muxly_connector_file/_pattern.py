"""Path patterns: ``*``, ``?``, ``[a-z]``, ``{a,b}`` inside one name, ``**`` across folders."""

from __future__ import annotations

import re

_WILD = re.compile(r"[*?\[{]")


def split(path: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the pattern below it; ``""`` if there is none.

    ``"a/b/*.csv"`` gives ``("a/b", "*.csv")``; ``"a/b.csv"`` gives ``("a/b.csv", "")``.
    """
    found = _WILD.search(path)
    if found is None:
        return path, ""
    edge = path.rfind("/", 0, found.start()) + 1
    return (path[:edge].rstrip("/") or path[:edge] or "."), path[edge:]


def depth(pattern: str) -> int | None:
    """How many folders below its base a pattern can match: 0 = none; None = any number."""
    return None if "**" in pattern else pattern.count("/")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches the whole relative path of the files meant.

    Raises:
        ValueError: A bracket is not closed, or a range is the wrong way round.
    """
    try:
        return re.compile(_expression(pattern) + r"\Z", re.DOTALL)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a path pattern: {error}") from None


def _next(pattern: str, index: int) -> tuple[str, int]:
    """The expression of the pattern's next element, and where it ends."""
    if pattern.startswith("**/", index):
        return r"(?:[^/]+/)*", index + 3
    if pattern.startswith("**", index):
        return r".*", index + 2
    letter = pattern[index]
    if letter in "[{":
        return _bracket(pattern, index)
    return {"*": r"[^/]*", "?": r"[^/]"}.get(letter, re.escape(letter)), index + 1


def _bracket(pattern: str, index: int) -> tuple[str, int]:
    close = pattern.find("]" if pattern[index] == "[" else "}", index + 2)
    if close < 0:
        raise ValueError(f"{pattern!r} is not a path pattern: the {pattern[index]!r} is never closed")
    inner = pattern[index + 1 : close]
    if pattern[index] == "{":
        return f"(?:{'|'.join(map(_expression, inner.split(',')))})", close + 1
    negated = inner[0] in "!^"
    letters = re.sub(r"([\\\]\[&~|^])", r"\\\1", inner[1:] if negated else inner)
    return f"(?!/)[{'^' if negated else ''}{letters}]", close + 1


def _expression(pattern: str) -> str:
    parts, index = [], 0
    while index < len(pattern):
        text, index = _next(pattern, index)
        parts.append(text)
    return "".join(parts)
