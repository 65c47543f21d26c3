"""Metrics of whole runs: through the runner and its ledger, killed, replayed, and begun again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Self

import attrs
import pytest

import muxly
from muxly import Pipeline, Route
from muxly._runner.options import Replay
from muxly_routers.prometheus import Metric, Prometheus
from muxly_testing import CollectingRouter, FakeConnector
from tests.routers.prometheus.killed_metrics import RECORDS
from tests.routers.prometheus.test_conformance import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests import fixtures_prometheus as servers

METRICS = {
    "seen_total": Metric(type="counter"),
    "sum_total": Metric(column="id", type="counter"),
    "newest": Metric(column="id", labels=["day"]),
}


def totals(text: str, **labels: str) -> dict[str, float]:
    """The totals, and the newest values by day, among series with these labels."""
    found: dict[str, float] = {}
    for metric in METRICS:
        for one in shown(text, metric):
            if labels.items() <= one.items():
                found[f"{metric} {one['day']}" if "day" in one else metric] = one["amount"]
    return found


def expected(ids: list[int], connector: FakeConnector) -> dict[str, float]:
    """What the counters and gauges are once these records have been delivered, each once."""
    days = {str(record["day"]): record["id"] for record in connector.expected() if record["id"] in set(ids)}
    return {"seen_total": len(ids), "sum_total": sum(ids), **{f"newest {day}": id for day, id in days.items()}}


def text_of(folder: Path) -> str:
    return "".join(one.read_text() for one in sorted(folder.glob("*.prom")))


@pytest.mark.parametrize("cut", [{"records": 7}, {}])
def test_runs_replays_and_new_records_count_each_record_once(tmp_path: Path, cut: dict[str, int]) -> None:
    connector = FakeConnector(records=RECORDS, batch_records=10, per_day=30)
    router = Prometheus(metrics=METRICS, textfile=tmp_path / "node")
    route = Route("node", router, batch=cut, where="id % 3 > 0")
    pipeline = Pipeline("daily", connector, routes=[route], segment_bytes=1500)

    def run(pipeline: Pipeline, **options: Any) -> dict[str, float]:
        muxly.run(pipeline, home=tmp_path / "home", **options).raise_for_status()
        return totals(text_of(tmp_path / "node"))

    first = expected([one for one in range(RECORDS) if one % 3], connector)
    assert run(pipeline) == first
    assert run(pipeline) == first
    assert run(pipeline, replay=Replay(route="node")) == first
    more = FakeConnector(records=RECORDS + 50, batch_records=10, per_day=30)
    wanted = expected([one for one in range(RECORDS + 50) if one % 3], more)
    assert run(attrs.evolve(pipeline, connector=more)) == wanted
    assert run(attrs.evolve(pipeline, connector=more), replay=Replay(route="node", after=3)) == wanted


def test_metric_added_later_is_filled_by_a_replay(tmp_path: Path) -> None:
    connector = FakeConnector(records=RECORDS, batch_records=10)
    few = {"seen_total": METRICS["seen_total"]}
    for metrics, replay in ((few, None), (METRICS, Replay(route="node"))):
        router = Prometheus(metrics=metrics, textfile=tmp_path / "node")
        pipeline = Pipeline("daily", connector, routes=[Route("node", router)])
        muxly.run(pipeline, home=tmp_path / "home", replay=replay).raise_for_status()
    assert totals(text_of(tmp_path / "node")) == expected(list(range(RECORDS)), connector)


def test_route_added_later_is_filled_by_a_replay(tmp_path: Path) -> None:
    routes = [Route("other", CollectingRouter())]
    late = Route("node", Prometheus(metrics=METRICS, textfile=tmp_path / "node"), batch={"records": 7})
    for records, more in ((60, []), (60, [late]), (RECORDS + 20, [late])):
        connector = FakeConnector(records=records, batch_records=10)
        pipeline = Pipeline("daily", connector, routes=[*routes, *more], segment_bytes=1500)
        muxly.run(pipeline, home=tmp_path / "home").raise_for_status()
    before = totals(text_of(tmp_path / "node"))
    assert before["seen_total"] == RECORDS + 20 - 60
    muxly.run(pipeline, home=tmp_path / "home", replay=Replay(route="node")).raise_for_status()
    assert totals(text_of(tmp_path / "node")) == expected(list(range(RECORDS + 20)), connector)


def test_few_changed_series_do_not_make_the_others_vanish(tmp_path: Path, pushgateway: servers.Pushgateway) -> None:
    metrics = {"newest": Metric(column="amount", labels=["id"])}
    router = Prometheus(metrics=metrics, pushgateway=muxly.Secret(pushgateway.url))
    for records in (1000, 1003):
        pipeline = Pipeline("daily", FakeConnector(records=records), routes=[Route("push", router)])
        muxly.run(pipeline, home=tmp_path / "home").raise_for_status()
    found = shown(pushgateway.metrics(), "newest")
    assert len(found) == 1003
    assert {(one["job"], one["route"], one["stream"]) for one in found} == {("daily", "push", "numbers")}


def test_full_read_replaces_all_series(tmp_path: Path) -> None:
    router = Prometheus(metrics={"newest": Metric(column="amount", labels=["id"])}, textfile=tmp_path / "node")
    for records in (20, 5):
        connector = FakeConnector(records=records)
        pipeline = Pipeline("daily", connector, routes=[Route("node", router)], streams={"numbers": {"read": "full"}})
        muxly.run(pipeline, home=tmp_path / "home").raise_for_status()
    assert {one["id"] for one in shown(text_of(tmp_path / "node"), "newest")} == {str(one) for one in range(5)}


def test_way_out_without_a_folder_has_no_mode_replace(tmp_path: Path) -> None:
    router = Prometheus(metrics=METRICS, pushgateway=muxly.Secret("http://127.0.0.1:1"))
    pipeline = Pipeline("daily", FakeConnector(), routes=[Route("push", router, mode="replace")])
    with pytest.raises(muxly.ConfigurationError, match=r"its router Prometheus has no mode 'replace'; it has append"):
        muxly.run(pipeline, home=tmp_path / "home")
    with_folder = Prometheus(metrics=METRICS, pushgateway=muxly.Secret("http://127.0.0.1:1"), keep=tmp_path / "keep")
    assert with_folder.modes == {"append", "replace"}


def test_run_events_become_metrics_of_every_run(tmp_path: Path, promtool: Callable[[bytes], str]) -> None:
    (tmp_path / "data.csv").write_text("n\n1\n2\n")
    (tmp_path / "muxly.yaml").write_text(
        """\
