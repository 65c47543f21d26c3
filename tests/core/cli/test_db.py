"""``muxly db``: revision, upgrade and soundness of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxly.store.schema import upgrade
from tests.core.cli.commands import answer, muxly, project


def test_store_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    file = project(tmp_path)
    assert "there is no store yet" in muxly("db", "current", file).stdout
    assert answer("db", "current", file)["revision"] is None
    result = muxly("db", "check", file)
    assert result.exit_code == 1
    assert "the first run or `muxly db upgrade` creates it" in result.stderr
    assert not (tmp_path / ".muxly").exists()


def test_upgrade_makes_the_store_and_check_is_content(tmp_path: Path) -> None:
    file = project(tmp_path)
    assert muxly("db", "upgrade", file).exit_code == 0
    assert answer("db", "current", file)["revision"] == upgrade.head()
    assert muxly("db", "current", file).stdout.startswith(f"revision {upgrade.head()}")
    assert answer("db", "check", file) == []


def test_home_or_url_need_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert muxly("db", "upgrade", "--home", tmp_path / "state").exit_code == 0
    found = answer("db", "current", "--store", f"sqlite:///{tmp_path}/state/store.sqlite")
    assert found["revision"] == upgrade.head()


def test_damaged_store_is_a_sentence(tmp_path: Path) -> None:
    file = project(tmp_path)
    muxly("db", "upgrade", file)
    (tmp_path / ".muxly" / "store.sqlite").write_bytes(b"not a database at all" * 1000)
    result = muxly("db", "check", file)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("name", ["current", "upgrade", "check"])
def test_store_of_another_kind_is_refused(name: str) -> None:
    result = muxly("db", name, "--store", "mysql://db/muxly")
    assert result.exit_code == 1
    assert "'mysql' cannot be used as a store" in result.stderr
