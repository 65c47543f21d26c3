"""Where the records of CSV text begin and end; pure functions of bytes."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 64


@frozen
class Span:
    """One record in a block: its bytes without the line end, and the line it starts on, from 0."""

    start: int
    end: int
    line: int


def lines_in(data: bytes) -> int:
    """How many line ends there are; a lone CR is one only in text that has no LF."""
    return data.count(b"\n") or data.count(b"\r")


def last_line_end(block: bytes, start: int = 0, stop: int | None = None) -> int:
    """The index after the last line end, or -1."""
    stop = len(block) if stop is None else stop
    end = block.rfind(b"\n", start, stop)
    if end < 0 and (end := block.rfind(b"\r", start, stop)) == len(block) - 1:
        # The LF that belongs to this CR may follow in the next block.
        end = block.rfind(b"\r", start, end) if end >= 0 else -1
    return end + 1 if end >= 0 else -1


def last_record_end(block: bytes, delimiter: bytes, quote: bytes) -> int:
    """The index after the last complete record of a block that starts with a record, or -1.

    A quote opens a quoted cell only where a cell begins, and is doubled inside one; elsewhere
    it is an ordinary letter (RFC 4180, read as leniently as Arrow does).
    """
    if not quote or quote not in block:
        return last_line_end(block)
    edge = last_line_end(block)
    if edge < 0:
        return -1
    start = _outside(block, edge, delimiter, quote)
    cut = _cut(block, start, delimiter, quote)
    return _cut(block, 0, delimiter, quote) if cut < 0 and start else cut


def _cut(block: bytes, start: int, delimiter: bytes, quote: bytes) -> int:
    """The index after the last record end behind an index that lies outside quotes, or -1."""
    cut, last = -1, start
    for opened, closed in _quoted(block, start, delimiter, quote):
        if (end := last_line_end(block, last, opened)) >= 0:
            cut = end
        if closed < 0:
            return cut
        last = closed
    return max(cut, last_line_end(block, last))


def _outside(block: bytes, edge: int, delimiter: bytes, quote: bytes) -> int:
    """An index late in the block that surely lies outside quotes, inside a cell; else 0.

    A quote between an ordinary letter and something else than a quote ends a quoted cell if
    one is open, and is a letter if none is: either way the bytes after it are outside.
    """
    edges = quote + delimiter + b"\r\n"
    at = edge
    for _ in range(_TRIES):
        at = block.rfind(quote, 0, at)
        if at <= 0:
            return 0
        if block[at - 1] not in edges and block[at + 1 : at + 2] not in {quote, b""}:
            return at + 1
    return 0


def _quoted(block: bytes, start: int, delimiter: bytes, quote: bytes) -> Iterator[tuple[int, int]]:
    """The quoted cells from an index outside quotes on: begin, and end or -1 if never closed."""
    edges = delimiter + b"\r\n"
    at = start
    while (at := block.find(quote, at)) >= 0:
        if at and block[at - 1] not in edges:
            at += 1
            continue
        opened, at = at, _closing(block, at + 1, quote)
        yield opened, at
        if at < 0:
            return


def _closing(block: bytes, at: int, quote: bytes) -> int:
    """The index after the quote that ends a cell, or -1."""
    while (at := block.find(quote, at)) >= 0:
        if block[at + 1 : at + 2] != quote:
            return at + 1
        at += 2
    return -1


def spans(block: bytes, delimiter: bytes, quote: bytes, *, blank_lines: bool, most: int = sys.maxsize) -> list[Span]:
    """Every record of a block of whole records, in order.

    Args:
        block: Starts with a record.
        delimiter: One byte.
        quote: One byte, or empty = cells are never quoted.
        blank_lines: Whether an empty line is a record.
        most: How many records are wanted.
    """
    record = _record(delimiter, quote)
    newline = b"\n" if b"\n" in block else b"\r"
    found: list[Span] = []
    start, line = 0, 0
    while start < len(block) and len(found) < most:
        matched = record.match(block, start)
        assert matched is not None
        if matched.end(1) > start or blank_lines:
            found.append(Span(start, matched.end(1), line))
        line += block.count(newline, start, matched.end())
        start = matched.end()
    return found


@lru_cache(maxsize=16)
def _record(delimiter: bytes, quote: bytes) -> re.Pattern[bytes]:
    edge, mark = re.escape(delimiter), re.escape(quote)
    plain = b"[^%s\r\n]*+" % edge
    cell = b"(?:%(q)s[^%(q)s]*+(?:%(q)s%(q)s[^%(q)s]*+)*+(?:%(q)s|\\Z))?+" % {b"q": mark} + plain if quote else plain
    return re.compile(b"(%s(?:%s%s)*+)(?:\r\n|\n|\r|\\Z)" % (cell, edge, cell))
