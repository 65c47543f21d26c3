"""The top of the command line: help, version, wrong words, and how errors end."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click
import pytest

from muxly.cli import _app
from muxly.cli._app import COMMANDS, app
from tests.core.cli.commands import DAILY, muxly, project

NAMES = [name for section in COMMANDS.values() for name in section]


def every_command() -> list[list[str]]:
    found = []
    for name in NAMES:
        command = app.get_command(click.Context(app), name)
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.commands]
    return found


def test_help_lists_every_command_after_the_examples() -> None:
    result = muxly("--help")
    assert result.exit_code == 0
    assert result.stdout.index("Examples:") < result.stdout.index("Options:")
    assert [name for name in NAMES if f"\n  {name} " not in result.stdout] == []


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_help_of_each_command_leads_with_examples(words: list[str]) -> None:
    result = muxly(*words, "-h")
    assert result.exit_code == 0
    assert result.stdout.index("Examples:") < result.stdout.index("Options:")
    assert f"muxly {' '.join(words)}" in result.stdout[result.stdout.index("Examples:") :]


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_unknown_option_of_each_command_is_a_usage_error(words: list[str]) -> None:
    result = muxly(*words, "--no-such-option")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "--help" in result.stderr
    assert result.stdout == ""


def test_version_is_that_of_the_core() -> None:
    from importlib.metadata import version

    assert muxly("--version").stdout == f"muxly {version('muxly-core')}\n"


def test_no_command_shows_help_on_stderr_and_is_a_usage_error() -> None:
    result = muxly()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Examples:" in result.stderr


def test_unknown_command_names_the_nearest() -> None:
    result = muxly("rum")
    assert result.exit_code == 2
    assert "there is no command 'rum'; did you mean \"run\"?" in result.stderr


def test_unknown_command_of_a_group_lists_the_known() -> None:
    result = muxly("config", "xyz")
    assert result.exit_code == 2
    assert "known: validate, show, explain, schema" in result.stderr


def test_messages_may_be_lines_of_json(tmp_path: Path) -> None:
    result = muxly("config", "validate", project(tmp_path), "--log-format", "json")
    line = json.loads(result.stderr)
    assert line["level"] == "info"
    assert line["message"].endswith("is valid: 1 pipeline")
    assert line["at"].endswith("Z")


def test_errors_of_usage_are_lines_of_json_too() -> None:
    line = json.loads(muxly("--log-format", "json", "rum").stderr)
    assert (line["level"], line["message"].partition(";")[0]) == ("error", "there is no command 'rum'")


def test_quiet_says_only_errors(tmp_path: Path) -> None:
    assert muxly("-q", "config", "validate", project(tmp_path)).stderr == ""
    assert muxly("config", "validate", tmp_path / "none.yaml", "-q").stderr.startswith("error: ")


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command raise."""

    def invoke(*_args: object) -> None:
        raise error

    monkeypatch.setattr(_app.App, "invoke", invoke)


def test_unexpected_error_is_a_sentence_and_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, ZeroDivisionError("by zero"))
    result = muxly("runs")
    assert result.exit_code == 1
    said = [
        "error: unexpected ZeroDivisionError: by zero",
        "MUXLY_DEBUG=1 shows where the ZeroDivisionError comes from",
    ]
    assert result.stderr.splitlines() == said


@pytest.mark.parametrize("how", ["environment", "option"])
def test_traceback_is_shown_to_those_who_ask(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from click.testing import CliRunner

    words = ["-vv", "config", "validate", "none.yaml"] if how == "option" else ["config", "validate", "none.yaml"]
    if how == "environment":
        monkeypatch.setenv("MUXLY_DEBUG", "1")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, KeyboardInterrupt())
    assert muxly("runs").exit_code == 130


def test_commands_leave_logging_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    muxly("config", "validate", project(tmp_path), "-v")
    assert (root.level, list(root.handlers)) == before


def test_logging_of_plugins_is_heard(tmp_path: Path) -> None:
    (tmp_path / "noisy_plugin.py").write_text(
        "import logging\n"
        "from muxly_testing import FakeConnector\n"
        "class Noisy(FakeConnector):\n"
        "    def open(self, run):\n"
        "        logging.getLogger('noisy').warning('it is %s', 'loud')\n"
        "        super().open(run)\n"
    )
    noisy = {**DAILY, "connector": {"type": "noisy_plugin:Noisy"}}
    result = muxly("streams", project(tmp_path, {"daily": noisy}))
    assert "warning: it is loud" in result.stderr


def test_shell_completion_offers_commands() -> None:
    assert [item.value for item in app.shell_complete(click.Context(app), "re")] == ["replay"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_calls_the_command(shell: str) -> None:
    result = muxly("completion", shell)
    assert result.exit_code == 0
    assert f"_MUXLY_COMPLETE={shell}_complete" in result.stdout


def test_unknown_shell_is_a_usage_error() -> None:
    result = muxly("completion", "csh")
    assert result.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
