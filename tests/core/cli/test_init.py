"""``muxly init``: what it writes runs at once, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.commands import answer, muxly


def test_written_pipeline_runs_at_once(tmp_path: Path) -> None:
    result = muxly("init", tmp_path / "demo")
    assert result.exit_code == 0
    assert f"next: muxly run {tmp_path}/demo/muxly.yaml" in result.stderr
    found = answer("run", tmp_path / "demo" / "muxly.yaml")
    assert {name: one["delivered"] for name, one in found["routes"].items()} == {"lake": 5, "arrivals": 5}
    assert len(list((tmp_path / "demo" / "out").rglob("*.parquet"))) == 1


def test_working_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert muxly("init").stderr.endswith("next: muxly run\n")
    assert muxly("run").exit_code == 0


@pytest.mark.parametrize("name", ["muxly.yaml", "data/ships.csv"])
def test_existing_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = muxly("init", tmp_path)
    assert result.exit_code == 2
    assert f"{name} already exists and was not overwritten" in result.stderr
    assert (tmp_path / name).read_text() == "mine"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [tmp_path / name]


def test_ignored_files_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    assert muxly("init", tmp_path).exit_code == 0
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = muxly("init", tmp_path / "file" / "demo")
    assert result.exit_code == 2
    assert "cannot be written: Not a directory" in result.stderr
