"""A process that runs a pipeline with metrics and kills itself before a chosen step; it forks a child for each run.

It reads one JSON object a line from stdin and answers with one on stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import muxly
from muxly_routers.prometheus import Metric, Prometheus
from muxly_testing import FakeConnector
from tests.integration.killed_process import Steps, serve

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
    return {"steps": steps.count, "state": result.state, "error": result.error, "modules": sorted(sys.modules)}


if __name__ == "__main__":
    serve(run)
