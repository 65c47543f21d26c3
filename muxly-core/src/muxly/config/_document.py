"""Documents: the values of a file, with the location (line and column) of each value and key.

A reader (``_yaml``, ``_json``, ``_toml``) turns the text of a file into a tree of ``Node``, which holds the index of
each value and key in the text. ``build_document`` turns the tree into plain values and, in ``Document.values`` and
``Document.keys``, the ``Location`` of each key path; ``FileText`` counts the lines for it.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from attrs import define, field, frozen

from muxly._annotations import nearest, quoted
from muxly.errors import ConfigurationError

KeyPath = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*:/@+-]+\Z")
_PATH_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|\[(\d+)\]|([^.\[\]"]+)')


class Location(NamedTuple):
    """A location in a file; a tuple and not an attrs class because a document holds one for every node.

    Args:
        file: The file as the user named it, or ``$VARIABLE``, or ``--set KEY``.
        line: From 1; 0 = the location is not inside a file.
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
        location: Where it was written.
        path: Its keys from the root of the document.
        message: What is wrong and the next step.
    """

    location: Location
    path: KeyPath
    message: str

    def __str__(self) -> str:
        path = f"{path_text(self.path)}: " if self.path else ""
        return f"{self.location}: {path}{self.message}"


class UnreadableError(Exception):
    """A file cannot be read any further; carries the one problem that stopped it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@frozen
class Problems:
    """Collects problems, so that all of them are reported at once.

    Args:
        found: The problems that were added, in any order.
        files: The files that were read, the main file first.
        unreadable: Files that could not be read; problems that only follow from that are not reported.
    """

    found: list[Problem] = field(factory=list)
    files: list[str] = field(factory=list)
    unreadable: list[str] = field(factory=list)

    def add(self, location: Location, path: KeyPath, message: str) -> None:
        """Add one problem."""
        self.found.append(Problem(location, path, message))

    def sorted(self) -> list[Problem]:
        """Each problem once, by file, line and column; those that are in no file come last."""
        files = {file: number for number, file in enumerate(self.files)}
        last = len(files)
        return sorted(
            dict.fromkeys(self.found),
            key=lambda problem: (
                files.get(problem.location.file, last),
                *problem.location,
                path_text(problem.path),
                problem.message,
            ),
        )

    def raise_any(self) -> None:
        """Raise all problems as one error.

        Raises:
            ConfigurationError: There is at least one problem; its path is the first one's.
        """
        if self.found:
            ordered = self.sorted()
            raise ConfigurationError("\n".join(map(str, ordered)), path=ordered[0].path)


def known_names_hint(name: str, known: Iterable[str], *, none: str = "none") -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them.

    Args:
        name: The unknown name.
        known: The names that would have been right.
        none: Stands for the list of known names if there are none.
    """
    names = list(known)
    close = nearest(name, names)
    return f'did you mean "{close}"?' if close else f"known: {', '.join(names) or none}"


def path_text(path: KeyPath) -> str:
    """The path as people write it: ``pipelines.daily.routes.lake``, ``triggers[0].type``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            key_text = key if _PLAIN_KEY.match(key) else json.dumps(key, ensure_ascii=not key.isprintable())
            text += f".{key_text}" if text else key_text
    return text


def parse_path(text: str) -> KeyPath:
    """The inverse of ``path_text``; keys that contain dots are in double quotes.

    Raises:
        ValueError: The text is not a path.
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


_BREAK = re.compile(r"\r\n|\n|\r")
# Tab, line feed and carriage return are the only control characters a configuration needs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


@frozen
class FileLimits:
    """Limits of a configuration; a file beyond them is refused in well under a second.

    Args:
        file_bytes: Size of one file.
        nodes: Keys, items and values of one file, aliases counted as often as they are used.
        depth: How deep mappings and lists may nest.
        files: Files of one configuration, includes counted.
    """

    file_bytes: int = 4 << 20
    nodes: int = 100_000
    depth: int = 100
    files: int = 100


LIMITS = FileLimits()


class FileText:
    """The text of a file, and where its lines begin.

    Args:
        file: The file's name for messages.
        text: The whole text.
    """

    __slots__ = ("_starts", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self._starts = [0, *(match.end() for match in _BREAK.finditer(text))]

    def location(self, index: int) -> Location:
        """The location of the character with this index."""
        line = bisect_right(self._starts, index)
        return Location(self.file, line, index - self._starts[line - 1] + 1)

    def unreadable(self, index: int, message: str) -> UnreadableError:
        """The error that stops reading at this character."""
        return UnreadableError(Problem(self.location(index), (), message))


def read_text(path: Path, file: str, limits: FileLimits = LIMITS) -> FileText:
    """Read a file as UTF-8.

    Args:
        path: The file.
        file: Its name for messages.
        limits: Limits that it must keep.

    Raises:
        UnreadableError: It is missing, too big, or not UTF-8 text.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(limits.file_bytes + 1)
    except FileNotFoundError:
        message = "there is no such file; muxly init writes one to begin with"
        raise UnreadableError(Problem(Location(file), (), message)) from None
    except OSError as error:
        raise UnreadableError(Problem(Location(file), (), f"cannot read the file: {error.strerror}")) from error
    if len(content) > limits.file_bytes:
        message = f"the file is larger than {limits.file_bytes >> 20} MiB; split it with include"
        raise UnreadableError(Problem(Location(file), (), message))
    return decode_text(content, file)


