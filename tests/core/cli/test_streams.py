"""``muxly streams``: of a configuration, and of a connector without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.commands import DAILY, answer, muxly, project

FAKE = "muxly_testing:FakeConnector"


def test_streams_of_a_file_show_routes_and_modes(tmp_path: Path) -> None:
    (found,) = answer("streams", project(tmp_path))
    assert (found["pipeline"], found["stream"], found["primary_key"]) == ("daily", "numbers", ["id"])
    assert found["routes"] == {"lake": "append"}


def test_stream_that_the_pipeline_leaves_out_is_said_not_to_be_read(tmp_path: Path) -> None:
    connector = {**DAILY["connector"], "names": ["deals", "notes"]}
    chosen = {**DAILY, "connector": connector, "streams": {"deals": {}}}
    found = answer("streams", project(tmp_path, {"daily": chosen}))
    assert [one["read"] for one in found] == ["incremental", "not read"]


def test_streams_of_a_type_need_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORD", "contacts")
    found = answer("streams", FAKE, "-o", 'names=["deals", "${WORD}"]', "-o", "records=5")
    assert [one["stream"] for one in found] == ["deals", "contacts"]


def test_relative_paths_of_options_start_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ships.csv").write_text("name\nAurora\n")
    assert "ships" in muxly("streams", "file", "-o", "path=ships.csv").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["file", "-o", "pat=x"], 'there is no option "pat"; did you mean "path"?'),
        (["file"], "-o path=... is missing"),
        (["file", "-o", "path"], "write KEY=VALUE"),
        ([FAKE, "-o", "records=-1"], "records"),
        (["fil", "-o", "path=x"], 'did you mean "file"?'),
        (["muxly_testing:FakeConector"], "FakeConector"),
        (["none.yaml"], "there is no such file"),
        (["none.yaml", "-o", "path=x"], "for a configuration use --set"),
    ],
)
def test_wrong_words_say_what_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = muxly("streams", *words)
    assert result.exit_code == 2
    assert said in result.stderr
