"""Where a value was written: places, key paths, and the problems found there."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from attrs import field, frozen

from muxly.errors import ConfigurationError

KeyPath = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*:/@+-]+\Z")
_PATH_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|\[(\d+)\]|([^.\[\]"]+)')


class Place(NamedTuple):
    """A place in a file; a tuple and no attrs class because a document holds one for every node.

    Args:
        file: The file as the user named it, or ``$VARIABLE``, or ``--set KEY``.
        line: From 1; 0 = the place is not inside a file.
        column: In characters, from 1.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@frozen
class Problem:
    """One thing that is wrong.

    Args:
        place: Where it was written.
        path: Its keys from the root of the document.
        message: What is wrong and the next step.
    """

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        path = f"{path_text(self.path)}: " if self.path else ""
        return f"{self.place}: {path}{self.message}"


class UnreadableError(Exception):
    """A file cannot be read on; carries the one problem that stopped it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@frozen
class Problems:
    """Collects problems, so that all of them are told at once.

    Args:
        found: What was noted, in any order.
        files: The files that were read, the main file first.
        unreadable: Files that could not be read on; what follows from their absence is not worth telling.
    """

    found: list[Problem] = field(factory=list)
    files: list[str] = field(factory=list)
    unreadable: list[str] = field(factory=list)

    def add(self, place: Place, path: KeyPath, message: str) -> None:
        """Note one problem."""
        self.found.append(Problem(place, path, message))

    def sorted(self) -> list[Problem]:
        """Each problem once, by file, line and column; what stands in no file comes last."""
        files = {file: number for number, file in enumerate(self.files)}
        last = len(files)
        return sorted(
            dict.fromkeys(self.found),
            key=lambda one: (files.get(one.place.file, last), *one.place, path_text(one.path), one.message),
        )

    def raise_any(self) -> None:
        """Raise all that was found as one error.

        Raises:
            ConfigurationError: There is at least one problem; its path is the first one's.
        """
        if self.found:
            ordered = self.sorted()
            raise ConfigurationError("\n".join(map(str, ordered)), path=ordered[0].path)


def path_text(path: KeyPath) -> str:
    """The path as people write it: ``pipelines.daily.routes.lake``, ``triggers[0].type``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = key if _PLAIN_KEY.match(key) else json.dumps(key, ensure_ascii=not key.isprintable())
            text += f".{shown}" if text else shown
    return text


def parse_path(text: str) -> KeyPath:
    """The opposite of ``path_text``; keys that hold dots stand in double quotes.

    Raises:
        ValueError: The text is no path.
    """
    path: list[str | int] = []
    index = 0
    while index < len(text):
        if path and text[index] == ".":
            index += 1
        match = _PATH_PART.match(text, index)
        if match is None:
            raise ValueError(f'"{text}" is not a key; write it as pipelines.daily.parallel')
        quoted, number, plain = match.groups()
        path.append(json.loads(f'"{quoted}"') if quoted is not None else plain or int(number))
        index = match.end()
    if not path or text.endswith("."):
        raise ValueError(f'"{text}" is not a key; write it as pipelines.daily.parallel')
    return tuple(path)
