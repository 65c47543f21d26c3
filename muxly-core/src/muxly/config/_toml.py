"""TOML with places: tomli reads the values, a scanner of our own finds where they stand.

The scanner runs first because it holds the limits. It needs to be right on valid TOML only:
where it meets anything else it stops, and tomli says what is wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from muxly.config._document import Budget, Entry, Node, add_entry, integer, real

if TYPE_CHECKING:
    from muxly.config._document import Limits, Problems, Text

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
# A date and a time may be parted by one space.
_BARE_VALUE = re.compile(r"\d{4}-\d\d-\d\d \d\d:[0-9:.+Zz-]+|[^\s,\]}#]+")
_LONGEST_BARE_VALUE = 1000
_TEXT = re.compile(r"[^\s#,=\]}\"']")


class _NotTomlError(Exception):
    """The scanner met something that tomli will explain."""


def read_toml(text: Text, limits: Limits, problems: Problems) -> Node:
    """The tree of a TOML text.

    Args:
        text: The file.
        limits: What it may cost.
        problems: Duplicate keys are noted here.

    Raises:
        UnreadableError: It is no TOML, or over a limit.
    """
    import tomli

    scanner = _Scanner(text, Budget(text, limits), problems)
    duplicates = len(problems.found)
    scanner.scan()
    if len(problems.found) > duplicates:
        return Node({}, 0)
    try:
        values = tomli.loads(text.text, parse_float=str)
    except tomli.TOMLDecodeError as error:
        raise text.unreadable(error.pos, _told(error.msg, text.text[error.pos :])) from None
    except (RecursionError, ValueError) as error:
        raise text.unreadable(0, f"the file cannot be read as TOML: {error}") from None
    return _valued(scanner.root, values, text)


def _told(message: str, rest: str) -> str:
    """What tomli says of a place, with what to do where a value begins like bare text."""
    told = message[0].lower() + message[1:]
    return f'{told}; text goes in quotes: key = "text"' if message == "Invalid value" and _TEXT.match(rest) else told


def _valued(place: Node, value: Any, text: Text) -> Node:
    """Put tomli's values into the scanner's tree."""
    if isinstance(value, dict) and isinstance(place.content, dict):
        entries = {}
        for key, item in value.items():
            entry = place.content[key]
            entries[key] = Entry(entry.start, _valued(entry.node, item, text))
        return Node(entries, place.start)
    if isinstance(value, list) and isinstance(place.content, list):
        pairs = zip(place.content, value, strict=True)
        return Node([_valued(inner, item, text) for inner, item in pairs], place.start)
    return Node(_scalar(value, place, text), place.start)


def _scalar(value: Any, place: Node, text: Text) -> Any:
    raw = place.content
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return integer(str(value), 10, text, place.start)
    if isinstance(value, str):
        # parse_float=str: text that was not written in quotes is a number.
        return value if raw is None else real(value.replace("_", ""), text, place.start)
    # Dates and times are text, as they are in YAML and JSON.
    return raw


class _Scanner:
    """Finds where keys and values stand; a scalar's content is its raw text, None for quoted text."""

    def __init__(self, text: Text, budget: Budget, problems: Problems) -> None:
        self.file, self.text, self.budget, self.problems = text, text.text, budget, problems
        self.root = Node({}, 0)
        self.headed: dict[int, int] = {}

    def scan(self) -> None:
        """Read as far as the text is TOML."""
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
        (name, place), parents = parts[-1], parts[:-1]
        table = self.descend(self.root, parents)
        chosen = self.listed(table, name, place) if len(opening) == 2 else self.table(table, name, place)
        return chosen, end + len(opening)

    def descend(self, table: Node, parts: list[tuple[str, int]]) -> Node:
        for name, index in parts:
            table = table.content.setdefault(name, Entry(index, Node({}, index))).node
            if isinstance(table.content, list) and table.content:
                table = table.content[-1]
            if not isinstance(table.content, dict):
                raise _NotTomlError
        return table

    def listed(self, table: Node, name: str, index: int) -> Node:
        """One more table of an array of tables."""
        entry = table.content.setdefault(name, Entry(index, Node([], index)))
        if not isinstance(entry.node.content, list):
            raise _NotTomlError
        self.budget.spend(index, 0)
        added = Node({}, index)
        entry.node.content.append(added)
        return added

    def table(self, table: Node, name: str, index: int) -> Node:
        node = self.descend(table, [(name, index)])
        if id(node.content) in self.headed:
            first = self.headed[id(node.content)]
            add_entry({name: Entry(first, node)}, name, Entry(index, node), self.file, self.problems)
        self.headed[id(node.content)] = index
        return node

    def assignment(self, index: int, table: Node, depth: int) -> int:
        parts, index = self.key(index)
        if self.text[index : index + 1] != "=":
            raise _NotTomlError
        (name, place), parents = parts[-1], parts[:-1]
        target = self.descend(table, parents)
        node, index = self.value(self.need(_SPACE, index + 1).end(), depth + len(parts))
        add_entry(target.content, name, Entry(place, node), self.file, self.problems)
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
