"""A process that forks a child for each command line of ``muxly``, and imports what its children imported.

So a command is a process of its own, as its user has it, but need not load the same libraries again. It
reads one JSON object a line from stdin and answers with an exit code on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field

from tests.integration.killed_process import import_too

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@define
class Commands:
    """The process, as long as the block lasts."""

    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.integration.forked_commands"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, words: Sequence[str], folder: Path, environ: Mapping[str, str], said: Path) -> int:
        """Run a command.

        Args:
            words: What comes after ``muxly``.
            folder: Where it works.
            environ: Its environment.
            said: The file that its stdout and stderr are written to.

        Returns:
            Its exit code.
        """
        order = {"words": words, "folder": str(folder), "environ": dict(environ), "said": str(said)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def become(order: dict[str, Any], telling: int) -> None:
    """Be that command, and tell at its end which modules it has imported; ends the process."""
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, order["said"], os.O_WRONLY | os.O_CREAT)):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    # The folder that `python -m` put first is not on the path of a command.
    sys.path[:1] = [one for one in order["environ"].get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.argv = ["muxly", *order["words"]]

    from muxly.cli import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 (whatever it is, it belongs to what the command said)
        traceback.print_exc()
    os.write(telling, json.dumps(sorted(sys.modules)).encode())
    sys.stdout.flush()
    os._exit(code)  # without taking apart all that was loaded, which takes as long as the command


def serve() -> None:
    """Serve orders until stdin ends. No thread is started: all children are forks."""
    for line in sys.stdin:
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            become(json.loads(line), telling)
        os.close(telling)
        with os.fdopen(told) as modules:
            imported = modules.read()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        import_too(json.loads(imported or "[]"))


if __name__ == "__main__":
    serve()
