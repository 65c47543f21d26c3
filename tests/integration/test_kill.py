"""kill -9 between any two steps, twice in a row too: nothing is lost, nothing doubled, nothing stuck."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define

if TYPE_CHECKING:
    import duckdb

FIRST, SECOND = 60, 80
SHAPES = ("append", "overwrite")
STREAMS = {"append": ("numbers", "catalog"), "overwrite": ("days",)}
# All points (KILL_POINTS=0) take many minutes; a sample, another one for each KILL_SEED, finds what matters.
SAMPLED = int(os.environ.get("KILL_POINTS", "6"))
SEED = int(os.environ.get("KILL_SEED", "1"))


@define
class Killable:
    """The process that runs pipelines and can be told to die."""

    process: subprocess.Popen[str]

    def run(self, folder: Path, shape: str, records: int, die_before: int | None = None) -> dict[str, Any]:
        order = {"folder": str(folder), "shape": shape, "records": records, "die_before": die_before}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    script = Path(__file__).with_name("killed_process.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Killable(process)
        assert process.stdin is not None
        process.stdin.close()


@functools.cache
def reader() -> duckdb.DuckDBPyConnection:
    """Another tool, which reads for all tests: to make one takes longer than to read."""
    import duckdb

    return duckdb.connect()


def records_seen(folder: Path, route: str, stream: str) -> Counter[int]:
    """The ids that another tool finds in what a route wrote, without any knowledge of Muxly."""
    files = [str(one) for one in Path(folder, route, stream).rglob("*") if one.is_file() and ".muxly" not in one.parts]
    if not files:
        return Counter()
    function = "read_parquet" if route == "lake" else "read_json_auto"
    found = reader().execute(f"SELECT id FROM {function}({files!r})").fetchall()
    return Counter(number for (number,) in found)


def look(folder: Path, shape: str, most: int) -> None:
    """What a reader sees at any moment is whole: known records, each once, and generations entire."""
    for route in ("lake", "lines"):
        for stream in STREAMS[shape]:
            seen = records_seen(folder, route, stream)
            assert set(seen) <= set(range(most)), f"{route} {stream} shows records that never were"
            assert not seen or max(seen.values()) == 1, f"{route} {stream} shows doubled records {seen}"
            if stream == "catalog":
                assert len(seen) in {0, FIRST, most}, f"{route} shows a part of a generation: {sorted(seen)}"
            if stream == "days":
                assert len(seen) % 10 == 0, f"{route} shows a part of a day: {sorted(seen)}"


def assert_whole(folder: Path, shape: str, records: int) -> None:
    for route in ("lake", "lines"):
        for stream in STREAMS[shape]:
            assert records_seen(folder, route, stream) == Counter(range(records)), f"{route} {stream}"


def assert_recovers(killable: Killable, folder: Path, shape: str, records: int) -> None:
    """A run without faults delivers everything, balances, and leaves nothing for the next one."""
    result = killable.run(folder, shape, records)
    assert result.get("state") == "succeeded", result
    assert result["balanced"], result
    assert result["pending"] == 0, result
    assert_whole(folder, shape, records)
    spool = Path(folder, "home", "spool", "killed")
    assert not [one.name for one in spool.iterdir() if one.name.endswith(".tmp")], "drafts are left in the spool"


def kill_points(killable: Killable, folder: Path, shape: str, start: Path | None) -> list[int]:
    """The numbers of the steps to die before: a sample, or all of them."""
    if start is not None:
        shutil.copytree(start, folder)
    steps = killable.run(folder, shape, SECOND)["steps"]
    shutil.rmtree(folder)
    points = list(range(steps))
    return points if SAMPLED == 0 else sorted(Random(SEED).sample(points, min(SAMPLED, steps)))


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_at_any_step_of_the_first_run(killable: Killable, tmp_path: Path, shape: str) -> None:
    for point in kill_points(killable, tmp_path / "count", shape, None):
        folder = tmp_path / f"at-{point}"
        killable.run(folder, shape, SECOND, die_before=point)
        look(folder, shape, SECOND)
        assert_recovers(killable, folder, shape, SECOND)


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_again_while_it_recovers(killable: Killable, tmp_path: Path, shape: str) -> None:
    start = tmp_path / "start"
    assert_recovers(killable, start, shape, FIRST)
    random = Random(SEED)
    for point in kill_points(killable, tmp_path / "count", shape, start):
        folder = tmp_path / f"at-{point}"
        shutil.copytree(start, folder)
        killable.run(folder, shape, SECOND, die_before=point)
        look(folder, shape, SECOND)
        killable.run(folder, shape, SECOND, die_before=random.randrange(point + 20))
        look(folder, shape, SECOND)
        assert_recovers(killable, folder, shape, SECOND)
        shutil.rmtree(folder)


def test_a_run_after_everything_is_delivered_reads_and_delivers_nothing_again(
    killable: Killable, tmp_path: Path
) -> None:
    assert_recovers(killable, tmp_path, "overwrite", FIRST)
    again = killable.run(tmp_path, "overwrite", FIRST)
    assert again["state"] == "succeeded", again
    assert again["delivered"] == {"lake": 0, "lines": 0}
