"""Renders as many series as asked for, and prints as JSON what that alone took.

Muxly's way is a whole run that ends in a text file, with its rendering clocked; the peer's is
prometheus-client's own registry, filled before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CITIES, SENSORS = 1000, 100


def rows(count: int) -> dict[str, list[Any]]:
    """Label sets that are all different, and a value for each."""
    numbers = range(count)
    return {
        "city": [f"city {one % CITIES}" for one in numbers],
        "sensor": [f"sensor-{one // CITIES % SENSORS}" for one in numbers],
        "temperature": [one % 977 / 10 for one in numbers],
    }


def with_muxly(count: int) -> dict[str, float]:
    import pyarrow as pa

    import muxly
    from muxly_connector_file import File
    from muxly_routers.prometheus import Metric, Prometheus, files

    taken: dict[str, float] = {}
    files.render = clocked(files.render, taken)  # type: ignore[attr-defined]
    table = pa.table(rows(count))
    with pa.ipc.new_file("series.arrow", table.schema) as writer:
        writer.write_table(table)
    metrics = {"temperature_celsius": Metric(column="temperature", labels=["city", "sensor"], unit="celsius")}
    router = Prometheus(textfile=Path("out"), metrics=metrics, max_series=count)
    pipeline = muxly.Pipeline(
        "series", File(path=Path("series.arrow"), stream="readings"), routes=[muxly.Route("metrics", router)]
    )
    muxly.run(pipeline).raise_for_status()
    return taken


def with_client(count: int) -> dict[str, float]:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    gauge = Gauge("temperature_celsius", "Of now.", ["city", "sensor"], registry=registry)
    for city, sensor, value in zip(*rows(count).values(), strict=True):
        gauge.labels(city, sensor).set(value)
    taken: dict[str, float] = {}
    rendered = clocked(generate_latest, taken)(registry)
    Path("client.prom").write_bytes(rendered)
    return taken


def clocked(function: Callable[..., bytes], taken: dict[str, float]) -> Callable[..., bytes]:
    def timed(*given: Any, **named: Any) -> bytes:
        wall, cpu = time.perf_counter(), time.process_time()
        made = function(*given, **named)
        taken["clocked_cpu_seconds"] = time.process_time() - cpu
        taken["clocked_wall_seconds"] = time.perf_counter() - wall
        return made

    return timed


if __name__ == "__main__":
    ways = {"muxly": with_muxly, "client": with_client}
    print(json.dumps(ways[sys.argv[1]](int(sys.argv[2]))))