def decode_text(content: bytes, file: str) -> FileText:
    """The bytes as text, without a byte order mark.

    Raises:
        UnreadableError: The bytes are not UTF-8 text, or contain control characters.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[1:2] == b"\0" or content[:1] == b"\0":
        raise UnreadableError(Problem(Location(file, 1, 1), (), "the file is UTF-16 or binary; save it as UTF-8"))
    try:
        text = FileText(file, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = FileText(file, error.object[: error.start].decode("utf-8-sig"))
        message = f"the byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise before.unreadable(len(before.text), message) from None
    control = _CONTROL.search(text.text)
    if control:
        code = f"U+{ord(control[0]):04X}"
        raise text.unreadable(control.start(), f"the control character {code} must not appear in a configuration")
    return text


_MOST_DIGITS = 1000


class Node(NamedTuple):
    """One value of a file.

    Args:
        content: A scalar, a list of nodes, or a dict of entries.
        start: Index of its first character in the text.
    """

    content: Any
    start: int


class MappingEntry(NamedTuple):
    """One key of a mapping.

    Args:
        start: Index of the key's first character in the text.
        node: The key's value.
    """

    start: int
    node: Node


@frozen
class Document:
    """Plain values with the location of each of them.

    Args:
        value: Nested dicts, lists and scalars; the same for YAML, JSON and TOML.
        values: Where the value at each path is written.
        keys: Where the last key of each path is written; list items have none.
    """

    value: dict[str, Any] = field(factory=dict)
    values: dict[KeyPath, Location] = field(factory=dict)
    keys: dict[KeyPath, Location] = field(factory=dict)

    def location(self, path: KeyPath) -> Location:
        """Where a value is written; for one that is not, where the nearest value around it is."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Location("configuration"))

    def key_location(self, path: KeyPath) -> Location:
        """Where a key is written, or else its value."""
        return self.keys.get(path) or self.location(path)


@define
class ReadBudget:
    """Counts the nodes of a file while it is read.

    Args:
        text: The file.
        limits: Limits that it must keep.
    """

    text: FileText
    limits: FileLimits
    nodes: int = 0

    def spend(self, index: int, depth: int) -> None:
        """Count one node.

        Raises:
            UnreadableError: The file is over a limit.
        """
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            message = f"the file holds more than {self.limits.nodes} values, counting repeats through aliases"
            raise self.text.unreadable(index, message)
        if depth > self.limits.depth:
            raise self.text.unreadable(index, f"nested more than {self.limits.depth} levels deep")


def build_document(root: Node, text: FileText, limits: FileLimits) -> Document:
    """The plain document of a tree.

    Args:
        root: The tree; a node may occur in several places (aliases).
        text: The file it was read from.
        limits: Applied again here, because an alias counts each time that it is used.

    Raises:
        UnreadableError: The root is not a mapping, or aliases expand beyond the limits.
    """
    if root.content is None:
        return Document({}, {(): text.location(root.start)})
    if not isinstance(root.content, dict):
        raise text.unreadable(root.start, "a configuration is a mapping of keys such as pipelines and connectors")
    result = Document(values={}, keys={})
    budget = ReadBudget(text, limits)
    result.value.update(_build_value(root, (), result, budget))
    return result


def _build_value(node: Node, path: KeyPath, result: Document, budget: ReadBudget) -> Any:
    budget.spend(node.start, len(path))
    result.values[path] = budget.text.location(node.start)
    content = node.content
    if isinstance(content, dict):
        return {key: _build_entry(entry, (*path, key), result, budget) for key, entry in content.items()}
    if isinstance(content, list):
        return [_build_value(item, (*path, number), result, budget) for number, item in enumerate(content)]
    return content


def _build_entry(entry: MappingEntry, path: KeyPath, result: Document, budget: ReadBudget) -> Any:
    result.keys[path] = budget.text.location(entry.start)
    return _build_value(entry.node, path, result, budget)


def add_entry(
    entries: dict[str, MappingEntry], key: str, entry: MappingEntry, text: FileText, problems: Problems
) -> None:
    """Put an entry into a mapping, or note that its key is there already; the first one counts."""
    first = entries.setdefault(key, entry)
    if first is not entry:
        line = text.location(first.start).line
        message = f"duplicate key {quoted(key)}; it is already on line {line}, remove one of the two"
        problems.add(text.location(entry.start), (), message)


def parse_integer(digits: str, radix: int, text: FileText, index: int) -> int:
    """A whole number; Python's own limit on digits would be an error without a location.

    Raises:
        UnreadableError: The number has too many digits.
    """
    if len(digits) > _MOST_DIGITS:
        raise text.unreadable(index, f"a number of {len(digits)} digits; put it in quotes if it is text")
    return int(digits, radix)


def parse_real(digits: str, text: FileText, index: int) -> float:
    """A decimal number.

    Raises:
        UnreadableError: It is not finite: JSON could not hold it, and no option takes it.
    """
    number = float(digits)
    if number - number != 0:
        raise text.unreadable(index, f"{digits[:20]} is not a finite number; put it in quotes if it is text")
    return number
