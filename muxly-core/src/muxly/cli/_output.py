"""What commands answer: tables for people and JSON for programs, on stdout."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from muxly.cli._errors import abandon, coloured, is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SHORT = 60


class Table(NamedTuple):
    """Rows under headings; a tuple and no attrs class, so that ``muxly --help`` need not import attrs.

    Args:
        columns: The headings.
        rows: One text for each heading; numbers are set right.
        title: Stands above it.
        numbers: Headings of the columns that hold numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    numbers: frozenset[str] = frozenset()

    def plain(self) -> str:
        """The table as text, two spaces between columns."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[number]) for line in lines) for number in range(len(self.columns))]
        shown = ["  ".join(self._cells(line, widths)).rstrip() for line in lines]
        return "\n".join([*([self.title] if self.title else []), *shown])

    def _cells(self, line: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
        for name, text, width in zip(self.columns, line, widths, strict=True):
            yield text.rjust(width) if name in self.numbers else text.ljust(width)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A table of any values; None is shown as a dash, columns of numbers are set right."""
    held = [tuple(row) for row in rows]
    places = range(len(columns))
    numbers = {columns[at] for at in places if held and all(type(row[at]) in (int, type(None)) for row in held)}
    texts = tuple(tuple(_shown(cell) for cell in row) for row in held)
    return Table(tuple(columns), texts, title, numbers=frozenset(numbers))


def _shown(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:,}" if type(value) is int else " ".join(str(value).split())


def write(text: str) -> None:
    """Write text to stdout; a reader that has seen enough is no error, and what runs goes on."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        abandon(sys.stdout)


def write_table(shown: Table) -> None:
    """Write a table: drawn on a terminal, plain text elsewhere."""
    if is_terminal(sys.stdout) or (coloured(sys.stdout) and os.environ.get("FORCE_COLOR")):
        write(drawn(shown))
    else:
        write(shown.plain())


def drawn(table: Table) -> str:
    """A table with lines and colours, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    console = Console(file=sys.stdout, force_terminal=True, no_color=not coloured(sys.stdout))
    drawing = Drawing(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in table.columns:
        drawing.add_column(Text(name), justify="right" if name in table.numbers else "left", overflow="fold")
    for row in table.rows:
        drawing.add_row(*(Text(cell) for cell in row))
    with console.capture() as capture:
        if table.title:
            console.print(Text(table.title, style="bold"))
        console.print(drawing)
    return capture.get().rstrip("\n")


def write_json(value: Any, *, one_line: bool = False) -> None:
    """Write JSON; times become ISO 8601, and what JSON cannot say becomes text."""
    import json

    write(json.dumps(value, ensure_ascii=False, default=_as_json, indent=None if one_line else 2))


def _as_json(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def write_listing(columns: Sequence[str], found: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Write a listing.

    Args:
        columns: Keys to show as columns; JSON holds all of them.
        found: What is listed.
        as_json: Whether as a JSON array.
        empty: What people are told if there is nothing.
    """
    if as_json:
        write_json(list(found))
    elif found:
        headings = [one.replace("_", " ") for one in columns]
        write_table(table(headings, [[_cell(one.get(key)) for key in columns] for one in found]))
    else:
        from muxly.cli._errors import current_messages

        current_messages().say("info", empty)


def _cell(value: Any) -> object:
    """A value as a person reads it: times to the second, lists with commas."""
    if hasattr(value, "isoformat"):
        return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "hour") else value.isoformat()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value


def short_json(value: Any) -> str | None:
    """A value, such as a cursor, as JSON of one short line; None stays None."""
    import json

    text = None if value is None else json.dumps(value, ensure_ascii=False)
    return text if text is None or len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
