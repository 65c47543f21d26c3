"""``muxly plugins``: from metadata alone, and what the doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxly import _plugins
from tests.core.cli.commands import answer, muxly


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution whose connector raises at import."""
    folder = tmp_path / "muxly_broken-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: muxly-broken\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text("[muxly.connectors]\nbroken = muxly_broken_plugin\n")
    (tmp_path / "muxly_broken_plugin.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _plugins.forget()


def test_list_names_what_type_can_be() -> None:
    found = answer("plugins")
    assert {("connector", "file"), ("router", "file")} <= {(one["kind"], one["name"]) for one in found}
    routers = [one["name"] for one in answer("plugins", "list", "--kind", "router")]
    assert routers == ["file", "prometheus", "s3", "slack", "sql", "webhook"]


def test_list_shows_a_broken_plugin_without_importing_it(broken_plugin: None) -> None:
    result = muxly("plugins")
    assert result.exit_code == 0
    assert "muxly-broken" in result.stdout


def test_doctor_reports_each_and_fails_for_a_broken_one(broken_plugin: None) -> None:
    result = muxly("plugins", "doctor")
    assert result.exit_code == 1
    assert "RuntimeError: no licence" in result.stdout
    assert "works" in result.stdout


def test_doctor_is_content_with_ours() -> None:
    _plugins.forget()
    assert {one["state"] for one in answer("plugins", "doctor")} == {"works"}


def test_unknown_kind_is_a_usage_error() -> None:
    result = muxly("plugins", "list", "--kind", "sink")
    assert result.exit_code == 2
    assert "'sink' is not one of 'connector', 'router'" in result.stderr
