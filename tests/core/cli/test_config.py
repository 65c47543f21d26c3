"""``muxly config``: valid or not, shown, explained, and its schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.cli.commands import DAILY, answer, muxly, project


def test_valid_file_says_so_on_stderr(tmp_path: Path) -> None:
    result = muxly("config", "validate", project(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "is valid: 1 pipeline\n" in result.stderr


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    wrong = {**DAILY, "paralel": 3, "routes": {"lake": {"router": {"type": "fil", "path": "out"}}}}
    result = muxly("config", "validate", project(tmp_path, {"daily": wrong}))
    assert result.exit_code == 2
    assert 'did you mean "parallel"?' in result.stderr
    assert 'did you mean "file"?' in result.stderr


def test_show_joins_layers_and_masks_secrets(tmp_path: Path) -> None:
    file = project(tmp_path, store={"url": "postgresql://muxly:secret@db/muxly"})
    shown = answer("config", "show", file, "--set", "pipelines.daily.parallel=8")
    assert shown["pipelines"]["daily"]["parallel"] == 8
    text = muxly("config", "show", file, "--resolved").stdout
    assert "secret" not in text
    assert "parallel" not in text


def test_explain_shows_the_layer_that_counts(tmp_path: Path) -> None:
    words = ["-f", project(tmp_path), "--set", "pipelines.daily.parallel=8"]
    result = muxly("config", "explain", "pipelines.daily.parallel", *words)
    assert result.exit_code == 0
    assert "* command line: 8" in result.stdout


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("pipelines.daily.parralel", 'pipelines.daily has no "parralel"; did you mean "parallel"?'),
        ("pipelins.daily.parallel", 'the configuration has no "pipelins"; did you mean "pipelines"?'),
        ("pipelines.dayly.parallel", 'pipelines has no "dayly"; did you mean "daily"?'),
        ("pipelines.daily.routes.lake.router.fromat", 'routes.lake.router has no "fromat"; did you mean "format"?'),
        ("pipelines.daily.routes.lake.zzz", 'pipelines.daily.routes.lake has no "zzz"; known: router, '),
        ("pipelines.daily.routes.lake.where", "  * default: "),
        ("include", "not given, and without a default"),
    ],
)
def test_explain_of_a_key_that_nobody_gives(tmp_path: Path, key: str, said: str) -> None:
    result = muxly("config", "explain", key, "-f", project(tmp_path))
    assert result.exit_code == 0
    assert said in result.stdout


def test_explain_of_no_key_is_an_error(tmp_path: Path) -> None:
    result = muxly("config", "explain", "pipelines..daily", "-f", project(tmp_path))
    assert result.exit_code == 2


def test_schema_holds_the_options_of_plugins() -> None:
    result = muxly("config", "schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert "router.file" in schema["$defs"]
