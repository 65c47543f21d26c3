"""Fixtures of every test: a clean environment, and rules for hypothesis that hold on a loaded machine."""

from __future__ import annotations

import os

import hypothesis
import pytest

pytest_plugins = [
    "tests.fixtures_http",
    "tests.fixtures_mariadb",
    "tests.fixtures_postgres",
    "tests.fixtures_prometheus",
    "tests.fixtures_s3",
    "tests.fixtures_slack",
    "tests.skips",
]

# A deadline measures the machine, not the code; and a failure is of use only if it can be repeated.
hypothesis.settings.register_profile("muxly", deadline=None, print_blob=True)
hypothesis.settings.load_profile("muxly")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would change Muxly's behaviour on one developer's machine only."""
    for name in list(os.environ):
        if name.startswith("MUXLY_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}:
            monkeypatch.delenv(name)
