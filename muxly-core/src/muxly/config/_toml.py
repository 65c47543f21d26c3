"""TOML with locations: tomli reads the values, and a scanner of our own finds where they are written.

The scanner runs first because it enforces the limits. It only needs to be right about valid TOML:
where it meets anything else it stops, and tomli reports what is wrong.
"""

from __future__ import annotations

import re
from typing import Any

from muxly.config._document import (
    FileLimits,
    FileText,
    MappingEntry,
    Node,
    Problems,
    ReadBudget,
    add_entry,
    parse_integer,
    parse_real,
)

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_HEADER = re.compile(r"\[\[?")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A date and a time may be separated by one space.
_BARE_VALUE = re.compile(r"\d{4}-\d\d-\d\d \d\d:[0-9:.+Zz-]+|[^\s,\]}#]+")
_LONGEST_BARE_VALUE = 1000
_TEXT = re.compile(r"[^\s#,=\]}\"']")


class _NotTomlError(Exception):
    """The scanner met something that tomli will explain."""


def read_toml(text: FileText, limits: FileLimits, problems: Problems) -> Node:
    """The tree of a TOML text.

    Args:
        text: The file.
        limits: Limits that it must keep.
        problems: Duplicate keys are added here.

    Raises:
        UnreadableError: It is not TOML, or it exceeds a limit.
    """
    import tomli

    scanner = _TomlScanner(text, ReadBudget(text, limits), problems)
    duplicates = len(problems.found)
    scanner.scan()
    if len(problems.found) > duplicates:
        return Node({}, 0)
    try:
        values = tomli.loads(text.text, parse_float=str)
    except tomli.TOMLDecodeError as error:
        raise text.unreadable(error.pos, _message(error.msg, text.text[error.pos :])) from None
    except (RecursionError, ValueError) as error:
        raise text.unreadable(0, f"the file cannot be read as TOML: {error}") from None
    return _with_values(scanner.root, values, text)


def _message(message: str, rest: str) -> str:
    """The message of tomli, with what to do where a value begins like bare text."""
    text = message[0].lower() + message[1:]
    return f'{text}; text goes in quotes: key = "text"' if message == "Invalid value" and _TEXT.match(rest) else text


def _with_values(node: Node, value: Any, text: FileText) -> Node:
    """Put tomli's values into the scanner's tree."""
    if isinstance(value, dict) and isinstance(node.content, dict):
        entries = {}
        for key, item in value.items():
            entry = node.content[key]
            entries[key] = MappingEntry(entry.start, _with_values(entry.node, item, text))
        return Node(entries, node.start)
    if isinstance(value, list) and isinstance(node.content, list):
        pairs = zip(node.content, value, strict=True)
        return Node([_with_values(inner, item, text) for inner, item in pairs], node.start)
    return Node(_scalar(value, node, text), node.start)


def _scalar(value: Any, node: Node, text: FileText) -> Any:
    raw = node.content
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return parse_integer(str(value), 10, text, node.start)
    if isinstance(value, str):
        # parse_float=str: text that was not written in quotes is a number.
        return value if raw is None else parse_real(value.replace("_", ""), text, node.start)
    # Dates and times are text, as they are in YAML and JSON.
    return raw


