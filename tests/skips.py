"""Skipped tests, counted by their reason; on a machine that tests for others, what cannot run has failed."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport", "pytest_terminal_summary"]

_INAPPLICABLE = (
    r"the router does not declare the mode \w+",
    r"the router does not promise effectively_once",
    r"the router has only the mode replace",
    r"(broken|hanging|slow)\(\) gives no .+",
    r"the receiver drops it: it knows the id",
)
"""Why a test says nothing about a component, on whatever machine. Every other reason is one of the machine."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count what cannot run as failed, where nothing may be missing."""
    report = yield
    _fail_if_it_must_run(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module."""
    report = yield
    _fail_if_it_must_run(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many were skipped for each reason."""
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if not hasattr(one, "wasxfail")]
    counts = Counter(_reason(report) for report in skipped)
    inapplicable = {reason: count for reason, count in counts.items() if _is_inapplicable(reason)}
    impossible = {reason: count for reason, count in counts.items() if reason not in inapplicable}
    for title, found in (("do not apply to the component", inapplicable), ("cannot run on this machine", impossible)):
        if found:
            terminalreporter.section(f"{sum(found.values())} skipped: they {title}", sep="-")
            for line in _lines(found.items()):
                terminalreporter.write_line(line)


def _lines(counts: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{count:5}  {reason}" for reason, count in sorted(counts, key=lambda one: (-one[1], one[0]))]


def _fail_if_it_must_run(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail") or not os.environ.get("CI"):
        return
    reason = _reason(report)
    if not _is_inapplicable(reason):
        report.outcome = "failed"
        report.longrepr = f"cannot run on this machine, where CI is set and every test must: {reason}"


def _is_inapplicable(reason: str) -> bool:
    return any(re.fullmatch(pattern, reason) for pattern in _INAPPLICABLE)


def _reason(report: Any) -> str:
    """Why a test was skipped; pytest says it behind a word of its own."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple | list) else str(report.longrepr)
    return str(said).removeprefix("Skipped: ")
