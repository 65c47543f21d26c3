"""User code type-checks under ``mypy --strict``, and its mistakes are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("docs/examples/muxly-*"))


def checked(*paths: Path) -> str:
    """What mypy says about them, without any setting but ``--strict``."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--enable-error-code=ignore-without-code"]
    command += ["--explicit-package-bases", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)
    return done.stdout + done.stderr


def test_user_code_and_examples_pass_and_mistakes_are_found() -> None:
    """All at once: most of the time goes into the libraries that they import."""
    here = Path(__file__).parent
    output = checked(here / "user_code.py", here / "user_mistakes.py", *(example / "src" for example in EXAMPLES))
    assert output == f"Success: no issues found in {2 + len(EXAMPLES)} source files\n"
