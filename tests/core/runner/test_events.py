"""Run events as records, delivered by routes."""

from __future__ import annotations

from pathlib import Path

import muxly
from muxly._runner.events import EventLog, deliver_events
from muxly._runner.session import Home
from muxly_testing import ChaosRouter, CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import pipeline


def events_of(home: Path, chosen: muxly.Pipeline, router: muxly.Router) -> muxly.RunResult | None:
    """Run a pipeline and deliver its events."""
    log = EventLog()
    muxly.run(chosen, home=home, observers=[log])
    return deliver_events(log, chosen.name, {"alerts": muxly.Route("alerts", router)}, Home(folder=home))


def test_events_of_a_run_are_records(tmp_path: Path) -> None:
    alerts = CollectingRouter()
    events_of(tmp_path, pipeline(FakeConnector(records=10), CollectingRouter()), alerts)
    assert [record["event"] for record in alerts.records("run_events")] == ["started", "succeeded"]
    assert alerts.records("run_events")[-1]["records"] == 10


def test_failed_delivery_is_an_event_with_route_stream_and_reason(tmp_path: Path) -> None:
    alerts = CollectingRouter()
    bad = ChaosRouter(faults=[Fault(method="deliver", action="RouteError", message="no such bucket")])
    events_of(tmp_path, pipeline(FakeConnector(records=10), bad), alerts)
    (failed,) = [one for one in alerts.records("run_events") if one["event"] == "delivery_failed"]
    assert (failed["route"], failed["stream"], failed["message"]) == ("r0", "numbers", "no such bucket")


def test_events_wait_for_a_route_that_is_down(tmp_path: Path) -> None:
    down = ChaosRouter(token="alerts", faults=[Fault(method="deliver", action="RouteError")])
    chosen = pipeline(FakeConnector(records=10), CollectingRouter())
    events_of(tmp_path, chosen, down)
    alerts = CollectingRouter(token="alerts-up")
    events_of(tmp_path, chosen, alerts)
    assert [record["event"] for record in alerts.records("run_events")] == ["started", "succeeded"] * 2


def test_new_columns_are_an_event(tmp_path: Path) -> None:
    alerts = CollectingRouter()
    events_of(tmp_path, pipeline(FakeConnector(records=300, extra_from=200), CollectingRouter()), alerts)
    (changed,) = [one for one in alerts.records("run_events") if one["event"] == "schema_changed"]
    assert "extra" in changed["message"]


def test_events_section_of_a_configuration_delivers_them(tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(
        """
version: 1
pipelines:
  p:
    connector: {type: "muxly_testing:FakeConnector", records: 5}
    routes:
      r: {router: {type: "muxly_testing:CollectingRouter", token: from-yaml}}
events:
  routes:
    alerts: {router: {type: "muxly_testing:CollectingRouter", token: alerts-yaml}, where: "event <> 'started'"}
""",
        encoding="utf-8",
    )
    assert muxly.run(tmp_path / "muxly.yaml").state == "succeeded"
    assert len(CollectingRouter(token="from-yaml").records()) == 5
    assert [one["event"] for one in CollectingRouter(token="alerts-yaml").records("run_events")] == ["succeeded"]


def test_success_after_a_failure_is_an_event_of_its_own(tmp_path: Path) -> None:
    bad = ChaosRouter(faults=[Fault(method="deliver", action="RouteError")])
    chosen, alerts = pipeline(FakeConnector(records=10), bad), CollectingRouter()
    for _ in range(3):
        events_of(tmp_path, chosen, alerts)
    ends = [one["event"] for one in alerts.records("run_events") if one["event"] not in ("started", "delivery_failed")]
    assert ends == ["partial", "succeeded", "recovered", "succeeded"]
