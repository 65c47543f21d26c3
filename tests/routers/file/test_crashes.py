"""A delivery that replaces values is killed before every second of its steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("crashing_overwrite.py")
OLD = {"monday": ["monday", "old", 2], "tuesday": ["tuesday", "old", 2]}
NEW = {"monday": ["monday", "new", 2], "tuesday": ["tuesday", "new", 2]}


def test_killed_overwrite_shows_each_value_old_or_new_and_its_repeat_makes_all_new(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, PROGRAM, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 3 * 10, "there are many steps"
    for number in range(0, len(lines), 3):
        after_death, after_repeat, left = lines[number : number + 3]
        days = [row[0] for row in after_death]
        assert days == ["monday", "tuesday"], f"step {number // 3}: each value is there once"
        assert all(row in (OLD[row[0]], NEW[row[0]]) for row in after_death), f"step {number // 3}: old or new"
        assert after_repeat == list(NEW.values()), f"step {number // 3}"
        assert left == ["last"], f"step {number // 3}: nothing is left behind"
