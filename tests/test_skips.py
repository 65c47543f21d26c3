"""What becomes of tests that are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUITE = """
import pytest

@pytest.mark.parametrize("mode", ["upsert", "upsert", "replace"])
def test_mode(mode):
    pytest.skip(f"the router does not declare the mode {mode}")

@pytest.fixture(scope="session")
def server():
    pytest.skip("mariadbd is not installed; run: apt-get install mariadb-server")

@pytest.mark.parametrize("number", range(2))
def test_server(server, number): ...

@pytest.mark.skipif(True, reason="only Linux tells what is in memory")
def test_linux(): ...

@pytest.mark.xfail(raises=ZeroDivisionError)
def test_division():
    1 / 0
"""
MODULE = "import pytest\npytest.importorskip('no_such_module')\n"


def run(folder: Path, *options: str, ci: str = "") -> tuple[int, str]:
    """Exit code and output of pytest over a small suite."""
    (folder / "test_small.py").write_text(SUITE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ci}
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [("-q",), ("-n2",)])
def test_skipped_tests_are_counted_by_their_reason(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said = run(tmp_path, *options)
    assert code == 0, said
    begin = said.index("3 skipped: they do not apply to the component")
    lines = [line.strip("- ") for line in said[begin:].splitlines()]
    assert lines[:6] == [
        "3 skipped: they do not apply to the component",
        "2  the router does not declare the mode upsert",
        "1  the router does not declare the mode replace",
        "3 skipped: they cannot run on this machine",
        "2  mariadbd is not installed; run: apt-get install mariadb-server",
        "1  only Linux tells what is in memory",
    ]


@pytest.mark.parametrize("options", [("-q",), ("-n2",)])
def test_what_cannot_run_has_failed_where_ci_is_set(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said = run(tmp_path, *options, ci="true")
    assert code == 1, said
    assert "3 skipped: they do not apply to the component" in said
    assert "they cannot run on this machine" not in said
    assert "every test must: mariadbd is not installed; run: apt-get install mariadb-server" in said
    assert "every test must: only Linux tells what is in memory" in said
    assert "3 skipped, 1 xfailed, 3 errors" in said


def test_module_that_cannot_be_imported_has_failed_where_ci_is_set(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text(MODULE)
    assert run(tmp_path, "-q")[0] == 0
    code, said = run(tmp_path, "-q", ci="true")
    assert code == 2
    assert "every test must: could not import 'no_such_module'" in said
