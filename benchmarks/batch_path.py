"""The way of one batch through Muxly: the files it passes, and the generators that hand it on.

A connector yields 1,000 records once; the router ``file`` writes them as JSON Lines. From the
connector's ``yield`` to the end of the acknowledgement, every call into a Muxly distribution is
recorded, in the threads through which the batch goes (reader, committer, route):

- *files*: source files with at least one function that ran, imports aside;
- *wrappings*: generator functions that yielded the records on, as a batch, table or piece of them.

Run it as ``python benchmarks/batch_path.py``; ``--list`` names them.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa

import muxly
from muxly_routers.file import File

RECORDS = 1000
THREADS = ("muxly-read", "muxly-committer", "muxly-route")


class Once(muxly.Connector):
    """One batch of records."""

    def streams(self) -> list[muxly.Stream]:
        """The stream."""
        return [muxly.Stream("numbers", primary_key="number")]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: Any) -> Any:
        """Yield the batch; from here on its way is recorded."""
        RECORDER.begin()
        yield muxly.Batch([{"number": number, "name": f"name {number}"} for number in range(RECORDS)])


class Recorder:
    """Records calls between the connector's ``yield`` and the acknowledgement."""

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = {}
        self.generators: set[str] = set()
        self._on = False

    def begin(self) -> None:
        """Record from now on."""
        self._on = True

    def profile(self, frame: FrameType, event: str, value: Any) -> None:
        """A profile function for ``sys.setprofile``."""
        code = frame.f_code
        if not self._on or event not in ("call", "return") or "/muxly" not in code.co_filename:
            return
        if not threading.current_thread().name.startswith(THREADS):
            return
        name = code.co_filename.rpartition("/src/")[2]
        if name.startswith("/") or code.co_name in ("<module>", code.co_filename) or _importing(frame):
            return
        if "muxly" not in name.partition("/")[0] or _is_class_body(code):
            return
        self.files.setdefault(name, set()).add(code.co_qualname)
        if event == "return" and code.co_flags & inspect.CO_GENERATOR and _holds_records(value):
            self.generators.add(f"{name}:{code.co_qualname}")
        if event == "return" and name.endswith("store/acknowledge.py") and code.co_name == "acknowledge":
            self._on = False


def _is_class_body(code: Any) -> bool:
    return "__qualname__" in code.co_names and "__module__" in code.co_names


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported by this call."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        frame = frame.f_back
    return False


def _holds_records(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_holds_records(part) for part in value)
    if isinstance(value, (pa.RecordBatch, pa.Table, muxly.Batch)):
        return True
    return isinstance(getattr(value, "table", None), pa.Table)


RECORDER = Recorder()


def measured() -> Recorder:
    """Run the pipeline once under the recorder."""
    with tempfile.TemporaryDirectory() as folder:
        route = muxly.Route("out", File(path=Path(folder, "out"), format="jsonl"))
        pipeline = muxly.Pipeline("path", Once(), routes=[route])
        threading.setprofile(RECORDER.profile)
        sys.setprofile(RECORDER.profile)
        try:
            muxly.run(pipeline, home=Path(folder, "home")).raise_for_status()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    return RECORDER


if __name__ == "__main__":
    recorder = measured()
    if "--list" in sys.argv:
        for file, functions in sorted(recorder.files.items()):
            print(f"{file}: {', '.join(sorted(functions))}")
        print()
        print(*sorted(recorder.generators), sep="\n")
    print(f"{len(recorder.files)} files, {len(recorder.generators)} wrappings")
