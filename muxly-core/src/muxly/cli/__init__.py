"""The command line: ``muxly``, also ``python -m muxly``.

Nothing but click is imported before a command is known, so that ``muxly --help`` is fast.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; ends the process with an exit code of ``muxly.cli._exits``."""
    from muxly.cli._app import app

    app.main(prog_name="muxly")
