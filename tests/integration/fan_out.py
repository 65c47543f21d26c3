"""The fan-out example as its user has it: its services started and ruled, its pipeline run, in a copy of its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

from attrs import asdict, define, field, frozen

import muxly
from tests.integration.snippets import ROOT

if TYPE_CHECKING:
    from types import TracebackType

EXAMPLE = ROOT / "docs" / "examples" / "fan-out"
ANSWER_SECONDS = 120
HEADER = "location,date,precipitation,temp_max,temp_min,wind,weather\n"


@define
class Services:
    """`start-services` as a process whose terminal we are.

    Args:
        folder: For what the destinations keep; another user must be able to come in when root tests.
        first_port: Of so many as there are services.
        without: Services that are left out.
        path: What PATH is for it; this process's own if left out.
    """

    folder: Path
    first_port: int
    without: tuple[str, ...] = ()
    path: str | None = None
    places: dict[str, str] = field(factory=dict, init=False)
    _process: subprocess.Popen[str] = field(init=False)
    _lines: Queue[str | None] = field(factory=Queue, init=False)

    def __enter__(self) -> Self:
        command = [sys.executable, str(EXAMPLE / "start-services")]
        command += ["--folder", str(self.folder), "--first-port", str(self.first_port)]
        command += [word for name in self.without for word in ("--without", name)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **({"PATH": self.path} if self.path else {})},
        )
        Thread(target=self._read, daemon=True).start()
        try:
            said = self.read_until("Ctrl-C ends everything.")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        exports = (line.split(maxsplit=1)[1] for line in said if line.strip().startswith("export "))
        self.places = {name: value for name, _, value in (one.strip().partition("=") for one in exports)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> int:
        """Ctrl-C; the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        code = self._process.wait(ANSWER_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return code

    def tell(self, command: str) -> None:
        """Type a command, and wait until it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self.read_until(f"done: {command}")

    def read_until(self, wanted: str) -> list[str]:
        """What it says up to a line that holds some text."""
        said: list[str] = []
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                line = None
            assert line is not None, f"no {wanted!r} in:\n{''.join(said)}"
            said.append(line)
            if wanted in line:
                return said

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


@frozen
class Ran:
    """How a run ended: the exit code, and the result as `--json` writes it."""

    code: int
    result: dict[str, Any]
    errors: str

    def route(self, name: str) -> dict[str, Any]:
        """The account of a route."""
        found: dict[str, Any] = self.result["routes"][name]
        return found

    def pending(self) -> dict[str, int]:
        """What waits on the routes that are behind."""
        return {name: one["pending"] for name, one in self.result["routes"].items() if one["pending"]}

    def delivered(self) -> dict[str, int]:
        """What each route delivered."""
        return {name: one["delivered"] for name, one in self.result["routes"].items()}

    def read(self) -> int:
        """How many records were read out of the source."""
        return sum(one["sealed"] for one in self.result["streams"].values())


@define
class Project:
    """A copy of the example and of the quickstart's data, in a folder of its own.

    Args:
        folder: Where the copy is made.
        environ: What its configuration is told.
    """

    folder: Path
    environ: dict[str, str]

    def __attrs_post_init__(self) -> None:
        (self.folder / "fan-out").mkdir(parents=True)
        shutil.copy(EXAMPLE / "muxly.yaml", self.folder / "fan-out")
        shutil.copytree(EXAMPLE.with_name("quickstart") / "data", self.source)

    @property
    def source(self) -> Path:
        """The folder that is read."""
        return self.folder / "quickstart" / "data"

    @property
    def out(self) -> Path:
        """Where the routes that need no server deliver."""
        return self.folder / "fan-out" / "out"

    def add_records(self, number: int, count: int) -> Path:
        """Put another file of records into the source."""
        days = (f"Oslo {number},2016-01-{day:02},1.0,1.0,-3.5,2.0,snow\n" for day in range(1, count + 1))
        path = self.source / f"weather-{number}.csv"
        path.write_text(HEADER + "".join(days))
        return path

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "fan-out" / "muxly.yaml"

    def run(self, **settings: object) -> Ran:
        """Run the pipeline here.

        Args:
            settings: Keys below the pipeline, such as ``routes__hook__retry__attempts``.
        """
        sets = [f"pipelines.weather.{key.replace('__', '.')}={value}" for key, value in settings.items()]
        with patch.dict(os.environ, self.environ):
            result = muxly.run(self.file, sets=sets)
        code = {"succeeded": 0, "failed": 1, "partial": 3}[result.state]
        routes = {name: {**asdict(one), "balanced": one.balanced} for name, one in result.routes.items()}
        streams = {name: asdict(one) for name, one in result.streams.items()}
        return Ran(code, {"routes": routes, "streams": streams}, str(result.error))

    def run_command(self) -> Ran:
        """Run the pipeline as its user does, in a process of its own."""
        done = self._command("run")
        return Ran(done.returncode, json.loads(done.stdout), done.stderr)

    def check(self) -> dict[str, str]:
        """What `muxly check` finds wrong, by route."""
        found = json.loads(self._command("check").stdout)
        return {str(one["route"]): one["error"] for one in found if one["state"] != "ok"}

    def _command(self, name: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "muxly", name, str(self.file), "--json"],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environ},
            timeout=ANSWER_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout, done.stderr
        return done
