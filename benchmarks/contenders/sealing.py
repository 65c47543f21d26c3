"""Runs the fan-out in this process and prints, as JSON, what sealing took of it.

The committer makes groups durable and seals them while the reader reads on and the routes
deliver, so its wall time is an upper bound of what a run would save without it. With `--no-sync`
the same run leaves out every fsync: the difference of two such runs is what durability costs.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import muxly
from muxly._runner.extract.committer import Committer
from muxly.spool.segments import SegmentWriter


class Clock:
    """Adds up the wall and CPU seconds of calls, on all threads."""

    def __init__(self) -> None:
        self.wall_seconds = self.cpu_seconds = 0.0
        self._lock = threading.Lock()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*given, **named)
            finally:
                with self._lock:
                    self.wall_seconds += time.perf_counter() - wall
                    self.cpu_seconds += time.thread_time() - cpu

        return timed


def measured(configuration: Path, *, sync: bool) -> dict[str, float]:
    sealing, spooling = Clock(), Clock()
    Committer._commit = sealing.around(Committer._commit)  # type: ignore[method-assign]
    SegmentWriter._add = spooling.around(SegmentWriter._add)  # type: ignore[method-assign]
    if not sync:
        os.fsync = lambda descriptor: None  # type: ignore[assignment]
    wall, cpu = time.perf_counter(), time.process_time()
    muxly.run(configuration).raise_for_status()
    return {
        "run_wall_seconds": time.perf_counter() - wall,
        "run_cpu_seconds": time.process_time() - cpu,
        "sealing_wall_seconds": sealing.wall_seconds,
        "sealing_cpu_seconds": sealing.cpu_seconds,
        "spooling_wall_seconds": spooling.wall_seconds,
        "spooling_cpu_seconds": spooling.cpu_seconds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--no-sync", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(measured(arguments.configuration, sync=not arguments.no_sync)))
