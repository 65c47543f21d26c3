"""Tables, cells and JSON; exit codes of several runs; how loud messages are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muxly.cli._output import (
    ExitCode,
    Level,
    Messages,
    code_of_error,
    code_of_result,
    coloured,
    most_severe,
    short_json,
    text_table,
)
from muxly.errors import ConfigurationError, LeaseHeldError, PluginError, StoreError
from muxly.pipeline import RouteResult, RunResult

LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")


def test_plain_table_aligns_text_left_and_numbers_right() -> None:
    shown = text_table(("name", "count"), [("deals", 1200), ("x", 3)], "title").plain()
    assert shown == "title\nname   count\ndeals  1,200\nx          3"


def test_what_is_missing_is_a_dash_and_text_stays_on_one_line() -> None:
    assert text_table(("a", "b"), [(None, "two\nlines")]).plain() == "a  b\n-  two lines"


def test_drawn_table_holds_its_cells_and_does_not_take_them_for_markup() -> None:
    from muxly.cli._output import draw_table

    shown = draw_table(text_table(("name", "count"), [("[red]deals", 1200)], "[title]"))
    assert "[red]deals" in shown
    assert "[title]" in shown


def test_long_values_are_shown_short() -> None:
    assert short_json({"a": 1}) == '{"a": 1}'
    assert short_json(None) is None
    assert len(short_json("x" * 100) or "") == 60


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], ExitCode.DELIVERED),
        ([ExitCode.DELIVERED, ExitCode.HELD], ExitCode.HELD),
        ([ExitCode.HELD, ExitCode.PARTIAL], ExitCode.PARTIAL),
        ([ExitCode.PARTIAL, ExitCode.FAILED], ExitCode.FAILED),
        ([ExitCode.FAILED, ExitCode.INTERRUPTED], ExitCode.INTERRUPTED),
    ],
)
def test_gravest_code_of_several_runs_counts(codes: list[ExitCode], expected: ExitCode) -> None:
    assert most_severe(codes) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigurationError("wrong"), ExitCode.USAGE),
        (PluginError("none"), ExitCode.USAGE),
        (LeaseHeldError("held", holder="x"), ExitCode.HELD),
        (StoreError("gone"), ExitCode.FAILED),
        (ValueError("bug"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_each_error_has_its_code(error: BaseException, expected: ExitCode) -> None:
    assert code_of_error(error) is expected


@pytest.mark.parametrize(
    ("state", "signalled", "expected"),
    [
        ("succeeded", None, 0),
        ("succeeded", ExitCode.INTERRUPTED, 0),
        ("failed", None, 1),
        ("partial", None, 3),
        ("stopped", None, 3),
        ("stopped", ExitCode.TERMINATED, 143),
    ],
)
def test_each_end_of_a_run_has_its_code(state: Any, signalled: ExitCode | None, expected: int) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    result = RunResult(id="x", pipeline="daily", state=state, started_at=now, finished_at=now)
    assert code_of_result(result, signalled) == expected


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [(-1, ["error"]), (0, ["info", "warning", "error"]), (1, ["debug", "info", "warning", "error"])],
)
def test_verbosity_decides_what_is_said(verbosity: int, shown: list[Level]) -> None:
    messages = Messages(verbosity=verbosity)
    said: list[str] = []
    messages.write = said.append
    for level in LEVELS:
        messages.say(level, level)
    assert [line.split()[-1] for line in said] == shown


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_obey_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], terminal: bool, expected: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    class Stream:
        def isatty(self) -> bool:
            return terminal

    assert coloured(Stream()) is expected


def test_result_is_a_table_in_notebooks_and_escapes_names() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    account = RouteResult(sealed=1200, delivered=1200)
    routes = {"<lake>": RouteResult(streams={"deals": account})}
    result = RunResult(id="x", pipeline="daily", state="partial", started_at=now, finished_at=now, routes=routes)
    shown = result._repr_html_()
    assert "<td>&lt;lake&gt;</td><td>deals</td><td>0</td><td>1,200</td>" in shown
    assert "<b>daily</b> partial" in shown
