"""The way of a batch stays short: few files, few generators that hand it on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks/batch_path.py"
MOST_FILES = 60
MOST_WRAPPINGS = 9


def test_a_batch_passes_few_files_and_few_generators() -> None:
    ran = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    counts = re.fullmatch(r"(\d+) files, (\d+) wrappings\n", ran.stdout)
    assert counts is not None
    files, wrappings = map(int, counts.groups())
    assert 20 <= files <= MOST_FILES
    assert 3 <= wrappings <= MOST_WRAPPINGS
