"""Commands as click knows them: help that leads with examples, and options that may stand anywhere."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from muxly.cli._errors import Messages, messages_of

Callback = Callable[..., Any]


class Command(click.Command):
    """A command whose help shows examples before it explains.

    Args:
        *args: What click takes.
        examples: Command lines, without a prompt.
        **settings: What click takes.
    """

    def __init__(self, *args: Any, examples: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = inspect.cleandoc(examples)
        self.params += shared_options(hidden=True)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with the messages of Python's ``logging`` beside our own."""
        with _listening(messages_of(ctx)):
            return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first paragraph, the examples, the rest."""
        format_text(self.help or "", self.examples, formatter)


class Group(click.Group):
    """Commands that belong together; the one named ``default`` runs when none is named."""

    command_class = Command

    def __init__(self, *args: Any, examples: str = "", default: str | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples, self._default = inspect.cleandoc(examples), default
        self.params += shared_options(hidden=True)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of their definition."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in, if no word names one."""
        options_only = all(word.startswith("-") for word in args) and not {"-h", "--help"} & {*args}
        if self._default is not None and options_only:
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first paragraph, the examples, the rest."""
        format_text(self.help or "", self.examples, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole first sentence."""
        lines = [(name, inspect.cleandoc(one.help or "").partition("\n")[0]) for name, one in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(lines)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of a name; of an unknown one the nearest is told."""
        refuse_unknown(self, ctx, args)
        return super().resolve_command(ctx, args)


def format_text(text: str, examples: str, formatter: click.HelpFormatter) -> None:
    """Write the first paragraph, the examples, and the rest of a help text."""
    first, _, rest = inspect.cleandoc(text).partition("\n\n")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(first)
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"{' ' * formatter.current_indent}{line}\n" for line in examples.splitlines()))
    if rest:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(rest)


def refuse_unknown(group: click.Group, ctx: click.Context, args: list[str]) -> None:
    """Refuse a word that is no command.

    Raises:
        UsageError: It is none; the message names the nearest one.
    """
    from muxly.suggest import suggest

    known = group.list_commands(ctx)
    if args and not args[0].startswith("-") and args[0] not in known:
        close = suggest(args[0], known)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(known)}"
        ctx.fail(f"there is no command {args[0]!r}; {hint}")


def shared_options(*, hidden: bool) -> list[click.Parameter]:
    """``-q``, ``-v`` and ``--log-format``, before the command and after it.

    Args:
        hidden: Whether help leaves them out: ``muxly --help`` shows them once for all.
    """
    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, hidden=hidden, callback=_quiet,
            help="Say nothing but results and errors.",
        ),
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, hidden=hidden, callback=_verbose,
            help="Say more; twice: tracebacks too (as MUXLY_DEBUG=1).",
        ),
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), expose_value=False, hidden=hidden,
            callback=_format, help="How messages on stderr are written.  [default: text]",
        ),
    ]  # fmt: skip


def _quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        messages_of(ctx).verbosity = -1


def _verbose(ctx: click.Context, _param: click.Parameter, value: int) -> None:
    if value:
        messages_of(ctx).verbosity = value


def _format(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        messages_of(ctx).as_json = value == "json"


class _Listener(logging.Handler):
    """Gives the records of ``logging`` to our messages."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        levels = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
        level = next((name for least, name in levels if record.levelno >= least), "debug")
        self._messages.say(level, record.getMessage(), logger=record.name)  # type: ignore[arg-type]


@contextmanager
def _listening(messages: Messages) -> Iterator[None]:
    """Take in the records of ``logging``, of plugins too, while a command runs."""
    root, listener = logging.getLogger(), _Listener(messages)
    level = root.level
    root.addHandler(listener)
    root.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(messages.verbosity, logging.DEBUG))
    try:
        yield
    finally:
        root.removeHandler(listener)
        root.setLevel(level)
