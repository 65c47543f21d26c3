"""What goes wrong with a SQLite file, and what the runner is told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import muxly
from muxly_routers.sql import errors
from tests.routers.sql.database import numbered, opened_router

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Two copies of SQLite in one process do not see each other's locks, so another process holds them.
HOLDING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            release(process)


def release(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    process.wait(20)


def ids(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as database:
        return [number for (number,) in database.execute("SELECT id FROM orders ORDER BY id")]


@pytest.fixture(params=[True, False], ids=["adbc", "sqlalchemy"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_file_that_is_locked_too_long_is_tried_again(tmp_path: Path, fast: bool) -> None:
    path = tmp_path / "records.db"
    with opened_router(f"sqlite:///{path}", fast_path=fast, lock_seconds=1) as router:
        router.deliver(numbered([1]))
        with held_by_another_process(path), pytest.raises(muxly.RetryableError, match="locked"):
            router.deliver(numbered([2]))
        router.deliver(numbered([2]))
    assert ids(path) == [1, 2]


def test_lock_of_another_program_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with opened_router(f"sqlite:///{path}", lock_seconds=60) as router:
        router.deliver(numbered([1]))
        with held_by_another_process(path) as process:
            timer = threading.Timer(0.3, release, [process])
            timer.start()
            router.deliver(numbered([2]))
            timer.join()
    assert ids(path) == [1, 2]


def test_run_that_stops_does_not_wait_for_a_lock(tmp_path: Path) -> None:
    path, stop = tmp_path / "records.db", threading.Event()
    with opened_router(f"sqlite:///{path}", stop=stop, lock_seconds=600) as router:
        router.deliver(numbered([1]))
        router.close()
        with held_by_another_process(path):
            timer = threading.Timer(0.2, stop.set)
            timer.start()
            with pytest.raises((muxly.StoppedError, muxly.RetryableError), match=r"stop|locked"):
                router.deliver(numbered([2]))
            timer.join()


def test_routers_of_one_process_take_turns(tmp_path: Path, fast: bool) -> None:
    path, errors = tmp_path / "records.db", list[Exception]()
    (tmp_path / "link").symlink_to(tmp_path)

    def deliver(number: int) -> None:
        way = path if number % 2 else tmp_path / "link" / "records.db"
        try:
            with opened_router(f"sqlite:///{way}", fast_path=fast, lock_seconds=1) as router:
                for turn in range(5):
                    router.deliver(numbered([number * 10 + turn]))
        except Exception as error:  # noqa: BLE001 (shown by the test)
            errors.append(error)

    threads = [threading.Thread(target=deliver, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert ids(path) == [number * 10 + turn for number in range(4) for turn in range(5)]


def test_file_that_is_no_database_stops_the_route(tmp_path: Path, fast: bool) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no database" * 1000)
    with opened_router(f"sqlite:///{path}", fast_path=fast) as router:
        with pytest.raises(muxly.RouteError, match="not a database"):
            router.deliver(numbered([1]))
        (notice,) = router.check()
        assert (notice.code, notice.level) == ("database_unreachable", "error")
    assert path.read_bytes() == b"no database" * 1000


def test_folder_that_cannot_be_made_stops_the_route(tmp_path: Path, fast: bool) -> None:
    (tmp_path / "file").touch()
    with (
        opened_router(f"sqlite:///{tmp_path}/file/records.db", fast_path=fast) as router,
        pytest.raises(muxly.RouteError, match="cannot be made"),
    ):
        router.deliver(numbered([1]))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory"])
def test_database_in_memory_is_refused(url: str, fast: bool) -> None:
    with opened_router(url, fast_path=fast) as router, pytest.raises(muxly.ConfigurationError, match="needs a file"):
        router.deliver(numbered([1]))


def test_schema_is_refused(tmp_path: Path, fast: bool) -> None:
    path = tmp_path / "records.db"
    with (
        opened_router(f"sqlite:///{path}", fast_path=fast, schema="raw") as router,
        pytest.raises(muxly.ConfigurationError, match="sqlite has no schemas; leave schema: out"),
    ):
        router.deliver(numbered([1]))
    assert not path.exists()


def test_check_makes_nothing(tmp_path: Path, fast: bool) -> None:
    with opened_router(f"sqlite:///{tmp_path}/new/records.db", fast_path=fast) as router:
        (notice,) = router.check()
    assert (notice.code, notice.level) == ("database_missing", "info")
    assert not list(tmp_path.iterdir())


def test_check_tells_the_version(tmp_path: Path, fast: bool) -> None:
    with opened_router(f"sqlite:///{tmp_path}/records.db", fast_path=fast) as router:
        router.deliver(numbered([1]))
        (notice,) = router.check()
    assert (notice.code, notice.level) == ("database", "info")
    assert "sqlite 3" in notice.message.lower()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("database is locked", "retry"),
        ("database or disk is full", "retry"),
        ("disk I/O error", "retry"),
        ("attempt to write a readonly database", "denied"),
        ("UNIQUE constraint failed: orders.id", "value"),
        ("CHECK constraint failed: price", "value"),
        ("no such table: orders", "stale"),
        ("table orders has no column named x", "stale"),
        ("table orders already exists", "stale"),
        ("near SELECT: syntax error", None),
    ],
)
def test_message_says_what_is_to_be_done(message: str, kind: str | None) -> None:
    assert errors.kind_of_sqlite(message) == kind


@pytest.mark.parametrize(
    ("states", "kind"),
    [
        (["08006", "08P01", "40001", "40P01", "53100", "53300", "57P01", "57P03", "57014", "55P03", "25006"], "retry"),
        (["22003", "22001", "22021", "22P05", "23502", "23503", "23505", "23514", "54000"], "value"),
        (["42P01", "42703", "42P07", "42701", "42804", "22P03", "0A000", "42710"], "stale"),
        (["28000", "28P01", "42501"], "denied"),
        (["2BP01", "42P10", "42809", "54011", "55000"], "table"),
        (["42601", "3D000"], "wrong"),
    ],
)
def test_sqlstate_says_what_is_to_be_done(states: list[str], kind: str) -> None:
    assert {errors.kind_of_state(state, "") for state in states} == {kind}
