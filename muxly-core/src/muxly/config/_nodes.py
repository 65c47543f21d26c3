"""The tree that every format is read into, and the plain document made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import define, field, frozen

from muxly._annotations import quoted
from muxly.config._location import KeyPath, Place

if TYPE_CHECKING:
    from muxly.config._lines import Limits, Text
    from muxly.config._location import Problems

_MOST_DIGITS = 1000


class Node(NamedTuple):
    """One value of a file.

    Args:
        content: A scalar, a list of nodes, or a dict of entries.
        start: Index of its first character in the text.
    """

    content: Any
    start: int


class Entry(NamedTuple):
    """One key of a mapping.

    Args:
        start: Index of the key's first character in the text.
        node: The key's value.
    """

    start: int
    node: Node


@frozen
class Document:
    """Plain values with the place of each of them.

    Args:
        value: Nested dicts, lists and scalars; the same for YAML, JSON and TOML.
        values: Where the value of a path is written.
        keys: Where the key of a path is written; list items have none.
    """

    value: dict[str, Any] = field(factory=dict)
    values: dict[KeyPath, Place] = field(factory=dict)
    keys: dict[KeyPath, Place] = field(factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Where the value is written; if it is not, where the nearest thing around it is."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Place("configuration"))

    def key_place(self, path: KeyPath) -> Place:
        """Where the key is written, or else its value."""
        return self.keys.get(path) or self.place(path)


@define
class Budget:
    """Counts what a file costs while it is read.

    Args:
        text: The file.
        limits: What it may cost.
    """

    text: Text
    limits: Limits
    nodes: int = 0

    def spend(self, index: int, depth: int) -> None:
        """Count one node.

        Raises:
            UnreadableError: The file is over a limit.
        """
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            message = f"the file holds more than {self.limits.nodes} values, repeats through aliases included"
            raise self.text.unreadable(index, message)
        if depth > self.limits.depth:
            raise self.text.unreadable(index, f"nested more than {self.limits.depth} levels deep")


def document(root: Node, text: Text, limits: Limits) -> Document:
    """The plain document of a tree.

    Args:
        root: The tree; a node may occur in several places (aliases).
        text: The file it was read from.
        limits: Counted again here, for an alias costs each time that it is used.

    Raises:
        UnreadableError: The root is no mapping, or aliases expand beyond the limits.
    """
    if root.content is None:
        return Document({}, {(): text.place(root.start)})
    if not isinstance(root.content, dict):
        raise text.unreadable(root.start, "a configuration is a mapping of keys such as pipelines and connectors")
    made = Document(values={}, keys={})
    budget = Budget(text, limits)
    made.value.update(_plain(root, (), made, budget))
    return made


def _plain(node: Node, path: KeyPath, made: Document, budget: Budget) -> Any:
    budget.spend(node.start, len(path))
    made.values[path] = budget.text.place(node.start)
    content = node.content
    if isinstance(content, dict):
        return {key: _value(entry, (*path, key), made, budget) for key, entry in content.items()}
    if isinstance(content, list):
        return [_plain(item, (*path, number), made, budget) for number, item in enumerate(content)]
    return content


def _value(entry: Entry, path: KeyPath, made: Document, budget: Budget) -> Any:
    made.keys[path] = budget.text.place(entry.start)
    return _plain(entry.node, path, made, budget)


def add_entry(entries: dict[str, Entry], key: str, entry: Entry, text: Text, problems: Problems) -> None:
    """Put an entry into a mapping, or note that its key is there already; the first one stands."""
    first = entries.setdefault(key, entry)
    if first is not entry:
        line = text.place(first.start).line
        message = f"duplicate key {quoted(key)}; it already stands in line {line}, remove one of the two"
        problems.add(text.place(entry.start), (), message)


def integer(digits: str, radix: int, text: Text, index: int) -> int:
    """A whole number; Python's own limit on digits would be an error without a place.

    Raises:
        UnreadableError: The number has too many digits.
    """
    if len(digits) > _MOST_DIGITS:
        raise text.unreadable(index, f"a number of {len(digits)} digits; put it in quotes if it is text")
    return int(digits, radix)


def real(digits: str, text: Text, index: int) -> float:
    """A decimal number.

    Raises:
        UnreadableError: It is not finite: JSON could not hold it, and no option wants it.
    """
    number = float(digits)
    if number - number != 0:
        raise text.unreadable(index, f"{digits[:20]} is not a finite number; put it in quotes if it is text")
    return number
