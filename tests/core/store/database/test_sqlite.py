"""A damaged, foreign or lost SQLite file is refused with the way back; none is ever replaced by a new one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from muxly.errors import StoreError
from muxly.store.database import sqlite
from muxly.store.database.engine import open_engine, reading, transaction
from muxly.store.database.sqlite import sidecars
from muxly.store.schema.upgrade import check, current, open_store, upgrade
from tests.core.store.schema.upgrading import fill

_Open = Callable[[str], Engine]
_WAY_BACK = r"store\.db is damaged: .*Nothing was changed\. Restore the file from a backup .*move it and the spool away"


@pytest.fixture
def file(sqlite_store_url: str, tmp_path: Path) -> Path:
    """A closed store with a few rows."""
    engine = open_store(sqlite_store_url)
    fill(engine)
    engine.dispose()
    return tmp_path / ".muxly" / "store.db"


@pytest.mark.parametrize("kept", [0, 1, 50, 99, 100, 4096, 20_000, -4096])
def test_truncated_file_is_refused(file: Path, sqlite_store_url: str, kept: int) -> None:
    whole = file.read_bytes()
    left = whole[:kept]
    file.write_bytes(left)
    for use in (open_store, current, upgrade, check):
        with pytest.raises(StoreError, match=_WAY_BACK):
            use(sqlite_store_url)
    assert file.read_bytes() == left


@pytest.mark.parametrize("content", [b"\0" * 8192, b"version: 1\n" * 1000], ids=["zeros", "text"])
def test_file_that_is_no_database_is_refused(file: Path, sqlite_store_url: str, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged: it is not a SQLite file"):
        open_store(sqlite_store_url)
    assert file.read_bytes() == content


def test_flipped_bit_in_the_header_does_no_harm_or_is_refused(file: Path, sqlite_store_url: str, opened: _Open) -> None:
    whole = file.read_bytes()
    refused = 0
    for place in range(100):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        file.write_bytes(broken)
        try:
            engine = open_store(sqlite_store_url)
        except StoreError:
            refused += 1
            continue
        with reading(engine) as connection:
            assert connection.scalar(text("SELECT count(*) FROM partitions")) == 2
        engine.dispose()
    assert refused > 20


def test_overwritten_page_is_found_by_check(file: Path, sqlite_store_url: str) -> None:
    _overwrite_page(file, 5)
    with pytest.raises(StoreError, match=_WAY_BACK):
        check(sqlite_store_url)


def test_index_that_lacks_a_row_is_found_by_check(file: Path, sqlite_store_url: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        name = "ix_plans_pipeline_stream_state"
        index = connection.execute("SELECT * FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        connection.execute("DELETE FROM sqlite_master WHERE name = ?", (name,))
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("DELETE FROM plans")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
    (problem,) = check(sqlite_store_url)
    assert problem.startswith("the file is damaged: wrong # of entries in index ix_plans")


def test_row_without_its_parent_is_found_by_check(file: Path, sqlite_store_url: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM plans")
    assert check(sqlite_store_url) == (
        "row 1 of the table partitions refers to a missing row of plans; restore a backup",
        "row 2 of the table partitions refers to a missing row of plans; restore a backup",
    )


def test_overwritten_page_is_found_when_the_last_process_was_killed(
    file: Path, sqlite_store_url: str, opened: _Open, tmp_path: Path
) -> None:
    opened(sqlite_store_url)
    crashed = tmp_path / "crashed"
    engine = opened(sqlite_store_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE streams SET head = 1")
        connection.exec_driver_sql("INSERT INTO leases (pipeline, token) VALUES ('a', 1)")
    shutil.copytree(file.parent, crashed)
    url = f"sqlite:///{crashed}/store.db"
    assert check(url) == ()
    shutil.rmtree(crashed)
    shutil.copytree(file.parent, crashed)
    _overwrite_page(crashed / "store.db", 5)
    with pytest.raises(StoreError, match=_WAY_BACK):
        open_store(url)


def test_missing_tables_are_no_new_store(file: Path, sqlite_store_url: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE store_revision")
    with pytest.raises(StoreError, match=r"damaged: the table that holds its revision is missing or empty"):
        open_store(sqlite_store_url)


def test_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "browser.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE history (url TEXT)")
    before = other.read_bytes()
    with pytest.raises(StoreError, match="is a SQLite file, but not a Muxly store; choose another file"):
        open_store(f"sqlite:///{other}")
    assert other.read_bytes() == before
    assert list(tmp_path.iterdir()) == [other]


def test_folder_in_the_place_of_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be read .* check that it is a file"):
        open_engine(f"sqlite:///{tmp_path}")


def test_store_deleted_while_its_log_is_still_there_is_noticed(file: Path, sqlite_store_url: str) -> None:
    log, _ = sidecars(file)
    log.write_bytes(b"x")
    file.rename(file.with_name("moved"))
    with pytest.raises(StoreError, match=r"store\.db is missing, but its store\.db-wal still exists"):
        open_store(sqlite_store_url)
    assert not file.exists()


def test_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"store\.db cannot be read \(Not a directory\)"):
        open_store(f"sqlite:///{tmp_path}/taken/.muxly/store.db")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder where nobody may write, not even root")
def test_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError, match=r"^/proc/muxly/store\.db cannot be .* check that /proc/muxly is writable"):
        open_store("sqlite:////proc/muxly/store.db")


def test_leftovers_of_killed_processes_are_swept_after_a_day(tmp_path: Path, opened: _Open) -> None:
    old, young = tmp_path / ".store.db.a.new", tmp_path / ".store.db.b.new"
    for left in (old, young):
        left.write_text("")
    os.utime(old, (1, 1))
    opened(f"sqlite:///{tmp_path}/store.db")
    assert not old.exists()
    assert young.exists()


def test_process_that_is_slower_takes_the_store_that_is_there(
    sqlite_store_url: str, opened: _Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = sqlite._build

    def be_overtaken(*arguments: object) -> None:
        monkeypatch.setattr(sqlite, "_build", build)
        fill(opened(sqlite_store_url))
        build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite, "_build", be_overtaken)
    with reading(opened(sqlite_store_url)) as connection:
        assert connection.scalar(text("SELECT count(*) FROM partitions")) == 2


def _overwrite_page(file: Path, number: int) -> None:
    with file.open("r+b") as writing:
        writing.seek(number * 4096)
        writing.write(b"\xa5" * 4096)
