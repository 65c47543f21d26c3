"""The command line as a process: exit codes, signals, pipes, terminals, and what it imports."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SLOW = {"type": "muxly_testing:FakeConnector", "endless": True, "batch_seconds": 0.02}
FAST = {"type": "muxly_testing:FakeConnector", "records": 30}
LAKE = {"lake": {"router": {"type": "file", "path": "out", "format": "jsonl"}}}


def project(folder: Path, connector: dict[str, Any], **options: Any) -> Path:
    """A configuration whose groups end at once."""
    daily = {"connector": connector, "routes": LAKE, "segment_bytes": 1, "segment_seconds": 0, **options}
    file = folder / "muxly.json"
    file.write_text(json.dumps({"version": 1, "pipelines": {"daily": daily}}))
    return file


def begin(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Start the command; its stdout and stderr are pipes."""
    command = [sys.executable, "-m", "muxly", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, stdout and stderr; no command ends with a traceback."""
    stdout, stderr = process.communicate(timeout=90)
    assert "Traceback" not in stderr
    return process.returncode, stdout, stderr


def wait_for_delivery(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run has delivered something."""
    until = time.monotonic() + 60
    while not list(folder.glob("out/**/*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)


def test_run_of_everything_ends_with_0(tmp_path: Path) -> None:
    code, stdout, _ = finish(begin("run", project(tmp_path, FAST)))
    assert code == 0
    assert stdout.startswith("daily: succeeded")


def test_program_is_called_muxly_however_it_is_started() -> None:
    code, stdout, _ = finish(begin("--help"))
    assert (code, stdout.partition("\n")[0]) == (0, "Usage: muxly [OPTIONS] [COMMAND] [ARGS]...")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_at_a_group_end_and_the_next_run_goes_on(tmp_path: Path, number: int, code: int) -> None:
    file = project(tmp_path, SLOW)
    process = begin("run", file)
    wait_for_delivery(tmp_path, process)
    process.send_signal(number)
    ended, stdout, stderr = finish(process)
    assert ended == code
    assert stdout.startswith("daily: stopped")
    assert "stopping at the end of the current group" in stderr
    _, stdout, _ = finish(begin("run", file, "--json", "--timeout", "1"))
    assert json.loads(stdout)["routes"]["lake"]["balanced"]
    ids = [json.loads(line)["id"] for path in tmp_path.glob("out/**/*.jsonl") for line in path.read_text().splitlines()]
    assert len(ids) == len(set(ids))


def test_second_signal_leaves_at_once(tmp_path: Path) -> None:
    hanging = {"router": {"type": "muxly_testing:ChaosRouter", "faults": [{"method": "deliver", "action": "hang"}]}}
    file = project(tmp_path, SLOW, routes={**LAKE, "stuck": {**hanging, "mode": "append"}})
    process = begin("run", file)
    wait_for_delivery(tmp_path, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_second_run_of_a_pipeline_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    file = project(tmp_path, SLOW)
    process = begin("run", file)
    wait_for_delivery(tmp_path, process)
    code, stdout, stderr = finish(begin("run", file))
    assert (code, stdout) == (75, "")
    assert f"process {process.pid}" in stderr
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m muxly run {project(tmp_path, FAST)} | head -c 5"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "daily", "")


def test_stdout_that_is_closed_already_is_no_error(tmp_path: Path) -> None:
    process = begin("run", project(tmp_path, FAST))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_piped_output_is_plain_unless_colour_is_forced(tmp_path: Path) -> None:
    file = project(tmp_path, FAST)
    assert "\x1b" not in "".join(finish(begin("run", file))[1:])
    assert "\x1b[" in finish(begin("run", file, FORCE_COLOR="1"))[1]
    assert "\x1b" not in "".join(finish(begin("run", file, NO_COLOR="1", FORCE_COLOR="1"))[1:])


def on_terminal(*words: object, **environment: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; its exit code and all it wrote."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment}
    command = [sys.executable, "-m", "muxly", *map(str, words)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings)
    os.close(theirs)
    written = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if not ready and process.poll() is not None:
            break
        try:
            written += os.read(ours, 65536) if ready else b""
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(ours)
    return process.wait(60), written.decode()


def test_terminal_shows_a_line_for_each_stream_and_route(tmp_path: Path) -> None:
    file = project(tmp_path, {**FAST, "records": 2000, "batch_seconds": 0.1})
    code, written = on_terminal("run", file)
    assert code == 0
    assert re.search(r"daily numbers.* of 2,000 read", written)
    assert re.search(r"daily → lake.* delivered", written)
    assert "\x1b[?25h" in written  # the cursor is shown again
    assert "─────" in written  # the table at the end is drawn


def test_terminal_without_colour_still_shows_progress(tmp_path: Path) -> None:
    file = project(tmp_path, {**FAST, "records": 1000, "batch_seconds": 0.1})
    _, written = on_terminal("run", file, NO_COLOR="1")
    assert "delivered" in written
    assert not re.search(r"\x1b\[[\d;]*3[0-9]", written)


def test_dumb_terminal_is_given_plain_lines(tmp_path: Path) -> None:
    _, written = on_terminal("run", project(tmp_path, FAST), TERM="dumb")
    assert "\x1b" not in written


IMPORTS = """
import sys
from muxly.cli._app import app
try:
    app.main(sys.argv[1:])
except SystemExit as end:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
    sys.exit(end.code)
"""
HEAVY = set(
    re.findall(r"\w+", "alembic cattrs duckdb jsonschema numpy pandas polars pyarrow rich sqlalchemy yaml pluggy")
)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["plugins"], ["run", "--help"], ["completion", "bash"]])
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTS, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    loaded = set(ran.stderr.split())
    assert "click" in loaded
    assert sorted(loaded & HEAVY) == []
    assert sorted(name for name in loaded if name.startswith("muxly_")) == []


def test_help_imports_click_and_no_other_package() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTS, "--help"], capture_output=True, text=True, check=False)
    assert "attr" not in ran.stderr.split()


def test_shell_completes_commands() -> None:
    process = begin(_MUXLY_COMPLETE="bash_complete", COMP_WORDS="muxly dead", COMP_CWORD="1")
    assert finish(process)[1].splitlines() == ["plain,dead-letters"]
