"""The SQL router on DuckDB files."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import duckdb
import pyarrow as pa
import pytest

import muxly
from muxly_testing import delivery
from muxly_testing._fake_connector import fake_record, fake_schema
from tests.routers.sql.database import ORDERS, numbered, opened_router

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.duckdb"


def url(path: Path, query: str = "") -> str:
    return f"duckdb:///{path}{query}"


def rows(path: Path, query: str) -> list[dict[str, Any]]:
    """The rows of a query, as another program sees them."""
    with duckdb.connect(str(path)) as connection:
        found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
        return found


def ids(path: Path) -> list[int]:
    return [row["id"] for row in rows(path, "SELECT id FROM orders ORDER BY id")]


def test_every_type_is_a_column_of_its_own_kind(path: Path) -> None:
    schema = fake_schema(wide=True)
    sent = pa.Table.from_pylist(
        [fake_record(0, "wide", number, wide=True, per_day=10) for number in range(200)],
        pa.schema([f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]),
    )
    with opened_router(url(path)) as router:
        router.deliver(delivery(sent, "wide"))
    described = {row["column_name"]: row["column_type"] for row in rows(path, "DESCRIBE wide")}
    assert described == {
        "id": "BIGINT",
        "name": "VARCHAR",
        "amount": "DOUBLE",
        "day": "DATE",
        "changed_at": "TIMESTAMP WITH TIME ZONE",
        "flag": "BOOLEAN",
        "tiny": "TINYINT",
        "big": "UBIGINT",
        "price": "DECIMAL(24,9)",
        "ratio": "FLOAT",
        "text": "VARCHAR",
        "bytes": "BLOB",
        "clock": "TIME",
        "lasted": "INTERVAL",
        "naive_at": "TIMESTAMP",
        "tags": "JSON",
        "place": "JSON",
        "kind": "VARCHAR",
        "old": "DATE",
        "noon": "TIME",
    }
    plain = [name for name, kind in described.items() if kind not in ("JSON", "INTERVAL")]
    found = rows(path, f"SELECT {', '.join(plain)} FROM wide ORDER BY id")
    assert found == [{name: record[name] for name in plain} for record in sent.to_pylist()]


def test_nested_values_are_json_that_sql_can_ask(path: Path) -> None:
    with opened_router(url(path)) as router:
        router.deliver(delivery([{"id": 1, "place": {"lat": 1.5, "tags": ["a\n", '"']}}], "orders"))
    query = "SELECT place->'lat' AS lat, place->>'$.tags[0]' AS tag FROM orders"
    assert rows(path, query) == [{"lat": "1.5", "tag": "a\n"}]


def test_columns_are_added_and_widened(path: Path) -> None:
    with opened_router(url(path)) as router:
        for kind, more in (
            (pa.int8(), {}),
            (pa.uint32(), {"price": [Decimal("1.5")]}),
            (pa.int64(), {"price": [Decimal("12345.25")]}),
            (pa.uint64(), {}),
        ):
            router.deliver(delivery(pa.table({"id": pa.array([5], kind), **more}), "orders"))
    types = {row["column_name"]: row["column_type"] for row in rows(path, "DESCRIBE orders")}
    assert types == {"id": "HUGEINT", "price": "DECIMAL(7,2)"}
    assert len(rows(path, "SELECT * FROM orders")) == 4


def test_deleted_records_leave_and_do_not_come_back(path: Path) -> None:
    def send(router: muxly.Router, version: int, deleted: datetime | None) -> None:
        marks = pa.array([deleted, None], pa.timestamp("us", "UTC"))
        table = pa.table({"id": [1, 2], "version": [version, 1], "_deleted_at": marks})
        router.deliver(delivery(table, ORDERS, mode="upsert"))

    with opened_router(url(path), deletes="hard") as router:
        send(router, 1, None)
        send(router, 3, datetime(2026, 1, 1, tzinfo=UTC))
        assert ids(path) == [2]
        send(router, 2, None)
        assert ids(path) == [2]
        send(router, 4, None)
    assert ids(path) == [1, 2]


HOLDER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@contextmanager
def held_by_another_program(path: Path) -> Iterator[int]:
    """The file, opened by a process of its own; the process's number."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


def test_file_that_another_program_holds_is_tried_again(path: Path) -> None:
    one = numbered([1])
    with opened_router(url(path), lock_seconds=1) as router:
        with (
            held_by_another_program(path) as pid,
            pytest.raises(
                muxly.RetryableError, match=rf"in use by another program \(process {pid}, .*one program at a"
            ),
        ):
            router.deliver(one)
        router.deliver(one)
    assert ids(path) == [1]


