"""``muxly run``: what it delivers, says and answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muxly.cli._app import app
from tests.core.cli.commands import DAILY, answer, muxly, pipeline, project, refusing, route


def test_account_of_each_route_is_written_to_stdout(tmp_path: Path) -> None:
    result = muxly("run", project(tmp_path))
    assert result.exit_code == 0
    title, heads, line = result.stdout.splitlines()
    assert title.startswith("daily: succeeded in ")
    assert heads.split() == ["route", "stream", "waited", "+", "read", "=", "delivered", "+", "waits"]
    assert line.split() == ["lake", "numbers", "0", "30", "30", "0"]


def test_second_run_has_nothing_to_deliver(tmp_path: Path) -> None:
    file = project(tmp_path)
    muxly("run", file)
    assert answer("run", file)["routes"]["lake"]["delivered"] == 0


def test_json_is_one_line_for_each_pipeline(tmp_path: Path) -> None:
    result = muxly("run", project(tmp_path, {"one": DAILY, "two": DAILY}), "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["pipeline"], line["state"]) for line in lines] == [("one", "succeeded"), ("two", "succeeded")]
    assert all(line["routes"]["lake"]["balanced"] for line in lines)
    assert lines[0]["started_at"] < lines[0]["finished_at"]


def test_file_in_the_working_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, {"one": DAILY, "two": DAILY})
    monkeypatch.chdir(tmp_path)
    assert answer("run", "two")["pipeline"] == "two"
    assert answer("run", "-p", "one")["pipeline"] == "one"


def test_folder_may_stand_for_its_file(tmp_path: Path) -> None:
    project(tmp_path)
    assert answer("run", f"{tmp_path}/")["pipeline"] == "daily"


def test_folder_without_configuration_says_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = muxly("run")
    assert result.exit_code == 2
    assert "there is no muxly.yaml in" in result.stderr
    assert "muxly init" in result.stderr


def test_unknown_pipeline_names_the_nearest(tmp_path: Path) -> None:
    result = muxly("run", project(tmp_path), "dayli")
    assert result.exit_code == 2
    assert 'there is no pipeline "dayli"; did you mean "daily"?' in result.stderr


def test_file_named_twice_is_refused(tmp_path: Path) -> None:
    file = project(tmp_path)
    result = muxly("run", file, "--file", file)
    assert result.exit_code == 2
    assert "give only one" in result.stderr


def test_mistakes_of_the_file_are_told_with_their_place(tmp_path: Path) -> None:
    wrong = {**DAILY, "routes": {"lake": {"router": {"type": "file", "path": "out", "format": "parket"}}}}
    result = muxly("run", project(tmp_path, {"daily": wrong}))
    assert result.exit_code == 2
    assert "muxly.json:1:" in result.stderr
    assert 'did you mean "parquet"?' in result.stderr


def test_failed_route_leaves_the_run_partial_and_says_why(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"good": route(), "bad": refusing()})})
    result = muxly("run", file)
    assert result.exit_code == 3
    assert "error: daily: route 'bad': a scripted fault" in result.stderr
    assert "daily: partial" in result.stdout


def test_failed_route_that_is_not_required_is_a_warning(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"good": route(), "bad": refusing(required=False)})})
    result = muxly("run", file)
    assert result.exit_code == 0
    assert "warning: daily: route 'bad': a scripted fault" in result.stderr


def test_bug_of_a_connector_fails_the_run(tmp_path: Path) -> None:
    faults = [{"method": "read", "action": "ZeroDivisionError"}]
    file = project(tmp_path, {"daily": pipeline({"good": route()}, faults=faults)})
    result = muxly("run", file)
    assert result.exit_code == 1
    assert "error: daily: stream 'numbers': ZeroDivisionError: a scripted fault" in result.stderr
    assert "MUXLY_DEBUG=1 shows where the ZeroDivisionError comes from" in result.stderr


@pytest.mark.parametrize(("part", "method"), [("connector", "open"), ("connector", "plan"), ("router", "deliver")])
def test_traceback_of_a_bug_in_a_plugin_is_shown_to_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, method: str
) -> None:
    faults = [{"method": method, "action": "ZeroDivisionError", "times": 0}]
    router = route(faults=faults) if part == "router" else route()
    file = project(tmp_path, {"daily": pipeline({"good": router}, faults=faults if part == "connector" else [])})
    monkeypatch.setenv("MUXLY_DEBUG", "1")
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "faults.py" in result.stderr


def test_rejected_records_are_pointed_at(tmp_path: Path) -> None:
    strict = {**route(reject=[7]), "max_rejected": 5}
    result = muxly("run", project(tmp_path, {"daily": pipeline({"strict": strict}, bad=[3])}))
    assert result.exit_code == 0
    assert "records could not be read: 1; `muxly dead-letters list` shows them" in result.stderr
    assert "records rejected by the destination: 1;" in result.stderr


def test_worst_pipeline_decides_the_exit_code(tmp_path: Path) -> None:
    pipelines = {"first": pipeline({"bad": refusing()}), "second": pipeline({"good": route()})}
    result = muxly("run", project(tmp_path, pipelines))
    assert result.exit_code == 3
    assert "second: succeeded" in result.stdout


def test_option_that_turns_out_wrong_is_placed_in_the_file(tmp_path: Path) -> None:
    wrong = {**DAILY, "routes": {"lake": {**DAILY["routes"]["lake"], "mode": "replace"}}}
    result = muxly("run", project(tmp_path, {"daily": wrong}))
    assert result.exit_code == 2
    assert "muxly.json:1:" in result.stderr
    assert "pipelines.daily.routes.lake.mode" in result.stderr
    assert "read: full" in result.stderr


def test_select_and_route_choose(tmp_path: Path) -> None:
    both = pipeline({"one": route(), "two": route()}, names=["deals", "contacts"])
    result = muxly("run", project(tmp_path, {"daily": both}), "--select", "dea*", "--route", "two", "--json")
    assert result.exit_code == 3  # the other route is required, and is behind now
    found = json.loads(result.stdout)
    assert list(found["streams"]) == ["deals"]
    assert (found["routes"]["one"]["delivered"], found["routes"]["two"]["delivered"]) == (0, 30)
    assert found["routes"]["one"]["pending"] == 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--select", "numbres"], "the connector has no stream 'numbres'; did you mean \"numbers\"?"),
        (["--route", "lak"], "has no route 'lak'; did you mean \"lake\"?"),
        (["--limit", "0"], "0 is not in the range"),
        (["--limit", "5", "--full-refresh"], "--limit stores no cursor"),
        (["--dry-run", "--full-refresh"], "--dry-run stores no cursor"),
        (["--param", "x"], "write KEY=VALUE"),
        (["--timeout", "0"], "0.0 is not in the range"),
        (["--set", "pipelines.daily.paralel=8"], 'did you mean "parallel"?'),
        (["--profile", "production"], "production"),
    ],
)
def test_wrong_option_is_a_usage_error_that_says_what_is_meant(tmp_path: Path, words: list[str], said: str) -> None:
    result = muxly("run", project(tmp_path), *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_limit_and_dry_run_move_no_cursor(tmp_path: Path) -> None:
    file = project(tmp_path)
    limited = muxly("run", file, "--limit", 5)
    assert "lake   numbers       0       5            5        0" in limited.stdout
    assert "a trial run" in limited.stderr
    assert muxly("run", file, "--dry-run").exit_code == 0
    assert answer("state", "show", file) == []
    assert answer("run", file)["routes"]["lake"]["delivered"] == 30


def test_full_refresh_reads_from_the_start(tmp_path: Path) -> None:
    file = project(tmp_path)
    muxly("run", file)
    assert answer("run", file, "--full-refresh")["routes"]["lake"]["delivered"] == 30


def test_timeout_stops_the_run_and_leaves_it_partial(tmp_path: Path) -> None:
    endless = pipeline({"good": route()}, endless=True, batch_seconds=0.05)
    result = muxly("run", project(tmp_path, {"daily": endless}), "--timeout", "0.5")
    assert result.exit_code == 3
    assert "0.5 s have passed: stopping" in result.stderr
    assert "daily: stopped" in result.stdout


def test_home_and_sets_come_from_the_command_line(tmp_path: Path) -> None:
    file = project(tmp_path)
    setting = "pipelines.daily.connector.records=7"
    found = answer("run", file, "--home", tmp_path / "elsewhere", "--set", setting)
    assert found["routes"]["lake"]["delivered"] == 7
    assert (tmp_path / "elsewhere" / "store.sqlite").exists()
    assert not (tmp_path / ".muxly").exists()


def test_params_reach_components_as_values(tmp_path: Path) -> None:
    (tmp_path / "params_plugin.py").write_text(
        "from muxly_testing import FakeConnector\n"
        "class Told(FakeConnector):\n"
        "    def open(self, run):\n"
        "        super().open(run)\n"
        "        run.measure('twice', run.params['number'] * 2)\n"
        "        run.measure(run.params['word'], 1)\n"
    )
    told: dict[str, Any] = {**DAILY, "connector": {"type": "params_plugin:Told"}}
    found = answer("run", project(tmp_path, {"daily": told}), "--param", "number=4", "--param", "word=plain")
    assert found["measures"] == {"twice": 8, "plain": 1}


def test_removed_route_with_a_backlog_refuses_the_run(tmp_path: Path) -> None:
    muxly("run", project(tmp_path, {"daily": pipeline({"good": route(), "bad": refusing()})}))
    result = muxly("run", project(tmp_path, {"daily": pipeline({"good": route()})}))
    assert result.exit_code == 2
    assert "muxly routes rename bad NEW" in result.stderr


def test_run_with_a_filter_ends_without_a_word_about_leaks(tmp_path: Path) -> None:
    lake = {**DAILY["routes"]["lake"], "where": "id >= 0"}
    file = project(tmp_path, {"daily": {**DAILY, "routes": {"lake": lake}}})
    command = [sys.executable, "-m", "muxly", "run", str(file)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in ran.stderr.splitlines() if not line.startswith("daily: ")]  # how far a slow one is
    assert (ran.returncode, told) == (0, [])


def test_option_that_turns_out_wrong_in_the_run_is_told_once(tmp_path: Path) -> None:
    hook = {"router": {"type": "webhook", "url": "example.org"}, "mode": "append"}
    result = muxly("run", project(tmp_path, {"daily": pipeline({"hook": hook})}))
    assert result.exit_code == 3
    assert result.stderr.count("this is not a URL") == 1
    assert "pipelines.daily.routes.hook.router.url" in result.stderr


def test_route_is_named_once(tmp_path: Path) -> None:
    result = muxly("run", project(tmp_path, {"daily": pipeline({"strict": route(reject=[7])})}))
    assert result.exit_code == 3
    assert result.stderr.count("route 'strict'") == 1


def test_filter_that_turns_out_wrong_is_placed_in_the_file(tmp_path: Path) -> None:
    result = muxly("run", project(tmp_path, {"daily": pipeline({"some": {**route(), "where": "idd > 3"}})}))
    assert result.exit_code == 3
    assert "pipelines.daily.routes.some.where: where: there is no column 'idd'" in result.stderr
