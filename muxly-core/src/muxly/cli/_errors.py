"""What commands say beside their result: on stderr, as text or as lines of JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Callable

Level = Literal["debug", "info", "warning", "error"]
_LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
_COLOURS = {"warning": "yellow", "error": "red"}


class Messages:
    """Messages to people, as loud as ``-q`` and ``-v`` say.

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
        """Say something.

        Args:
            level: How important it is.
            message: One sentence; several lines if each stands for itself.
            **facts: What else the line of JSON holds.
        """
        if self.shows(level):
            self.write(self._json(level, message, facts) if self.as_json else _text(level, message))

    def trace(self, error: BaseException) -> None:
        """Show where an error comes from, or say how that is shown."""
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
    """The messages of the command that runs."""
    return ctx.ensure_object(Messages)


def current_messages() -> Messages:
    """The same, without a context at hand."""
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


def abandon(stream: Any) -> None:
    """Send what is still written to a stream nowhere: its reader went away, and Python flushes as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def coloured(stream: Any) -> bool:
    """Whether colours belong into a stream: NO_COLOR and FORCE_COLOR decide, else whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"
