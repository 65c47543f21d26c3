"""The click application: its commands, the options that all of them share, and the end of each."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from muxly.cli._output import ExitCode, Messages, code_of_error, discard_output, known_names_hint, messages_of

Callback = Callable[..., Any]


class Command(click.Command):
    """A command whose help shows examples before it explains.

    Args:
        *args: Arguments of ``click.Command``.
        examples: Command lines, without a prompt.
        **settings: Arguments of ``click.Command``.
    """

    def __init__(self, *args: Any, examples: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = inspect.cleandoc(examples)
        self.params += shared_options(hidden=True)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with the records of Python's ``logging`` among our messages."""
        with _forwarded_logging(messages_of(ctx)):
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
        """Insert the default command if none is named."""
        options_only = all(word.startswith("-") for word in args) and not {"-h", "--help"} & {*args}
        if self._default is not None and options_only:
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first paragraph, the examples, the rest."""
        format_text(self.help or "", self.examples, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole first sentence."""
        lines = [
            (name, inspect.cleandoc(command.help or "").partition("\n")[0]) for name, command in self.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(lines)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of a name; for an unknown one, an error that suggests the nearest."""
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
    """Refuse a word that is not a command.

    Raises:
        UsageError: It is none; the message suggests the nearest.
    """
    known = group.list_commands(ctx)
    if args and not args[0].startswith("-") and args[0] not in known:
        hint = known_names_hint(args[0], known)
        ctx.fail(f"there is no command {args[0]!r}; {hint}")


def shared_options(*, hidden: bool) -> list[click.Parameter]:
    """``-q``, ``-v`` and ``--log-format``, before the command and after it.

    Args:
        hidden: Whether help leaves them out: ``muxly --help`` shows them once for all.
    """
    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, hidden=hidden, callback=_quiet,
            help="Show only results and errors.",
        ),
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, hidden=hidden, callback=_verbose,
            help="Show more; twice: tracebacks too (like MUXLY_DEBUG=1).",
        ),
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), expose_value=False, hidden=hidden,
            callback=_format, help="Format of messages on stderr.  [default: text]",
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


class _LoggingForwarder(logging.Handler):
    """Writes the records of ``logging`` as our messages."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        levels = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))
        level = next((name for least, name in levels if record.levelno >= least), "debug")
        self._messages.say(level, record.getMessage(), logger=record.name)  # type: ignore[arg-type]


@contextmanager
def _forwarded_logging(messages: Messages) -> Iterator[None]:
    """Write the records of ``logging``, of plugins too, as messages while a command runs."""
    root, listener = logging.getLogger(), _LoggingForwarder(messages)
    level = root.level
    root.addHandler(listener)
    root.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(messages.verbosity, logging.DEBUG))
    try:
        yield
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


COMMANDS: dict[str, dict[str, str]] = {
    "Begin": {
        "init": "Write a small pipeline that runs at once.",
        "plugins": "List the installed connectors and routers.",
        "streams": "List the streams that a connector has.",
    },
    "Run": {
        "check": "Check the connector and every router, without reading or writing records.",
        "plan": "Show what a run would read and deliver.",
        "run": "Read what is new, deliver it on every route.",
        "replay": "Deliver again from the spool, without reading the source.",
    },
    "Inspect and repair": {
        "runs": "Past runs and their results.",
        "state": "How far each stream has been read.",
        "routes": "How far each route has delivered; rename or discard a route.",
        "segments": "What the spool holds; drop damaged segments.",
        "dead-letters": "Records that could not be read or delivered.",
    },
    "Set up": {
        "config": "Validate, show and explain the configuration; its JSON Schema.",
        "db": "The store: its revision, its upgrade, its integrity.",
        "completion": "Command completion for your shell.",
    },
}
EXAMPLES = """\
muxly init demo && muxly run demo/muxly.yaml
muxly run                            # every pipeline of ./muxly.yaml
muxly run pipelines.yaml daily --select 'deals*' --route lake
muxly replay --route lake            # fill a new route from the spool
"""
_DESCRIPTIONS = {name: text for section in COMMANDS.values() for name, text in section.items()}


class App(click.Group):
    """The group of all commands; a command's module is imported when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(_DESCRIPTIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; imports its module."""
        import importlib

        if cmd_name not in _DESCRIPTIONS or cmd_name in self.commands:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"muxly.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of a name; for an unknown one, an error that suggests the nearest."""
        refuse_unknown(self, ctx, args)
        return super().resolve_command(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A description of Muxly, and examples."""
        format_text(self.help or "", EXAMPLES, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All commands by purpose, without importing one."""
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names of commands, for the shell."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name, help=text) for name, text in _DESCRIPTIONS.items() if name.startswith(incomplete)]

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and end the process.

        Args:
            args: The arguments; default those of the process.
            prog_name: The program's name in help texts.
            **extra: Further arguments of ``click.Group.main``.
        """
        messages = Messages()
        extra = {"obj": messages, **extra, "standalone_mode": False}
        try:
            code = super().main(args=args, prog_name=prog_name or "muxly", **extra)
        except click.ClickException as error:
            code = _report_usage_error(error, messages)
        except (click.Abort, KeyboardInterrupt):
            code = ExitCode.INTERRUPTED
        except BrokenPipeError:
            code = ExitCode.DELIVERED
        except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence and no traceback
            code = _report_failure(error, messages)
        _exit(code)


def _report_usage_error(error: click.ClickException, messages: Messages) -> int:
    """Report what is wrong with the command line, and where examples are."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "muxly"
    messages.say("error", f"{error.format_message()}\nsee `{path} --help`")
    return error.exit_code


def _report_failure(error: Exception, messages: Messages) -> ExitCode:
    """Report what went wrong, and how to learn more about it."""
    from muxly.errors import MuxlyError

    if isinstance(error, MuxlyError):
        if messages.tracebacks:
            messages.trace(error)
        messages.say("error", str(error))
    else:
        description = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        messages.say("error", f"unexpected {description}")
        messages.trace(error)
    return code_of_error(error)


def _exit(code: object) -> NoReturn:
    """End the process after flushing stdout; a reader that closed the pipe is not an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output(sys.stdout)
    sys.exit(code if isinstance(code, int) else ExitCode.DELIVERED)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"muxly {version('muxly-core')}")
        ctx.exit()


def _refuse_no_command(ctx: click.Context) -> None:
    """Write help to stderr: asking for help is an answer, but a missing command is a mistake."""
    click.echo(ctx.get_help(), err=True)
    ctx.exit(ExitCode.USAGE)


@click.command(
    cls=App,
    name="muxly",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="-q, -v and --log-format are also accepted after a command. `muxly COMMAND --help` shows its examples.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Read records once, deliver them everywhere, lose nothing."""
    messages_of(ctx)
    if ctx.invoked_subcommand is None:
        _refuse_no_command(ctx)


app.params += shared_options(hidden=False)


@app.command(
    "completion",
    cls=Command,
    examples="""
        muxly completion bash > ~/.local/share/bash-completion/completions/muxly
        muxly completion zsh > "${fpath[1]}/_muxly"
        muxly completion fish > ~/.config/fish/completions/muxly.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Write the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from muxly.cli._output import write

    kind = get_completion_class(shell)
    assert kind is not None
    write(kind(app, {}, "muxly", "_MUXLY_COMPLETE").source())
