"""``muxly completion``: completion of commands by the shell."""

from __future__ import annotations

import click

from muxly.cli._command import Command
from muxly.cli._output import write


@click.command(
    cls=Command,
    name="completion",
    examples="""
        muxly completion bash > ~/.local/share/bash-completion/completions/muxly
        muxly completion zsh > "${fpath[1]}/_muxly"
        muxly completion fish > ~/.config/fish/completions/muxly.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Write the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from muxly.cli._app import app

    kind = get_completion_class(shell)
    assert kind is not None
    write(kind(app, {}, "muxly", "_MUXLY_COMPLETE").source())
