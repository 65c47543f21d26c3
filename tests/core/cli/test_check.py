"""``muxly check``: every component is tried, at the same time, and nothing is written."""

from __future__ import annotations

import time
from pathlib import Path

from tests.core.cli.commands import DAILY, answer, muxly, pipeline, project, route


def faulty(method: str, action: str, **more: object) -> dict[str, object]:
    return route(faults=[{"method": method, "action": action, "times": 0, **more}])


def test_all_is_well_and_nothing_is_written(tmp_path: Path) -> None:
    found = answer("check", project(tmp_path))
    assert [(one["route"], one["state"]) for one in found] == [(None, "ok"), ("lake", "ok")]
    assert not (tmp_path / ".muxly").exists()
    assert not (tmp_path / "out").exists()


def test_every_failure_is_told(tmp_path: Path) -> None:
    routes = {"closed": faulty("open", "RetryableError"), "odd": faulty("check", "KeyError"), "good": route()}
    result = muxly("check", project(tmp_path, {"daily": pipeline(routes)}))
    assert result.exit_code == 1
    states = {line.split()[2]: line.split()[4] for line in result.stdout.splitlines() if " route " in line}
    assert states == {"closed": "error", "odd": "error", "good": "ok"}
    assert "KeyError" in result.stdout


def test_wrong_option_is_placed_in_the_file(tmp_path: Path) -> None:
    result = muxly("check", project(tmp_path, {"daily": pipeline({"lake": faulty("open", "ConfigurationError")})}))
    assert result.exit_code == 2


def test_hanging_component_ends_at_its_deadline_and_delays_no_other(tmp_path: Path) -> None:
    routes = {"stuck": faulty("open", "hang"), "good": route()}
    begun = time.monotonic()
    result = muxly("check", project(tmp_path, {"daily": pipeline(routes)}), "--timeout", "0.5")
    assert time.monotonic() - begun < 20
    assert result.exit_code == 1
    assert "no answer within 0.5 s" in result.stdout


def test_routes_of_events_are_checked_too(tmp_path: Path) -> None:
    events = {"routes": {"alerts": {"router": {"type": "file", "path": "/proc/nowhere"}}}}
    result = muxly("check", project(tmp_path, {"daily": DAILY}, events=events))
    assert result.exit_code in {0, 1}
    assert "(events)" in result.stdout
    assert "route alerts" in result.stdout


def test_missing_file_of_the_source_is_an_error(tmp_path: Path) -> None:
    daily = {**DAILY, "connector": {"type": "file", "path": "nowhere/a.csv"}}
    result = muxly("check", project(tmp_path, {"daily": daily}))
    assert result.exit_code == 1
    assert "nowhere" in result.stdout


def test_wrong_deadline_is_a_usage_error(tmp_path: Path) -> None:
    result = muxly("check", project(tmp_path), "--timeout", "soon")
    assert result.exit_code == 2
    assert "'soon' is not a valid float" in result.stderr
