"""``muxly completion``: a script for each shell."""

from __future__ import annotations

import pytest

from tests.core.cli.commands import muxly


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_calls_the_command(shell: str) -> None:
    result = muxly("completion", shell)
    assert result.exit_code == 0
    assert f"_MUXLY_COMPLETE={shell}_complete" in result.stdout


def test_unknown_shell_is_a_usage_error() -> None:
    result = muxly("completion", "csh")
    assert result.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
