"""The command line: ``muxly``, also ``python -m muxly``.

Nothing but click is imported before a command is known, so that ``muxly --help`` is fast.
"""

from __future__ import annotations

import gc

_GARBAGE_OBJECTS = 50_000


def main() -> None:
    """Run the command line; ends the process with an exit code of ``muxly.cli._exits``."""
    # Modules make objects that all stay: to look through them for garbage after every 700 new ones,
    # as Python does by itself, takes a tenth of a short command.
    gc.set_threshold(_GARBAGE_OBJECTS, 20, 20)
    from muxly.cli._app import app

    app.main(prog_name="muxly")
