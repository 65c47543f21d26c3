"""A program that replaces a value's records, and dies before every second of its steps; run by ``test_crashes``.

Each attempt is a child of its own. It prints what a reader sees after the death, and after the repeat.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import muxly
from muxly_routers.file import File
from muxly_routers.file import folder as rename
from muxly_testing import delivery

STEPS = ("write", "fsync", "mkdir", "unlink", "rmdir", "link", "rename", "open")
DAYS = muxly.Stream("report", overwrite_key="day")


def replace(root: Path, run: str, id: str, value: str) -> None:
    router = File(path=root, format="jsonl")
    router.open(muxly.Run(run, "daily"))
    records = [{"day": day, "value": value} for day in ("monday", "tuesday") for _ in range(2)]
    router.deliver(delivery(records, DAYS, id=id, mode="overwrite", replaces=["monday", "tuesday", "sunday"]))
    router.close()


def seen(root: Path) -> Any:
    lines = [line for path in root.glob("report/**/*.jsonl") for line in path.read_text().splitlines()]
    counts = Counter(tuple(json.loads(line).values()) for line in lines)
    return sorted([*row, count] for row, count in counts.items())


def die_before(number: int) -> None:
    """Let this process end, as if killed, before the step of that number."""
    left = [number]

    def watched(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return real(*arguments, **options)

        return call

    for name in STEPS:
        setattr(os, name, watched(getattr(os, name)))
    rename._rename = watched(rename._rename)


def in_child(work: Any) -> bool:
    """Whether the work was finished."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- shown, and the child ends
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 0


def main(folder: Path) -> None:
    # Loads once, for all children, whatever writing needs.
    replace(folder / "loaded", "01A", "01A", "old")
    before = folder / "before"
    in_child(lambda: replace(before, "01A", "01A", "old"))
    number, finished = 0, False
    while not finished:
        root = folder / str(number)
        shutil.copytree(before, root)

        def attempt(root: Path = root, number: int = number) -> None:
            die_before(number)
            replace(root, "01B", "01B", "new")

        def repeat(root: Path = root) -> None:
            replace(root, "01C", "01B", "new")

        finished = in_child(attempt)
        print(json.dumps(seen(root)))
        in_child(repeat)
        print(json.dumps(seen(root)))
        print(json.dumps(sorted(path.name.rsplit(".", 1)[-1] for path in (root / ".muxly").iterdir())), flush=True)
        number += 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
