"""The output of commands: results on stdout, messages on stderr, and the exit code.

Everything heavier than click is imported where it is used: every command line imports this module, ``--help`` too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

if TYPE_CHECKING:
    from muxly.pipeline import RouteResult, RunResult


_SHORT = 60


class TextTable(NamedTuple):
    """Rows under headings; a tuple and not an attrs class, so that ``muxly --help`` need not import attrs.

    Args:
        columns: The headings.
        rows: One text for each heading; numbers are aligned right.
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


def text_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> TextTable:
    """A table of any values; None is shown as a dash, columns of numbers are aligned right."""
    held = [tuple(row) for row in rows]
    indexes = range(len(columns))
    numbers = {columns[at] for at in indexes if held and all(type(row[at]) in (int, type(None)) for row in held)}
    texts = tuple(tuple(_cell_text(cell) for cell in row) for row in held)
    return TextTable(tuple(columns), texts, title, numbers=frozenset(numbers))


def _cell_text(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:,}" if type(value) is int else " ".join(str(value).split())


def write(text: str) -> None:
    """Write text to stdout; a reader that closed the pipe is not an error, and the command continues."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output(sys.stdout)


def write_table(shown: TextTable) -> None:
    """Write a table: drawn on a terminal, plain text elsewhere."""
    if is_terminal(sys.stdout) or (coloured(sys.stdout) and os.environ.get("FORCE_COLOR")):
        write(draw_table(shown))
    else:
        write(shown.plain())


def draw_table(table: TextTable) -> str:
    """A table with lines and colours, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, force_terminal=True, no_color=not coloured(sys.stdout))
    drawing = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
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
    """Write JSON; times become ISO 8601, and what JSON cannot express becomes text."""
    import json

    write(json.dumps(value, ensure_ascii=False, default=_as_json, indent=None if one_line else 2))


