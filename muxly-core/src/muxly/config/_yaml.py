"""YAML with locations, read by the rules of YAML 1.2 and not, as PyYAML does, of 1.1.

``on``, ``no``, ``012``, ``1:30`` and dates are text. Keys are always text; duplicate keys and tags are refused.
PyYAML's own composer is not used: it is quadratic in the depth of the text, keeps no locations, and expands
aliases without a limit. Nodes know the index at which they start; ``_document.build_document`` turns it into the
``Location``, file, line and column, of every value.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from muxly.config._document import (
    FileLimits,
    FileText,
    MappingEntry,
    Node,
    Problems,
    ReadBudget,
    UnreadableError,
    add_entry,
    parse_integer,
    parse_real,
)

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"(?P<whole>[-+]?(?:0|[1-9][0-9]*))|0o(?P<octal>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<real>[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<endless>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_RADIX = {"whole": 10, "octal": 8, "hex": 16}


def read_yaml(text: FileText, limits: FileLimits, problems: Problems) -> Node:
    """The tree of a YAML text.

    Args:
        text: The file.
        limits: Limits that it must keep.
        problems: Duplicate keys are added here; the first one counts.

    Raises:
        UnreadableError: It is not YAML that a configuration may use, or it exceeds a limit.
    """
    composer = _YamlComposer(text, limits, problems)
    try:
        return composer.document()
    except yaml.YAMLError as error:
        index, message = _problem(error)
        if "maximum nesting depth" in message and index < len(text.text):
            # Since PyYAML 6.0.4 the scanner, which reads ahead, may stop first. Of what stands
            # before that, the composer finds the place where our own limit, the lower one, is met.
            return read_yaml(FileText(text.file, text.text[:index]), limits, problems)
        raise _located(index, message, text) from None


def _problem(error: yaml.YAMLError) -> tuple[int, str]:
    """The index at which PyYAML stopped, and the reason."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    index = mark.index if mark is not None else getattr(error, "position", 0)
    return index, getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)


def _located(index: int, message: str, text: FileText) -> UnreadableError:
    if text.text[index : index + 1] == "\t":
        message = "a tab must not indent or start a value; use spaces"
    elif "mapping values are not allowed" in message:
        message = 'a ":" is not expected here; put the text before it in quotes, or fix the indentation'
    return text.unreadable(index, message)


class _YamlComposer:
    """Builds the tree from PyYAML's events, one at a time, so that limits hold while reading."""

    def __init__(self, text: FileText, limits: FileLimits, problems: Problems) -> None:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.file, self.problems = text, problems
        self.budget = ReadBudget(text, limits)
        self.parser = loader(text.text)
        self.anchors: dict[str, Node] = {}
        self.open: set[str] = set()

    def document(self) -> Node:
        """The only document of the text; an empty text is null."""
        self.parser.get_event()
        if self.parser.check_event(yaml.StreamEndEvent):
            return Node(None, 0)
        self.parser.get_event()
        root = self.node(self.parser.get_event(), 0)
        self.parser.get_event()
        after = self.parser.get_event()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.error(after, 'a second document begins here; a configuration is a single one; remove the "---"')
        return root

    def error(self, event: Any, message: str) -> UnreadableError:
        return self.file.unreadable(event.start_mark.index, message)

    def node(self, event: Any, depth: int) -> Node:
        index = event.start_mark.index
        self.budget.spend(index, depth)
        if isinstance(event, yaml.AliasEvent):
            # The alias is where the value is used; what is inside it is located at its anchor.
            return Node(self.aliased(event).content, index)
        if event.tag is not None:
            raise self.error(event, f"the tag {event.tag} is not supported; put text in quotes and remove the tag")
        if event.anchor is None:
            return Node(self.content(event, depth), index)
        self.open.add(event.anchor)
        node = Node(self.content(event, depth), index)
        self.open.discard(event.anchor)
        self.anchors[event.anchor] = node
        return node

    def aliased(self, event: Any) -> Node:
        if event.anchor in self.open:
            raise self.error(event, f"*{event.anchor} is inside the value that it repeats")
        if event.anchor not in self.anchors:
            raise self.error(event, f"*{event.anchor} refers to nothing; no &{event.anchor} comes before it")
        return self.anchors[event.anchor]

    def content(self, event: Any, depth: int) -> Any:
        start = event.start_mark.index
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] and not event.style
            return self.scalar(event.value, start) if plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self.items(depth)
        return self.mapping(depth)

    def scalar(self, text: str, index: int) -> Any:
        """What a plain scalar means by the core schema of YAML 1.2, leading zeros being text."""
        if text in _WORDS:
            return _WORDS[text]
        match = _NUMBER.fullmatch(text)
        if match is None:
            return text
        kind = match.lastgroup or ""
        if kind in _RADIX:
            return parse_integer(match[kind], _RADIX[kind], self.file, index)
        return parse_real(text.replace(".", "", 1) if kind == "endless" else text, self.file, index)

    def items(self, depth: int) -> list[Node]:
        nodes = []
        event = self.parser.get_event()
        while not isinstance(event, yaml.SequenceEndEvent):
            nodes.append(self.node(event, depth + 1))
            event = self.parser.get_event()
        return nodes

    def mapping(self, depth: int) -> dict[str, MappingEntry]:
        entries: dict[str, MappingEntry] = {}
        merged: list[Node] = []
        event = self.parser.get_event()
        while not isinstance(event, yaml.MappingEndEvent):
            key, index = self.key(event), event.start_mark.index
            node = self.node(self.parser.get_event(), depth + 1)
            if key == "<<" and not event.style:
                merged += self.merged(node)
            else:
                add_entry(entries, key, MappingEntry(index, node), self.file, self.problems)
            event = self.parser.get_event()
        for source in merged:
            for name, entry in source.content.items():
                self.budget.spend(entry.start, depth)
                entries.setdefault(name, entry)
        return entries

    def key(self, event: Any) -> str:
        """Keys are text as written: ``on``, ``1`` and ``null`` are names like any other."""
        start = event.start_mark.index
        if isinstance(event, yaml.AliasEvent):
            content = self.aliased(event).content
        elif isinstance(event, yaml.ScalarEvent) and event.tag is None:
            content = event.value
            if event.anchor is not None:
                self.anchors[event.anchor] = Node(content, start)
        else:
            content = None
        if not isinstance(content, str) or (content == "" and not getattr(event, "style", None)):
            raise self.error(event, "a key is a short text such as pipelines, quoted if it contains special characters")
        return content

    def merged(self, node: Node) -> list[Node]:
        """The mappings that ``<<`` names; the first one wins."""
        sources = node.content if isinstance(node.content, list) else [node]
        for source in sources:
            if not isinstance(source.content, dict):
                raise self.file.unreadable(node.start, "<< takes a mapping or a list of mappings")
        return sources
