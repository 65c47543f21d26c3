"""What is drawn on a terminal: tables and progress, by rich."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display
from rich.table import Column
from rich.table import Table as Drawing
from rich.text import Text

from muxly.cli._errors import coloured

if TYPE_CHECKING:
    from muxly.cli._errors import Messages
    from muxly.cli._output import Table
    from muxly.cli._progress_view import Progress, RouteProgress, StreamProgress


def drawn(table: Table) -> str:
    """A table with lines and colours, as wide as the terminal."""
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


class Bars:
    """One line for each stream and each route, drawn again several times a second.

    Args:
        messages: Are put above the lines while these are drawn.
        name: The pipeline's name.
    """

    look_seconds = 0.2

    def __init__(self, messages: Messages, name: str) -> None:
        self._messages, self._name, self._write = messages, name, messages.write
        self._console = Console(stderr=True, no_color=not coloured(sys.stderr))
        self._display = Display(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._lines: dict[str, TaskID] = {}
        messages.write = lambda line: self._console.print(Text.from_ansi(line), soft_wrap=True)
        self._display.start()

    def show(self, progress: Progress) -> None:
        """Draw the lines."""
        for stream, read in progress.streams.items():
            self._draw_stream(stream, read)
        for route, come in progress.routes.items():
            self._draw_route(route, come)

    def close(self) -> None:
        """Take the lines away: the result's table says it all."""
        self._display.stop()
        self._messages.write = self._write

    def _draw_stream(self, stream: str, read: StreamProgress) -> None:
        of = f" of {read.planned:,}" if read.planned is not None else ""
        self._draw(f"{self._name} {stream}", read.read, read.planned, f"{read.read:,}{of} read")

    def _draw_route(self, route: str, come: RouteProgress) -> None:
        said = f"{come.delivered:,} delivered, {come.pending:,} waiting"
        if come.again_at:
            said = f"{said}, tries again at {come.again_at}"
        if come.error:
            said = f"[red]stopped:[/red] {Text(come.error[:80]).markup}, {come.pending:,} waiting"
        self._draw(f"{self._name} → {route}", come.delivered, come.delivered + come.pending, said)

    def _draw(self, line: str, done: int, total: int | None, said: str) -> None:
        if line not in self._lines:
            self._lines[line] = self._display.add_task(Text(line).markup, total=total, said=said)
        # A total of nothing at all is drawn as a full bar, which is what it is.
        self._display.update(self._lines[line], completed=done, total=total, said=said)