class _TomlScanner:
    """Finds where keys and values are written; a scalar's content is its raw text, None for quoted text."""

    def __init__(self, text: FileText, budget: ReadBudget, problems: Problems) -> None:
        self.file, self.text, self.budget, self.problems = text, text.text, budget, problems
        self.root = Node({}, 0)
        self.header_starts: dict[int, int] = {}

    def scan(self) -> None:
        """Read as long as the text is TOML."""
        try:
            table, index = self.root, self.blank(0)
            while index < len(self.text):
                if self.text[index] == "[":
                    table, index = self.header(index)
                else:
                    index = self.assignment(index, table, 0)
                index = self.blank(index)
        except _NotTomlError:
            return

    def blank(self, index: int) -> int:
        match = _BLANK.match(self.text, index)
        return match.end() if match else index

    def need(self, pattern: re.Pattern[str], index: int) -> re.Match[str]:
        match = pattern.match(self.text, index)
        if match is None:
            raise _NotTomlError
        return match

    def key(self, index: int) -> tuple[list[tuple[str, int]], int]:
        """A dotted key as parts with their indexes, and the index after it."""
        parts: list[tuple[str, int]] = []
        while True:
            index = self.need(_SPACE, index).end()
            match = _BARE_KEY.match(self.text, index) or self.need(_STRING, index)
            self.budget.spend(index, len(parts))
            parts.append((self.name(match[0]), index))
            index = self.need(_SPACE, match.end()).end()
            if self.text[index : index + 1] != ".":
                return parts, index
            index += 1

    def name(self, raw: str) -> str:
        if raw[0] not in "\"'":
            return raw
        if "\\" not in raw:
            return raw[1:-1]
        import tomli

        try:
            return str(tomli.loads(f"key = {raw}")["key"])
        except tomli.TOMLDecodeError:
            raise _NotTomlError from None

    def header(self, index: int) -> tuple[Node, int]:
        opening = self.need(_HEADER, index)[0]
        parts, end = self.key(index + len(opening))
        if self.text[end : end + len(opening)] != "]" * len(opening):
            raise _NotTomlError
        (name, start), parents = parts[-1], parts[:-1]
        table = self.descend(self.root, parents)
        chosen = self.array_table(table, name, start) if len(opening) == 2 else self.table(table, name, start)
        return chosen, end + len(opening)

    def descend(self, table: Node, parts: list[tuple[str, int]]) -> Node:
        for name, index in parts:
            table = table.content.setdefault(name, MappingEntry(index, Node({}, index))).node
            if isinstance(table.content, list) and table.content:
                table = table.content[-1]
            if not isinstance(table.content, dict):
                raise _NotTomlError
        return table

    def array_table(self, table: Node, name: str, index: int) -> Node:
        """One more table of an array of tables."""
        entry = table.content.setdefault(name, MappingEntry(index, Node([], index)))
        if not isinstance(entry.node.content, list):
            raise _NotTomlError
        self.budget.spend(index, 0)
        added = Node({}, index)
        entry.node.content.append(added)
        return added

    def table(self, table: Node, name: str, index: int) -> Node:
        node = self.descend(table, [(name, index)])
        if id(node.content) in self.header_starts:
            first = self.header_starts[id(node.content)]
            add_entry({name: MappingEntry(first, node)}, name, MappingEntry(index, node), self.file, self.problems)
        self.header_starts[id(node.content)] = index
        return node

    def assignment(self, index: int, table: Node, depth: int) -> int:
        parts, index = self.key(index)
        if self.text[index : index + 1] != "=":
            raise _NotTomlError
        (name, start), parents = parts[-1], parts[:-1]
        target = self.descend(table, parents)
        node, index = self.value(self.need(_SPACE, index + 1).end(), depth + len(parts))
        add_entry(target.content, name, MappingEntry(start, node), self.file, self.problems)
        return index

    def value(self, index: int, depth: int) -> tuple[Node, int]:
        self.budget.spend(index, depth)
        letter = self.text[index : index + 1]
        if letter == "[":
            return self.items(index, depth)
        if letter == "{":
            return self.inline(index, depth)
        if letter and letter in "\"'":
            return Node(None, index), self.need(_STRING, index).end()
        match = self.need(_BARE_VALUE, index)
        if match.end() - index > _LONGEST_BARE_VALUE:
            raise self.file.unreadable(index, "a number of that many digits; put it in quotes if it is text")
        return Node(match[0], index), match.end()

    def items(self, start: int, depth: int) -> tuple[Node, int]:
        nodes: list[Node] = []
        index = self.blank(start + 1)
        while self.text[index : index + 1] != "]":
            node, index = self.value(index, depth + 1)
            nodes.append(node)
            index = self.separator(index, "]")
        return Node(nodes, start), index + 1

    def inline(self, start: int, depth: int) -> tuple[Node, int]:
        node = Node({}, start)
        index = self.blank(start + 1)
        while self.text[index : index + 1] != "}":
            index = self.assignment(index, node, depth)
            index = self.separator(index, "}")
        return node, index + 1

    def separator(self, index: int, closing: str) -> int:
        index = self.blank(index)
        letter = self.text[index : index + 1]
        if letter == ",":
            return self.blank(index + 1)
        if letter != closing:
            raise _NotTomlError
        return index
