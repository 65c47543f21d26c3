"""Measures a command as a whole tree of processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from attrs import frozen

SAMPLE_SECONDS = 0.05
_ERROR_CHARACTERS = 4000


@frozen(kw_only=True)
class Measured:
    """What one command took.

    Args:
        cpu_seconds: User and system, of the process and all its descendants.
        wall_seconds: From start to end.
        peak_bytes: The greatest memory of the tree: the sum over its processes, looked at every
            50 ms, or the kernel's own peak of the greatest process, if that is more.
        output: What it printed on its standard output.
    """

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    output: str


class _Watch:
    """Looks at the memory of a tree of processes until it is told to stop."""

    def __init__(self, process: int) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process(process)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self.peak_bytes

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._tree_bytes())

    def _tree_bytes(self) -> int:
        try:
            tree = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        return sum(_resident(one) for one in tree)


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    """Run a command to its end.

    Args:
        command: The program, by its path, with its arguments.
        folder: Where it works.
        environment: Added to this process's own.

    Raises:
        RuntimeError: It did not exit with 0; quotes the end of what it printed.
    """
    with (folder / "output.txt").open("w+b") as output, (folder / "errors.txt").open("w+b") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **environment},
        )
        watch = _Watch(process.pid)
        # Only wait4 tells what this one child used, with the descendants that it waited for.
        _pid, status, used = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampled = watch.stop()
        output.seek(0)
        printed = output.read().decode(errors="replace")
        if process.returncode:
            errors.seek(0)
            said = printed + errors.read().decode(errors="replace")
            raise RuntimeError(f"{command} ended with {process.returncode}: {said[-_ERROR_CHARACTERS:]}")
    return Measured(
        cpu_seconds=used.ru_utime + used.ru_stime,
        wall_seconds=wall_seconds,
        peak_bytes=max(sampled, used.ru_maxrss * 1024),
        output=printed,
    )