CRASH = """
import os, sys
import muxly
from tests.routers.sql.database import numbered, opened_router

def source(one=numbered(range(1000, 301_000), batch_records=20_000)):
    for number, batch in enumerate(one.all_batches()):
        if number == 12:
            print("sent", flush=True)
            os.kill(os.getpid(), 9)
        yield batch

import attrs
with opened_router(sys.argv[1]) as router:
    router.deliver(numbered([1]))
    second = numbered([2])
    router.deliver(attrs.evolve(second, source=attrs.evolve(second.source, batches=source)))
"""


def test_crash_in_a_big_delivery_leaves_what_was_committed(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, url(path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"sent\n"), done.stderr.decode()
    assert ids(path) == [1]
    with opened_router(url(path)) as router:
        router.deliver(numbered([2]))
    assert ids(path) == [1, 2]


def test_error_of_the_records_takes_all_back(path: Path) -> None:
    one = numbered(range(10), batch_records=5)

    def source() -> Iterator[pa.RecordBatch]:
        yield next(iter(one.all_batches()))
        raise muxly.RetryableError("the records broke off")

    with opened_router(url(path)) as router:
        with pytest.raises(muxly.RetryableError, match="the records broke off"):
            router.deliver(attrs.evolve(one, source=attrs.evolve(one.source, batches=source)))
        router.deliver(one)
    assert ids(path) == list(range(10))


@pytest.mark.parametrize("deletes", ["soft", "hard"])
def test_table_of_the_user_with_a_wider_key_takes_upserts(path: Path, deletes: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE orders (id HUGEINT PRIMARY KEY, version BIGINT, note VARCHAR)")
        connection.execute("INSERT INTO orders VALUES (1, 0, 'kept')")
    with opened_router(url(path), deletes=deletes) as router:
        router.deliver(numbered([1, 2], mode="upsert"))
    assert rows(path, "SELECT id::INT AS id, version, note, text FROM orders ORDER BY id") == [
        {"id": 1, "version": 1, "note": "kept", "text": "text 1"},
        {"id": 2, "version": 1, "note": None, "text": "text 2"},
    ]


def test_not_null_of_the_user_makes_a_bad_record_without_its_values(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE orders (id BIGINT, text VARCHAR NOT NULL)")
    table = pa.table({"id": [1], "text": pa.array([None], pa.string())})
    with opened_router(url(path)) as router, pytest.raises(muxly.RejectedError, match=r"column 'text': .*NOT NULL"):
        router.deliver(delivery(table, "orders"))


def test_decimal_of_too_many_digits_is_refused_by_name(path: Path) -> None:
    table = pa.table({"id": [1], "huge": pa.array([Decimal(10**50)], pa.decimal256(60, 0))})
    with (
        opened_router(url(path)) as router,
        pytest.raises(muxly.StreamError, match=r"column 'huge': duckdb has no type"),
    ):
        router.deliver(delivery(table, "orders"))


def test_memory_and_threads_are_set_in_the_url(path: Path) -> None:
    with opened_router(url(path, "?memory_limit=256MiB&threads=1")) as router:
        router.deliver(numbered([1]))
        (found,) = rows(path, "SELECT current_setting('memory_limit') AS memory, current_setting('threads') AS threads")
    assert found == {"memory": "256.0 MiB", "threads": 1}


@pytest.mark.parametrize("query", ["?access_mode=read_only", "?memory_limit=lots", "?threads=0"])
def test_url_may_not_have_other_options(path: Path, query: str) -> None:
    with (
        opened_router(url(path, query)) as router,
        pytest.raises(muxly.ConfigurationError, match="no option of a DuckDB"),
    ):
        router.deliver(numbered([1]))


def test_database_in_memory_is_refused() -> None:
    with opened_router("duckdb:///:memory:") as router, pytest.raises(muxly.ConfigurationError, match="needs a file"):
        router.deliver(numbered([1]))


def test_index_on_a_table_that_is_replaced_is_refused_in_words(path: Path) -> None:
    with opened_router(url(path), indexes={"orders": [["day"]]}) as router:
        router.begin(ORDERS, 1)
        router.deliver(numbered([1], mode="replace", generation=1))
        with pytest.raises(muxly.StreamError, match="cannot rename a table that has an index; leave indexes: out"):
            router.complete(ORDERS, 1)


def test_check_does_not_make_the_file(path: Path) -> None:
    with opened_router(url(path)) as router:
        assert [notice.code for notice in router.check()] == ["database_missing"]
        assert not path.exists()
        router.deliver(numbered([1]))
        assert [notice.code for notice in router.check()] == ["database"]