version: 1
pipelines:
  daily:
    connector: {type: file, path: data.csv}
    routes: {lake: {router: {type: file, path: lake}}}
events:
  routes:
    watched:
      router:
        type: prometheus
        textfile: node
        metrics:
          runs_total: {type: counter, labels: [pipeline, event]}
          run_event_timestamp_seconds: {column: at, labels: [pipeline, event], unit: seconds}
          run_records_total: {type: counter, column: records, labels: [pipeline]}
"""
    )
    for _ in range(2):
        muxly.run(tmp_path / "muxly.yaml").raise_for_status()
    text = text_of(tmp_path / "node")
    runs = {one["event"]: one["amount"] for one in shown(text, "runs_total")}
    assert (runs["started"], runs["succeeded"]) == (2, 2)
    assert [one["amount"] for one in shown(text, "run_records_total")] == [2]
    assert promtool(text.encode()) == ""


class Killable:
    """The process that runs the pipeline and can be told to die."""

    def __enter__(self) -> Self:
        root = Path(__file__).parents[3]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.routers.prometheus.killed_metrics"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def run(self, folder: Path, die_before: int | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"folder": str(folder), "die_before": die_before}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    with Killable() as process:
        yield process


def test_killed_runs_count_each_record_once(
    tmp_path: Path, killable: Killable, pushgateway: servers.Pushgateway
) -> None:
    connector = FakeConnector(names=["numbers"], records=RECORDS)
    everything, some = (expected(ids, connector) for ids in ([*range(RECORDS)], [n for n in range(RECORDS) if n % 3]))
    steps = _folder(tmp_path, "whole", killable, pushgateway, [])
    points = Random(7)
    for number in range(4):
        dying = sorted(points.sample(range(steps), 1 + number % 2), reverse=True)
        _folder(tmp_path, f"killed-{number}", killable, pushgateway, dying)
        assert totals(text_of(tmp_path / f"killed-{number}" / "node")) == everything, dying
        assert totals(pushgateway.metrics(), job=f"killed-{number}") == some, dying


def _folder(tmp_path: Path, name: str, killable: Killable, pushgateway: servers.Pushgateway, dying: list[int]) -> int:
    """Runs that are killed, and one that is not; how many steps that one had."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "gateway").write_text(pushgateway.url)
    for point in dying:
        killable.run(folder, die_before=point)
    last = killable.run(folder)
    assert last["state"] == "succeeded", last
    return int(last["steps"])
