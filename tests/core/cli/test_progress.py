"""Progress as it is looked at and told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from muxly.cli._output import Messages
from muxly.cli._progress import ProgressLines, RouteProgress, RunProgress, StreamProgress
from tests.core.cli.commands import muxly, pipeline, project, refusing, route


def test_line_names_streams_and_routes() -> None:
    progress = RunProgress(
        streams={"deals": StreamProgress(read=1200)},
        routes={
            "lake": RouteProgress(delivered=1000, pending=200),
            "away": RouteProgress(pending=7, retry_at="12:30:05"),
            "bad": RouteProgress(error="gone"),
        },
    )
    assert str(progress) == (
        "deals: 1,200 read; lake: 1,000 delivered, 200 waiting; away: 0 delivered, 7 waiting, tries again at 12:30:05; "
        "bad: 0 delivered, stopped"
    )


def test_line_is_not_repeated_while_nothing_changes() -> None:
    messages = Messages()
    said: list[str] = []
    messages.write = said.append
    lines = ProgressLines(messages, "daily")
    for read in (1, 1, 2):
        lines.show(RunProgress(streams={"deals": StreamProgress(read=read)}))
    assert said == ["daily: deals: 1 read", "daily: deals: 2 read"]


def test_run_tells_its_progress_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgressLines, "interval_seconds", 0.1)
    slow = pipeline({"good": route(), "bad": refusing(required=False)}, records=1000, batch_seconds=0.05)
    file = project(tmp_path, {"daily": {**slow, "segment_bytes": 5000, "segment_seconds": 0}})
    result = muxly("run", file)
    line = r"^daily: numbers: [\d,]+ read; good: [\d,]+ delivered, [\d,]+ waiting; bad: 0 delivered, stopped$"
    assert re.search(line, result.stderr, re.MULTILINE)
    assert "daily: numbers:" not in muxly("run", file, "-q").stderr


def test_notices_are_said_once_and_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "noticing_plugin.py").write_text(
        "import muxly\n"
        "from muxly_testing import FakeConnector\n"
        "class Noticing(FakeConnector):\n"
        "    def open(self, run):\n"
        "        super().open(run)\n"
        "        run.notice(muxly.Notice('odd', 'something is odd'))\n"
    )
    daily = {**pipeline({"good": route()}), "connector": {"type": "noticing_plugin:Noticing", "batch_seconds": 0.05}}
    result = muxly("run", project(tmp_path, {"daily": daily}))
    assert result.stderr.count("warning: something is odd") == 1


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("route", "route 'away' cannot deliver stream 'numbers': nobody answers; it will be retried at"),
        ("read", "stream 'numbers' cannot be read: nobody answers; it will be retried at"),
        ("streams", "the source does not answer: nobody answers; it will be retried at"),
    ],
)
def test_run_says_what_it_waits_for_and_how_to_stop_that(tmp_path: Path, where: str, said: str) -> None:
    method = "deliver" if where == "route" else where
    faults = [{"method": method, "action": "RetryableError", "message": "nobody answers", "retry_after": 1.0}]
    routes = {"away": route(faults=faults if where == "route" else [])}
    source = {} if where == "route" else {"faults": faults}
    result = muxly("run", project(tmp_path, {"daily": pipeline(routes, **source)}))
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"warning: {said}") == 1
    assert "Ctrl-C or SIGTERM stops the run; the next one continues from there" in result.stderr


def test_short_waits_are_not_told(tmp_path: Path) -> None:
    faults = [{"method": "deliver", "action": "RetryableError", "message": "slow down", "retry_after": 0.1}]
    result = muxly("run", project(tmp_path, {"daily": pipeline({"lake": route(faults=faults)})}))
    assert (result.exit_code, "slow down" in result.stderr) == (0, False)


def test_route_that_waits_shows_when_it_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgressLines, "interval_seconds", 0.1)
    faults = [{"method": "deliver", "action": "RetryableError", "message": "slow down", "retry_after": 0.8}]
    result = muxly("run", project(tmp_path, {"daily": pipeline({"lake": route(faults=faults)})}))
    line = r"lake: 0 delivered, 30 waiting, tries again at \d\d:\d\d:\d\d$"
    assert re.search(line, result.stderr, re.MULTILINE), result.stderr
