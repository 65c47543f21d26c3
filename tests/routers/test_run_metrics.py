"""Muxly's own metrics: what runs did, counted by an observer and shown by the scrape endpoint."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser as openmetrics

import muxly
from muxly import Pipeline, Route
from muxly._plugins import observers
from muxly.component import Run
from muxly_routers import run_metrics
from muxly_routers.prometheus import Metric, Prometheus
from muxly_routers.run_metrics import Operations
from muxly_testing import CollectingRouter, FakeConnector
from tests.routers.prometheus.test_endpoint import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def value(one: Operations, name: str, **labels: str) -> float | None:
    return one.registry.get_sample_value(name, labels)


def test_observer_counts_what_a_run_did(tmp_path: Path, promtool: Callable[[bytes], str]) -> None:
    one = Operations()
    routes = [Route("all", CollectingRouter()), Route("some", CollectingRouter(), where="id < 10")]
    for records in (30, 50):
        pipeline = Pipeline("daily", FakeConnector(records=records), routes=routes)
        muxly.run(pipeline, home=tmp_path / "home", observers=[one]).raise_for_status()
    assert value(one, "muxly_runs_total", pipeline="daily", state="succeeded") == 2
    assert value(one, "muxly_runs_active", pipeline="daily") == 0
    assert value(one, "muxly_run_duration_seconds_count", pipeline="daily") == 2
    assert value(one, "muxly_records_sealed_total", pipeline="daily", stream="numbers") == 50
    route = {"pipeline": "daily", "stream": "numbers"}
    assert value(one, "muxly_records_total", route="all", outcome="delivered", **route) == 50
    assert value(one, "muxly_records_total", route="some", outcome="delivered", **route) == 10
    assert value(one, "muxly_records_total", route="some", outcome="filtered", **route) == 40
    assert value(one, "muxly_records_pending", route="all", **route) == 0
    assert (value(one, "muxly_run_finished_timestamp_seconds", pipeline="daily", state="succeeded") or 0) > 1.7e9
    assert promtool(one.text()) == ""


class Broken(CollectingRouter):
    """Says the same of every delivery."""

    def deliver(self, delivery: muxly.Delivery) -> None:
        raise muxly.RouteError("https://me:hunter2@example.org is away")


def test_failed_delivery_counts_by_its_kind_and_its_backlog_is_shown(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    one = Operations(registry)
    pipeline = Pipeline("daily", FakeConnector(records=30), routes=[Route("away", Broken())])
    assert muxly.run(pipeline, home=tmp_path / "home", observers=[one]).state == "partial"
    route = {"pipeline": "daily", "route": "away", "stream": "numbers"}
    assert value(one, "muxly_deliveries_failed_total", error="RouteError", **route) == 1
    assert value(one, "muxly_records_pending", **route) == 30
    assert value(one, "muxly_runs_total", pipeline="daily", state="partial") == 1
    assert b"hunter2" not in generate_latest(registry)


def test_notices_count_by_their_code() -> None:
    one = Operations()
    one.muxly_notice(Run("01B", "daily"), muxly.Notice("route_stalled", "anything"))
    assert value(one, "muxly_notices_total", pipeline="daily", code="route_stalled", level="warning") == 1


def test_run_that_began_before_anybody_watched_is_not_missing_afterwards() -> None:
    one = Operations()
    one._count_active(Run("01B", "daily"), ended=True)
    assert value(one, "muxly_runs_active", pipeline="daily") == 0
    one.muxly_run_started(Run("01C", "daily"))
    assert value(one, "muxly_runs_active", pipeline="daily") == 1


def test_endpoint_shows_the_runs_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promtool: Callable[[bytes], str]
) -> None:
    monkeypatch.setattr(run_metrics, "_of_all_runs", None)
    address = f"127.0.0.1:{free_port()}"
    holder = Run("01A", "server")
    metrics = {"newest": Metric(column="id")}
    router = Prometheus(metrics=metrics, listen=address, operations=True)
    router.open(holder)  # as a server does, whose runs come and go
    routes = [Route("shown", Prometheus(metrics=metrics, listen=address, operations=True))]
    pipeline = Pipeline("daily", FakeConnector(records=30), routes=routes)
    for _ in range(2):
        muxly.run(pipeline, home=tmp_path / "home").raise_for_status()
    endpoint: Any = holder.shared(f"muxly_routers.prometheus {address}", lambda: None)
    text = endpoint.content("text", compressed=False)
    assert promtool(text) == ""
    assert b'muxly_runs_total{pipeline="daily",state="succeeded"} 2.0' in text
    assert b'newest{stream="numbers"} 29' in text
    opened = endpoint.content("openmetrics", compressed=False)
    families = list(openmetrics.text_string_to_metric_families(opened.decode()))  # type: ignore[no-untyped-call]
    assert {"muxly_runs", "newest"} <= {family.name for family in families}
    assert b"# EOF\n" in opened[-6:]
    router.close()
    holder.end()


def test_plugin_costs_nothing_until_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_metrics, "_of_all_runs", None)
    hooks, errors = observers()
    assert not errors
    assert hooks.has_plugin("muxly-routers:prometheus")
    run = Run("01B", "daily")
    hooks.hook.muxly_run_started(run=run)
    hooks.hook.muxly_notice(run=run, notice=muxly.Notice("x", "y"))
    assert sys.modules["muxly_routers.run_metrics"]._of_all_runs is None
