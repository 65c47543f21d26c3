"""User code type-checks under ``mypy --strict``, and its mistakes are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("docs/examples/muxly-*"))


def checked(*paths: Path) -> str:
    """What mypy says about them, without any setting but ``--strict``."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--enable-error-code=ignore-without-code"]
    command += ["--explicit-package-bases", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)
    return done.stdout + done.stderr


def test_user_code_passes_and_mistakes_are_found() -> None:
    output = checked(Path(__file__).parent / "user_code.py", Path(__file__).parent / "user_mistakes.py")
    assert output.startswith("Success"), output


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_plugin_passes(example: Path) -> None:
    output = checked(example / "src")
    assert output.startswith("Success"), output
