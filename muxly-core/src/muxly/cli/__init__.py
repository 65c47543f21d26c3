"""The command line: ``muxly``, also ``python -m muxly``.

Nothing but click is imported before a command is known, so that ``muxly --help`` is fast.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

_GARBAGE_OBJECTS = 50_000


def main() -> None:
    """Run the command line; ends the process with an ``ExitCode`` of ``muxly.cli._output``."""
    # Modules make objects that all stay: to look through them for garbage after every 700 new ones, as
    # Python does by itself, and once more at the end, takes a fifth of a short command.
    gc.set_threshold(_GARBAGE_OBJECTS, 20, 20)
    atexit.register(_leave_garbage)
    if sys.platform == "linux":
        # Segments are made on one thread and read on others. Arrow's own choice keeps what each thread has
        # freed; this one gives it back, so that a long run needs no more memory than a short one.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    from muxly.cli._app import app

    app.main(prog_name="muxly")


def _leave_garbage() -> None:
    # DuckDB takes what is left at the end for a leak, and prints a page about it.
    if "duckdb" not in sys.modules:
        gc.freeze()
