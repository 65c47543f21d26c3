"""The README of muxly-testing shows a test that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import muxly_testing

README = Path(__file__).parents[2] / "muxly-testing" / "README.md"


def test_example_of_the_readme_passes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (tmp_path / "test_numbers.py").write_text(example, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_numbers.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)


def test_readme_lists_every_public_name() -> None:
    text = README.read_text("utf-8")
    assert [name for name in dir(muxly_testing) if f"`{name}`" not in text] == []