def _as_json(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def write_listing(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Write a listing.

    Args:
        columns: Keys to show as columns; JSON holds all of them.
        rows: What is listed.
        as_json: Whether as a JSON array.
        empty: The message if there is nothing.
    """
    if as_json:
        write_json(list(rows))
    elif rows:
        headings = [column.replace("_", " ") for column in columns]
        write_table(text_table(headings, [[_display_value(row.get(key)) for key in columns] for row in rows]))
    else:
        current_messages().say("info", empty)


def _display_value(value: Any) -> object:
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


Level = Literal["debug", "info", "warning", "error"]
_LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
_COLOURS = {"warning": "yellow", "error": "red"}


class Messages:
    """Messages on stderr, as many as ``-q`` and ``-v`` allow.

    Args:
        verbosity: -1 = errors only, 0 = notices too, 1 = details too, 2 = tracebacks too.
        as_json: Whether each message is a line of JSON.
    """

    def __init__(self, *, verbosity: int = 0, as_json: bool = False) -> None:
        self.verbosity, self.as_json = verbosity, as_json
        self.write: Callable[[str], None] = _write
        """Where a finished line goes; a live display puts it above itself."""

    @property
    def tracebacks(self) -> bool:
        """Whether the user wants to see them."""
        return self.verbosity >= 2 or os.environ.get("MUXLY_DEBUG", "") not in {"", "0"}

    def shows(self, level: Level) -> bool:
        """Whether messages of a level are shown."""
        least = {-1: "error", 0: "info"}.get(max(self.verbosity, -1), "debug")
        return _LEVELS.index(level) >= _LEVELS.index(least)

    def say(self, level: Level, message: str, **facts: Any) -> None:
        """Write a message if its level is shown.

        Args:
            level: How important it is.
            message: One sentence; or several lines, each of which is one.
            **facts: Further keys of the line of JSON.
        """
        if self.shows(level):
            self.write(self._json(level, message, facts) if self.as_json else _text(level, message))

    def trace(self, error: BaseException) -> None:
        """Write the traceback of an error, or a hint at how to see it."""
        if self.tracebacks:
            import traceback

            self.write("".join(traceback.format_exception(error)).rstrip())
        elif self.shows("warning"):
            self.say("info", f"MUXLY_DEBUG=1 shows where the {type(error).__name__} comes from")

    def _json(self, level: Level, message: str, facts: dict[str, Any]) -> str:
        import json
        from datetime import UTC, datetime

        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"at": at, "level": level, "message": message}
        return json.dumps({**line, **{key: value for key, value in facts.items() if value is not None}}, default=str)


def messages_of(ctx: click.Context) -> Messages:
    """The messages of the command of a click context."""
    return ctx.ensure_object(Messages)


def current_messages() -> Messages:
    """The messages of the current click context."""
    return messages_of(click.get_current_context())


def _text(level: Level, message: str) -> str:
    if level not in _COLOURS:
        return message
    mark = f"{level}: "
    shown = click.style(mark, fg=_COLOURS[level], bold=True) if coloured(sys.stderr) else mark
    return shown + message


def _write(line: str) -> None:
    import contextlib

    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def known_names_hint(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    from muxly.suggest import suggest

    names = list(known)
    close = suggest(name, names)
    return f'did you mean "{close}"?' if close else f"known: {', '.join(names) or 'none'}"


def discard_output(stream: Any) -> None:
    """Discard what is still written to a stream: its reader has closed it, and Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def coloured(stream: Any) -> bool:
    """Whether a stream gets colours: NO_COLOR and FORCE_COLOR decide, else whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DELIVERED = 0
    """Everything that is required was delivered; of other commands: done."""
    FAILED = 1
    """Something went wrong that none of the others covers."""
    USAGE = 2
    """The command line or the configuration is wrong; nothing was read or written."""
    PARTIAL = 3
    """A required route or a partition is behind; the next run continues from there."""
    HELD = 75
    """Another run holds the pipeline's lease; EX_TEMPFAIL of sysexits.h, so try again later."""
    INTERRUPTED = 130
    """Stopped by SIGINT (Ctrl-C); 128 + 2, as shells count."""
    TERMINATED = 143
    """Stopped by SIGTERM; 128 + 15, as shells count."""


_MOST_SEVERE_FIRST = (
    ExitCode.TERMINATED,
    ExitCode.INTERRUPTED,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.PARTIAL,
    ExitCode.HELD,
)


def most_severe(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of a command that did several things: that of the most severe outcome."""
    found = set(codes)
    return next((code for code in _MOST_SEVERE_FIRST if code in found), ExitCode.DELIVERED)


def code_of_error(error: BaseException) -> ExitCode:
    """The code of an error that ended a command."""
    from muxly.errors import ConfigurationError, LeaseHeldError, PluginError

    if isinstance(error, LeaseHeldError):
        return ExitCode.HELD
    if isinstance(error, (ConfigurationError, PluginError)):
        return ExitCode.USAGE
    return ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAILED


_STATES = {"succeeded": ExitCode.DELIVERED, "partial": ExitCode.PARTIAL, "failed": ExitCode.FAILED}
# The two sides of an account: what there was to deliver, and what became of it.
_INCOMING = {"pending_before": "waited", "sealed": "+ read", "replayed": "+ replayed"}
_OUTGOING = {
    "delivered": "= delivered",
    "rejected": "+ rejected",
    "filtered": "+ filtered",
    "dropped": "+ dropped",
    "superseded": "+ superseded",
    "quarantined": "+ quarantined",
    "pending": "+ waits",
}
_ALWAYS_SHOWN = {"pending_before", "sealed", "delivered", "pending"}


def code_of_result(result: RunResult, signalled: ExitCode | None) -> ExitCode:
    """The exit code of one run.

    Args:
        result: What it did.
        signalled: The code of the signal that stopped it, if one did.
    """
    if result.state == "stopped":
        return signalled or ExitCode.PARTIAL
    return _STATES[result.state]


def result_as_json(result: RunResult) -> dict[str, Any]:
    """The result as JSON values; each account has ``balanced``."""
    import attrs

    shown: dict[str, Any] = attrs.asdict(result)
    for name, route in result.routes.items():
        shown["routes"][name]["balanced"] = _balanced(route)
    return shown


def _balanced(route: RouteResult) -> bool:
    return all(stream.balanced for stream in route.streams.values())


def write_result(result: RunResult, *, as_json: bool) -> None:
    """Write the result to stdout: a line of JSON, or the account of each route."""
    if as_json:
        write_json(result_as_json(result), one_line=True)
        return
    seconds = (result.finished_at - result.started_at).total_seconds()
    title = f"{result.pipeline}: {result.state} in {seconds:.1f} s (run {result.id})"
    rows = [
        (name, stream, account)
        for name, route in result.routes.items()
        for stream, account in _accounts_by_stream(route)
    ]
    if not rows:
        write(title)
        return
    keys = [*_columns_shown(_INCOMING, rows), *_columns_shown(_OUTGOING, rows)]
    headings = {**_INCOMING, **_OUTGOING}
    lines = [(name, stream, *(getattr(row, key) for key in keys)) for name, stream, row in rows]
    write_table(text_table(("route", "stream", *(headings[key] for key in keys)), lines, title))


def _accounts_by_stream(route: RouteResult) -> list[tuple[str | None, RouteResult]]:
    return list(route.streams.items()) or [(None, route)]


def _columns_shown(side: dict[str, str], rows: list[tuple[str, str | None, RouteResult]]) -> list[str]:
    return [key for key in side if key in _ALWAYS_SHOWN or any(getattr(row, key) for _name, _stream, row in rows)]


def report_errors(result: RunResult, messages: Messages) -> None:
    """Write to stderr what went wrong, and the next step."""
    reported = set()
    for name, stream in result.streams.items():
        if stream.error:
            reported.add(stream.error)
            text = _prefixed(f"stream {name!r}: ", stream.error)
            messages.say("error", f"{result.pipeline}: {text}", stream=name)
    for name, route in result.routes.items():
        if route.error:
            reported.add(route.error)
            level = "error" if route.required else "warning"
            text = _prefixed(f"route {name!r}: ", route.error)
            messages.say(level, f"{result.pipeline}: {text}", route=name)  # type: ignore[arg-type]
    if result.error and not any(_repeats(result.error, text) for text in reported):
        messages.say("error" if result.state == "failed" else "warning", f"{result.pipeline}: {result.error}")
    _report_rejected(result, messages)
    if result.resume_at is not None:
        messages.say("warning", f"{result.pipeline}: the source refuses requests until {result.resume_at.isoformat()}")


def _prefixed(name: str, error: str) -> str:
    """An error after the name of what it is about; it may begin with that name already."""
    return name + error.removeprefix(name)


def _repeats(error: str, reported: str) -> bool:
    """Whether the run's error was reported for a route or stream, there perhaps with its location in the file."""
    return reported in error or reported.endswith(error.partition(": ")[2] or error)


def _report_rejected(result: RunResult, messages: Messages) -> None:
    unread = sum(stream.rejected for stream in result.streams.values())
    refused = sum(route.rejected for route in result.routes.values())
    for count, what in ((unread, "could not be read"), (refused, "rejected by the destination")):
        if count:
            hint = "`muxly dead-letters list` shows them"
            messages.say("warning", f"{result.pipeline}: records {what}: {count:,}; {hint}")
