"""A process that runs a pipeline and kills itself before a chosen step; it forks one child for each run.

A step is whatever another process could see afterwards: a call that creates, writes, syncs, links,
renames or removes a file, or the commit of a transaction, before it and after it.

It reads one JSON object a line from stdin and answers with one on stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import muxly
from muxly_routers.file import File
from muxly_testing import FakeConnector

Run = Callable[[dict[str, Any]], dict[str, Any]]
"""What a child does with an order, and what it answers; under `modules`, what it has imported."""

AUDITED = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "sqlite3.connect")
WRAPPED = ("fsync", "fdatasync", "write", "pwrite", "writev")


class Steps:
    """Counts the steps of this process, and dies before the chosen one."""

    def __init__(self, die_before: int | None) -> None:
        self.count = 0
        self._die_before = die_before
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            if self.count == self._die_before:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1

    def install(self) -> None:
        """Watch the operating system's calls and the database's commits from here on."""
        from sqlalchemy.engine.default import DefaultDialect

        sys.addaudithook(self._audit)
        for name in WRAPPED:
            setattr(os, name, self._counted(getattr(os, name)))
        DefaultDialect.do_commit = self._counted(DefaultDialect.do_commit, after=True)  # type: ignore[method-assign]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in AUDITED or writes:
            self.step()

    def _counted(self, call: Any, *, after: bool = False) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            self.step()
            result = call(*arguments, **more)
            if after:
                self.step()
            return result

        return counted


def pipeline(folder: Path, records: int, shape: str) -> muxly.Pipeline:
    """Two streams to two routes: appended and replaced, or a day at a time."""
    routes = [
        muxly.Route("lake", File(path=folder / "lake", format="parquet"), **_modes(shape)),
        muxly.Route("lines", File(path=folder / "lines", format="jsonl"), batch={"records": 17}, **_modes(shape)),
    ]
    connector = FakeConnector(
        names=["days"] if shape == "overwrite" else ["numbers", "catalog"],
        records=records,
        partitions=2,
        batch_records=10,
        cursor_every=2,
        keyed=shape != "overwrite",
        by_day=shape == "overwrite",
        per_day=10,
    )
    streams = {} if shape == "overwrite" else {"numbers": {}, "catalog": {"read": "full"}}
    return muxly.Pipeline("killed", connector, routes=routes, streams=streams, segment_bytes=1500)


def _modes(shape: str) -> dict[str, Any]:
    return {"mode": "overwrite"} if shape == "overwrite" else {}


def run(order: dict[str, Any]) -> dict[str, Any]:
    """One run of the pipeline in this process, which may not survive it."""
    steps = Steps(order["die_before"])
    steps.install()
    result = muxly.run(
        pipeline(Path(order["folder"]), order["records"], order["shape"]), home=Path(order["folder"], "home")
    )
    return {
        "steps": steps.count,
        "state": result.state,
        "error": result.error,
        "balanced": all(
            stream.balanced for route in result.routes.values() for stream in (route, *route.streams.values())
        ),
        "pending": sum(route.pending for route in result.routes.values()),
        "delivered": {name: route.delivered for name, route in result.routes.items()},
        "sealed": {name: stream.sealed for name, stream in result.streams.items()},
        "modules": sorted(sys.modules),
    }


def in_a_child(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """Fork, run, and tell what came of it; ``{"killed": true}`` if nothing did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        tell = os.write  # before it is wrapped: the answer is no step
        try:
            tell(writing, json.dumps(run(order)).encode())
        except BaseException:  # noqa: BLE001 - the parent is told whatever it is
            tell(writing, json.dumps({"state": "raised", "error": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if answer:
        found: dict[str, Any] = json.loads(answer)
        return found
    return {"killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL}


def import_too(modules: list[str]) -> None:
    """Import what a child imported, so that the next one need not: that is most of what it would do."""
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def serve(run: Run) -> None:
    """Serve orders until stdin ends. No thread is started: all children are forks."""
    for line in sys.stdin:
        answer = in_a_child(run, json.loads(line))
        modules = answer.pop("modules", [])
        print(json.dumps(answer), flush=True)
        import_too(modules)


if __name__ == "__main__":
    serve(run)
