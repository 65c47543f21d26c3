"""Transactions of both databases: durable, alone when they write, and each fault with its next step."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, exc, insert, select, update

from muxly.errors import RetryableError, StoreError
from muxly.store.database.engine import now, open_engine, reading, sqlite_url, transaction
from muxly.store.schema.tables import leases

if TYPE_CHECKING:
    from pathlib import Path


_Open = Callable[[str], Engine]


def _add(engine: Engine, pipeline: str, token: int = 0) -> None:
    with transaction(engine) as connection:
        connection.execute(insert(leases).values(pipeline=pipeline, token=token))


def _pipelines(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(select(leases.c.pipeline).order_by(leases.c.pipeline)))


def test_transaction_is_committed_at_its_end(store: Engine) -> None:
    _add(store, "a")
    assert _pipelines(store) == ["a"]


def test_exception_undoes_the_transaction(store: Engine) -> None:
    def stop() -> None:
        with transaction(store) as connection:
            connection.execute(insert(leases).values(pipeline="a", token=1))
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        stop()
    assert _pipelines(store) == []
    _add(store, "b")


def test_reading_sees_one_moment(store: Engine) -> None:
    with reading(store) as connection:
        before = connection.scalars(select(leases.c.pipeline)).all()
        _add(store, "later")
        assert connection.scalars(select(leases.c.pipeline)).all() == before
    assert _pipelines(store) == ["later"]


def test_reading_cannot_write(store: Engine) -> None:
    with pytest.raises(exc.DBAPIError, match=r"read-?only"), reading(store) as connection:
        connection.execute(insert(leases).values(pipeline="a", token=1))
    _add(store, "a")


def test_writers_of_many_threads_lose_no_update(store: Engine) -> None:
    _add(store, "a")

    def count_up(_: int) -> None:
        with transaction(store) as connection:
            token = connection.scalars(select(leases.c.token).with_for_update()).one()
            connection.execute(update(leases).values(token=token + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(80)))
    with reading(store) as connection:
        assert connection.scalar(select(leases.c.token)) == 80


def test_broken_constraint_is_not_taken_for_a_fault_of_the_store(store: Engine) -> None:
    _add(store, "a")
    with pytest.raises(exc.IntegrityError, match=r"(?i)unique"):
        _add(store, "a")


def test_errors_show_no_value_of_a_record(store: Engine) -> None:
    _add(store, "a-secret")
    with pytest.raises(exc.IntegrityError, match="hidden") as caught:
        _add(store, "a-secret")
    assert "a-secret" not in str(caught.value).partition("DETAIL")[0]


def test_clock_is_utc_and_moves(store: Engine) -> None:
    with reading(store) as connection:
        first, second = now(connection), now(connection)
    assert first.tzinfo is UTC
    assert first <= second
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


def test_store_without_tables_says_how_to_get_them(store: Engine) -> None:
    with transaction(store) as connection:
        connection.exec_driver_sql("DROP TABLE leases")
    with pytest.raises(StoreError, match=r"does not have the tables it should .* run `muxly db upgrade`"):
        _pipelines(store)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@host/name", "'mysql' cannot be used as a store; expected sqlite:///PATH or postgresql://"),
        ("no url", "the store's URL is not valid; expected sqlite:///PATH"),
        ("postgresql://host:port/x", "the store's URL is not valid"),
        ("sqlite://", "a store cannot be in memory, because it would be lost"),
        ("sqlite:///:memory:", "a store cannot be in memory, because it would be lost"),
    ],
)
def test_wrong_url_is_refused_with_what_is_expected(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


# SQLite


def _pragma(engine: Engine, name: str) -> Any:
    with reading(engine) as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_sqlite_commits_survive_a_power_cut_and_keys_are_checked(opened: _Open, sqlite_store_url: str) -> None:
    engine = opened(sqlite_store_url)
    for _ in range(2):
        assert _pragma(engine, "journal_mode") == "wal"
        assert _pragma(engine, "synchronous") == 2
        assert _pragma(engine, "foreign_keys") == 1
        assert _pragma(engine, "busy_timeout") == 10_000
        engine.dispose()


def test_sqlite_write_lock_is_taken_at_the_start(opened: _Open, sqlite_store_url: str) -> None:
    engine = opened(sqlite_store_url)
    with transaction(engine), closing(sqlite3.connect(str(engine.url.database), timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_sqlite_locked_by_another_process_is_worth_another_try(
    opened: _Open, sqlite_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxly.store.database.sqlite._BUSY_SECONDS", 0.2)
    engine = opened(sqlite_store_url)
    with closing(sqlite3.connect(str(engine.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryableError, match=r"store\.db is locked by another process"):
            _add(engine, "a")
        other.execute("ROLLBACK")
    _add(engine, "a")


def test_thread_that_writes_for_too_long_does_not_hang_the_others(
    opened: _Open, sqlite_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxly.store.database.engine._TURN_SECONDS", 0.1)
    engine = opened(sqlite_store_url)
    with transaction(engine), ThreadPoolExecutor(1) as pool:
        adding = pool.submit(_add, engine, "a")
        with pytest.raises(
            RetryableError, match=r"another thread of this process has been writing for more than 0\.1 s"
        ):
            adding.result()
    _add(engine, "a")


def test_sqlite_moved_away_under_us_never_comes_back_empty(opened: _Open, sqlite_store_url: str) -> None:
    engine = opened(sqlite_store_url)
    path = _path(engine)
    engine.dispose()
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(StoreError, match=r"store\.db: unable to open database file"):
        _add(engine, "a")
    assert not path.exists()


def test_sqlite_on_a_full_disk_says_so(opened: _Open, sqlite_store_url: str) -> None:
    engine = opened(sqlite_store_url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="the disk is full; free some space"), transaction(engine) as connection:
        connection.execute(insert(leases).values(pipeline="a", token=1, holder="x" * 1_000_000))
    engine.dispose()
    _add(engine, "a")


def test_sqlite_files_are_for_their_owner_only(opened: _Open, sqlite_store_url: str) -> None:
    engine = opened(sqlite_store_url)
    _add(engine, "a")
    path = _path(engine)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_sqlite_that_others_may_read_is_warned_of(
    opened: _Open, sqlite_store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(sqlite_store_url)
    engine.dispose()
    assert not caplog.records
    _path(engine).chmod(0o644)
    open_engine(sqlite_store_url)
    (record,) = caplog.records
    assert "is accessible to other users of this machine (mode 644)" in record.getMessage()
    assert f"chmod 600 {_path(engine)}" in record.getMessage()


_NETWORK = """\
22 1 0:21 / / rw,relatime - ext4 /dev/root rw
23 22 0:22 / {mount} rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
"""


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "home dir"
    mount.mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(_NETWORK.format(mount=str(mount).replace(" ", "\\040")))
    monkeypatch.setattr("muxly.store.database.sqlite._MOUNTS", mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).* local disk .* postgresql://"):
        open_engine(sqlite_url(mount / "store.db"))
    open_engine(sqlite_url(tmp_path / "home dir 2" / "store.db"))


def test_path_with_odd_characters_is_a_path(opened: _Open, tmp_path: Path) -> None:
    path = tmp_path / "a b%20?c=d#é" / "store.db"
    engine = opened(sqlite_url(path))
    _add(engine, "a")
    assert path.exists()


def test_opening_imports_neither_alembic_nor_the_object_mapper(sqlite_store_url: str) -> None:
    script = (
        "import sys; from muxly.store.schema.upgrade import open_store; "
        f"open_store({sqlite_store_url!r}); open_store({sqlite_store_url!r}); "
        "print([name for name in ('alembic', 'sqlalchemy.orm', 'psycopg', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _path(engine: Engine) -> Path:
    from muxly.store.database.sqlite import path_of

    path = path_of(engine)
    assert path is not None
    return path
