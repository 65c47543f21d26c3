"""Measures Muxly beside a bare script and dlt, and writes results.json and results.md beside this file."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import deliveries
import report
from machine import machine, versions
from measuring import Measured, measure
from servers import Servers, serving
from works import ENVIRONMENT, Contender, Tools, Work, fan_out, nothing_new, sealing, starts

HERE = Path(__file__).absolute().parent
PLUGINS = ("muxly_connector", "muxly_routers")


def main() -> None:
    """Do the works one after the other, and write what they took."""
    arguments = _arguments()
    folder: Path = arguments.folder.absolute()
    tools = Tools(muxly=arguments.muxly.absolute(), dlt=arguments.dlt and arguments.dlt.absolute(), folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = _before(arguments)
    results = {"machine": machine(), "versions": _versions(tools), "records": arguments.records, "works": before}
    shutil.rmtree(folder / "servers", ignore_errors=True)
    with serving(folder / "servers") as servers:
        for work in _works(tools, servers, arguments):
            if not arguments.only or work.key in arguments.only:
                _make_records(tools, arguments.records, ten=work.key.endswith(str(arguments.records * 10)))
                now = machine()
                taken = {"title": work.title, "at": now["at"], "load": now["load"], "contenders": done(work)}
                results["works"][work.key] = taken
    results["plugins_imported"] = plugins_imported(tools)
    results["load_at_end"] = machine()["load"]
    arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    arguments.results.with_suffix(".md").write_text(report.markdown(results), encoding="utf-8")
    print(report.markdown(results))


def _before(arguments: argparse.Namespace) -> dict[str, Any]:
    """The works of an earlier time that are kept: all that are not done again now."""
    if not arguments.only or not arguments.results.exists():
        return {}
    earlier: dict[str, Any] = json.loads(arguments.results.read_text(encoding="utf-8"))["works"]
    return earlier


def _make_records(tools: Tools, count: int, *, ten: bool) -> None:
    """In a process of its own: the kernel counts the memory of this one into its children's peaks."""
    for number in {100, count, *([count * 10] if ten else [])}:
        for path in (tools.source(number), tools.arrow(number)):
            if number <= count or path.suffix == ".parquet":
                subprocess.run([sys.executable, HERE / "records.py", str(number), path], check=True)


def _works(tools: Tools, servers: Servers, arguments: argparse.Namespace) -> list[Work]:
    count, times = arguments.records, arguments.times
    return [
        starts(tools, times * 3),
        nothing_new(tools, times * 3),
        *deliveries.works(tools, servers, count, times),
        fan_out(tools, count, times, with_dlt=True),
        sealing(tools, count, times),
        # dlt would take minutes for this, and only the memory is asked for.
        fan_out(tools, count * 10, 1, with_dlt=False),
    ]


def done(work: Work) -> dict[str, list[dict[str, Any]]]:
    """Let every contender do the work in turn, so that a busy moment meets all of them."""
    measured: dict[str, list[dict[str, Any]]] = {one.name: [] for one in work.contenders}
    work.before()
    for contender in work.contenders:
        contender.begin()
        if contender.continues:
            contender.before(None)
            _once(contender)
    for number in range(work.times):
        for contender in work.contenders:
            if not contender.continues:
                contender.begin()
            contender.before(number)
            taken = _once(contender)
            measured[contender.name].append(taken)
            said = f"{work.key} {number + 1}/{work.times} {contender.name}: {taken['cpu_seconds']:.2f} CPU s"
            print(said, file=sys.stderr, flush=True)
    return measured


def _once(contender: Contender) -> dict[str, Any]:
    served = contender.server_cpu_seconds
    before = served() if served else 0.0
    taken = [measure(command, contender.folder, ENVIRONMENT) for command in contender.commands]
    return {
        "cpu_seconds": sum(one.cpu_seconds for one in taken),
        "wall_seconds": sum(one.wall_seconds for one in taken),
        "peak_bytes": max(one.peak_bytes for one in taken),
        "parts_cpu_seconds": [one.cpu_seconds for one in taken],
        **({"server_cpu_seconds": served() - before} if served else {}),
        **_printed(taken[-1]),
    }


def _printed(measured: Measured) -> dict[str, Any]:
    """The figures that a contender printed itself, as one JSON object."""
    if not measured.output.startswith("{"):
        return {}
    figures: dict[str, Any] = json.loads(measured.output)
    return figures


def plugins_imported(tools: Tools) -> list[str]:
    """The plugin modules that `muxly plugins` imports; none is right."""
    folder = tools.folder / "starts"
    folder.mkdir(exist_ok=True)
    command = [tools.program("python"), "-X", "importtime", "-m", "muxly", "plugins"]
    measure(command, folder, ENVIRONMENT)
    lines = (folder / "errors.txt").read_text(encoding="utf-8").splitlines()
    imported = [line.rsplit("|", 1)[-1].strip() for line in lines if line.startswith("import time:")]
    return [name for name in imported if name.startswith(PLUGINS)]


def _versions(tools: Tools) -> dict[str, str]:
    found = versions(tools.muxly, ("muxly-core", "pyarrow", "arro3-io", "sqlalchemy", "psycopg", "boto3"))
    return found if tools.dlt is None else found | versions(tools.dlt, ("dlt", "adbc-driver-postgresql"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--muxly", type=Path, required=True, help="environment with Muxly")
    parser.add_argument("--dlt", type=Path, help="environment with dlt; left out = dlt is not measured")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="for records and what is made of them")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--records", type=int, default=1_000_000, help="memory is also looked at for ten times as many")
    parser.add_argument(
        "--times", type=int, default=3, help="how often the large works are done; small ones 3 times that"
    )
    parser.add_argument("--only", nargs="+", help="do these works only, by key, and keep the figures of the others")
    return parser.parse_args()


if __name__ == "__main__":
    main()
