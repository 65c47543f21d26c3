"""The works that are measured: who does what, with which commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import field, frozen

CONTENDERS = Path(__file__).absolute().parent / "contenders"
FORMATS = ("parquet", "jsonl", "arrow")
DLT_FORMATS = ("parquet", "jsonl", "parquet")
"""dlt writes no Arrow files, so that its third run writes Parquet again."""

ENVIRONMENT = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    # Otherwise dlt compresses JSON Lines, which the others do not.
    "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
    "NO_COLOR": "1",
    # A user's interpreter keeps its bytecode, and so do these.
    "PYTHONDONTWRITEBYTECODE": "",
}


def _commands(given: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(one) for one in given)


@frozen(kw_only=True)
class Contender:
    """One way to do a work.

    Args:
        name: Shown in the table.
        folder: Where it works; emptied before each time, unless it continues.
        commands: Run one after the other. Their CPU seconds are added, the greatest peak counts.
        files: Written into the folder first, by name.
        continues: It is done once, uncounted, and each time continues from what is there.
        before: Called before each time, uncounted, with its number; None = the uncounted first.
        server_cpu_seconds: What the server that it uses has used so far.
    """

    name: str
    folder: Path
    commands: tuple[tuple[str, ...], ...] = field(converter=_commands)
    files: dict[str, str] = field(factory=dict)
    continues: bool = False
    before: Callable[[int | None], None] = lambda number: None
    server_cpu_seconds: Callable[[], float] | None = None

    def begin(self) -> None:
        """Make its folder as if nothing had happened yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in self.files.items():
            (self.folder / name).write_text(content, encoding="utf-8")


@frozen(kw_only=True)
class Work:
    """One work, done by each contender in turn.

    Args:
        key: Its name in the JSON.
        title: Shown above its table.
        contenders: Who does it.
        times: How often each does it.
        before: Called once, before all.
    """

    key: str
    title: str
    contenders: tuple[Contender, ...]
    times: int
    before: Callable[[], None] = lambda: None


@frozen(kw_only=True)
class Tools:
    """Where everything is.

    Args:
        muxly: The environment with Muxly.
        dlt: The environment with dlt; None = it is not measured.
        folder: For the records, and what is made of them.
    """

    muxly: Path
    dlt: Path | None
    folder: Path

    def program(self, name: str) -> str:
        """A program of Muxly's environment."""
        return str(self.muxly / "bin" / name)

    def dlt_program(self, name: str) -> str:
        """A program of dlt's environment."""
        assert self.dlt is not None
        return str(self.dlt / "bin" / name)

    def source(self, count: int) -> Path:
        """The file with so many records."""
        return self.folder / f"{count}.parquet"

    def arrow(self, count: int) -> Path:
        """The same records, as Arrow."""
        return self.folder / f"{count}.arrow"


def fan_out(tools: Tools, count: int, times: int, *, with_dlt: bool) -> Work:
    """Parquet, read once, to Parquet, JSON Lines and Arrow."""
    contenders = [muxly_fan_out(tools, count), _bare(tools, count)]
    if with_dlt and tools.dlt is not None:
        contenders.append(_dlt_fan_out(tools, count))
    title = f"{count:,} records x 12 columns, Parquet to Parquet + JSON Lines + Arrow"
    return Work(key=f"fan_out_{count}", title=title, contenders=tuple(contenders), times=times)


def muxly_fan_out(tools: Tools, count: int) -> Contender:
    """One run of Muxly with three routes."""
    return Contender(
        name="Muxly, one run",
        folder=tools.folder / f"muxly-{count}",
        commands=[[tools.program("muxly"), "run"]],
        files={"muxly.yaml": _configuration(tools.source(count), FORMATS)},
    )


def _bare(tools: Tools, count: int) -> Contender:
    command = [tools.program("python"), str(CONTENDERS / "bare.py"), str(tools.source(count)), "out"]
    return Contender(name="bare script", folder=tools.folder / f"bare-{count}", commands=[command])


def _dlt_fan_out(tools: Tools, count: int) -> Contender:
    script = str(CONTENDERS / "dlt_fan_out.py")
    return Contender(
        name="dlt, three runs",
        folder=tools.folder / f"dlt-{count}",
        commands=[
            [tools.dlt_program("python"), script, str(tools.source(count)), f"{number}-{name}", name]
            for number, name in enumerate(DLT_FORMATS)
        ],
    )


def nothing_new(tools: Tools, times: int) -> Work:
    """A whole process that finds nothing to do: 100 records were delivered before."""
    muxly = Contender(
        name="Muxly",
        folder=tools.folder / "muxly-nothing",
        commands=[[tools.program("muxly"), "run"]],
        files={"muxly.yaml": _configuration(tools.source(100), ("parquet",))},
        continues=True,
    )
    contenders = [muxly]
    if tools.dlt is not None:
        script = str(CONTENDERS / "dlt_incremental.py")
        command = [tools.dlt_program("python"), script, str(tools.source(100)), "."]
        folder = tools.folder / "dlt-nothing"
        contenders.append(Contender(name="dlt, incremental", folder=folder, commands=[command], continues=True))
    return Work(key="nothing_new", title="A run with nothing new", contenders=tuple(contenders), times=times)


def starts(tools: Tools, times: int) -> Work:
    """Starting, and doing next to nothing."""
    python, muxly = tools.program("python"), tools.program("muxly")
    commands = {
        "python -c pass": [python, "-c", "pass"],
        "import muxly": [python, "-c", "import muxly"],
        "muxly --help": [muxly, "--help"],
        "muxly plugins": [muxly, "plugins"],
    }
    if tools.dlt is not None:
        commands["import dlt"] = [tools.dlt_program("python"), "-c", "import dlt"]
        commands["dlt --help"] = [tools.dlt_program("dlt"), "--help"]
    # Each continues from its own first, uncounted time, which may have compiled modules.
    contenders = tuple(
        Contender(name=name, folder=tools.folder / "starts", commands=[command], continues=True)
        for name, command in commands.items()
    )
    return Work(key="starts", title="Starting", contenders=contenders, times=times)


def sealing(tools: Tools, count: int, times: int) -> Work:
    """The fan-out, with and without fsync."""
    script = [tools.program("python"), str(CONTENDERS / "sealing.py"), "muxly.yaml"]
    made = muxly_fan_out(tools, count)
    contenders = (
        Contender(name="with fsync", folder=made.folder, files=made.files, commands=[script]),
        Contender(name="without fsync", folder=made.folder, files=made.files, commands=[[*script, "--no-sync"]]),
    )
    return Work(key="sealing", title=f"Sealing {count:,} records", contenders=contenders, times=times)


def _configuration(source: Path, routes: Sequence[str]) -> str:
    """A configuration file that delivers a file of records by several routes; JSON is YAML."""
    made = {name: {"router": {"type": "file", "path": f"out/{name}", "format": name}} for name in routes}
    connector = {"type": "file", "path": str(source), "stream": "orders"}
    return json.dumps({"version": 1, "pipelines": {"orders": {"connector": connector, "routes": made}}}, indent=1)
