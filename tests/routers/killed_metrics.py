"""A process that runs a pipeline with metrics and kills itself before a chosen step; it forks a child for each run.

It reads one JSON object a line from stdin and answers with one on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import muxly
from muxly.testing import FakeConnector
from muxly_routers.prometheus import Metric, Prometheus
from tests.integration.killed_process import Steps

RECORDS = 60


def pipeline(folder: Path) -> muxly.Pipeline:
    """A stream that is cut into small parts, as totals and newest values; kept in a folder, and in the ledger."""
    metrics = {
        "seen_total": Metric(type="counter"),
        "sum_total": Metric(column="id", type="counter"),
        "newest": Metric(column="id", labels=["day"]),
    }
    connector = FakeConnector(names=["numbers"], records=RECORDS, batch_records=10, cursor_every=1)
    routes = [
        muxly.Route("node", Prometheus(metrics=metrics, textfile=folder / "node"), batch={"records": 13}),
        muxly.Route("kept", _pushing(folder, metrics), batch={"records": 13}, where="id % 3 > 0"),
    ]
    return muxly.Pipeline("killed", connector, routes=routes, segment_bytes=1500)


def _pushing(folder: Path, metrics: dict[str, Metric]) -> Prometheus:
    gateway = (folder / "gateway").read_text()
    return Prometheus(metrics=metrics, pushgateway=muxly.Secret(gateway), job=folder.name)


def run(order: dict[str, Any]) -> dict[str, Any]:
    """One run of the pipeline in this process, which may not survive it."""
    steps = Steps(order["die_before"])
    steps.install()
    result = muxly.run(pipeline(Path(order["folder"])), home=Path(order["folder"], "home"))
    return {"steps": steps.count, "state": result.state, "error": result.error}


def main() -> None:
    """Serve orders until stdin ends."""
    # What a run loads is loaded once, before the first fork; no thread is started.
    for name in (
        "duckdb",
        "muxly._runner.execution",
        "muxly._runner.prepared",
        "muxly._runner.where",
        "muxly_routers._http.client",
        "muxly_routers._prometheus.outlets",
        "pyarrow.compute",
        "sqlalchemy.dialects.sqlite",
    ):
        importlib.import_module(name)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            tell = os.write  # before it is wrapped: the answer is no step
            try:
                tell(writing, json.dumps(run(json.loads(line))).encode())
            except BaseException:  # noqa: BLE001 (the parent is told whatever it is)
                tell(writing, json.dumps({"state": "raised", "error": traceback.format_exc()}).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answers:
            answer = answers.read().decode()
        os.waitpid(child, 0)
        print(answer or json.dumps({"killed": True}), flush=True)


if __name__ == "__main__":
    main()
