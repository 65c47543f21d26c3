"""JSON with locations: RFC 8259; duplicate keys and lone surrogates are refused."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
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

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"true|false|null")
_STRINGS = JSONDecoder()
_WORDS = {"true": True, "false": False, "null": None}


def read_json(text: FileText, limits: FileLimits, problems: Problems) -> Node:
    """The tree of a JSON text.

    Args:
        text: The file.
        limits: Limits that it must keep.
        problems: Duplicate keys are added here; the first one counts.

    Raises:
        UnreadableError: It is not JSON, or it exceeds a limit.
    """
    reader = _JsonParser(text, ReadBudget(text, limits), problems)
    root, end = reader.value(reader.space(0), 0)
    if end < len(text.text):
        raise text.unreadable(end, "expected the end of the file")
    return root


class _JsonParser:
    """Recursive descent; the depth is bounded by the budget."""

    def __init__(self, text: FileText, budget: ReadBudget, problems: Problems) -> None:
        self.file, self.text, self.budget, self.problems = text, text.text, budget, problems

    def space(self, index: int) -> int:
        match = _SPACE.match(self.text, index)
        return match.end() if match else index

    def value(self, index: int, depth: int) -> tuple[Node, int]:
        """The value that begins here, and the index of what follows the space after it."""
        self.budget.spend(index, depth)
        letter = self.text[index : index + 1]
        content: Any
        if letter == "{":
            content, end = self.mapping(index + 1, depth)
        elif letter == "[":
            content, end = self.items(index + 1, depth)
        else:
            content, end = self.scalar(index, letter)
        return Node(content, index), self.space(end)

    def scalar(self, index: int, letter: str) -> tuple[Any, int]:
        if letter == '"':
            return self.string(index)
        word = _WORD.match(self.text, index)
        if word:
            return _WORDS[word[0]], word.end()
        number = _NUMBER.match(self.text, index)
        if number:
            whole = number[2] is None and number[3] is None
            read = parse_integer(number[0], 10, self.file, index) if whole else parse_real(number[0], self.file, index)
            return read, number.end()
        raise self.file.unreadable(index, "expected a value" if letter else "the file ends before a value")

    def string(self, index: int) -> tuple[str, int]:
        text: str
        try:
            text, end = _STRINGS.raw_decode(self.text, index)
        except JSONDecodeError as error:
            raise self.file.unreadable(error.pos, error.msg.lower().removesuffix(" at")) from None
        if _SURROGATE.search(text):
            raise self.file.unreadable(index, "half of a surrogate pair is not text")
        return text, end

    def mapping(self, index: int, depth: int) -> tuple[dict[str, MappingEntry], int]:
        entries: dict[str, MappingEntry] = {}
        index = self.space(index)
        if self.text[index : index + 1] == "}":
            return entries, index + 1
        while True:
            index = self.entry(index, depth, entries)
            index, closed = self.separator(index, "}")
            if closed:
                return entries, index

    def entry(self, index: int, depth: int, entries: dict[str, MappingEntry]) -> int:
        if self.text[index : index + 1] != '"':
            raise self.file.unreadable(index, "expected a key in double quotes")
        key, end = self.string(index)
        end = self.space(end)
        if self.text[end : end + 1] != ":":
            raise self.file.unreadable(end, 'expected ":" after the key')
        node, end = self.value(self.space(end + 1), depth + 1)
        add_entry(entries, key, MappingEntry(index, node), self.file, self.problems)
        return end

    def items(self, index: int, depth: int) -> tuple[list[Node], int]:
        nodes: list[Node] = []
        index = self.space(index)
        if self.text[index : index + 1] == "]":
            return nodes, index + 1
        while True:
            node, index = self.value(index, depth + 1)
            nodes.append(node)
            index, closed = self.separator(index, "]")
            if closed:
                return nodes, index

    def separator(self, index: int, closing: str) -> tuple[int, bool]:
        letter = self.text[index : index + 1]
        if letter == closing:
            return index + 1, True
        if letter != ",":
            raise self.file.unreadable(index, f'expected "," or "{closing}"')
        after = self.space(index + 1)
        if self.text[after : after + 1] == closing:
            raise self.file.unreadable(index, f'a comma before "{closing}" is not JSON; remove it')
        return after, False
