"""Several that deliver into one database at the same moment, and a run that stops while it waits for another."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import attrs
import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

import muxly
from muxly_routers.sql import output
from muxly_testing import delivery
from tests.routers.sql.database import ORDERS, interrupted, numbered, opened_router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

OTHERS = attrs.evolve(ORDERS, name="others")


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def url(request: pytest.FixtureRequest) -> str:
    """A server's empty database."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def other(url: str) -> Iterator[Connection]:
    """Another program, with a transaction of its own."""
    driver = "postgresql+psycopg" if url.startswith("postgresql") else "mysql+pymysql"
    engine = create_engine(make_url(url).set(drivername=driver))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def all_at_once(count: int, call: Callable[[int], object]) -> list[str]:
    """What went wrong in the calls, which begin at the same moment."""
    together, wrong = threading.Barrier(count), list[str]()

    def one(number: int) -> None:
        together.wait(30)
        try:
            call(number)
        except Exception as error:  # noqa: BLE001 (shown by the test)
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return wrong


@pytest.mark.parametrize("options", [{}, {"schema": "muxly_new"}], ids=["no schema", "schema"])
def test_first_delivery_does_not_hold_up_other_streams(postgres_url: str, options: dict[str, Any]) -> None:
    def deliver_others() -> None:
        with opened_router(postgres_url, lock_seconds=1, **options) as router:
            router.deliver(numbered([2], stream=OTHERS))

    with opened_router(postgres_url, **options) as router:
        router.deliver(interrupted(numbered(range(4), batch_records=2), deliver_others))


def test_new_column_does_not_hold_up_who_reads_the_table(postgres_url: str) -> None:
    seen: list[Any] = []

    def read() -> None:
        with psycopg.connect(postgres_url, options="-c lock_timeout=1s") as reader:
            seen.extend(reader.execute("SELECT id FROM orders").fetchall())

    with opened_router(postgres_url) as router:
        router.deliver(numbered([1]))
        wider = delivery([{"id": 2, "more": "text"}, {"id": 3, "more": "text"}], ORDERS, batch_records=1)
        router.deliver(interrupted(wider, read))
    assert seen == [(1,)]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_no_lock_is_waited_for_without_end(postgres_url: str, mode: Any) -> None:
    one = numbered([2], mode=mode, generation=2 if mode == "replace" else None)
    with opened_router(postgres_url, lock_seconds=1) as router, psycopg.connect(postgres_url) as holder:
        router.begin(ORDERS, 1)
        router.deliver(numbered([1], mode="replace", generation=1))
        router.complete(ORDERS, 1)
        holder.execute(f"LOCK TABLE {'_muxly_deliveries' if mode == 'append' else '_muxly_generations'}")
        with pytest.raises(muxly.RetryableError, match="lock timeout"):
            router.deliver(one)


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_routes_that_make_one_table_at_the_same_moment_all_deliver(url: str, other: Connection, mode: Any) -> None:
    schema = "made_at_once" if url.startswith("postgresql") else None

    def deliver(number: int) -> None:
        # In MariaDB two that look for keys which are not there may end in a deadlock: one of them tries again.
        tries = muxly.Retry(muxly.Backoff(first_seconds=0.01), time.sleep)
        with opened_router(url, schema=schema) as router:
            tries.call(lambda: router.deliver(numbered([number], mode=mode)))

    assert all_at_once(6, deliver) == []
    table = "orders" if schema is None else f"{schema}.orders"
    assert list(other.execute(text(f"SELECT id FROM {table} ORDER BY id")).scalars()) == list(range(6))


def test_table_that_is_being_filled_is_not_changed_until_that_is_done(url: str, other: Connection) -> None:
    wider = delivery([{"id": 2, "more": "text"}], ORDERS)
    refused: list[str] = []

    def deliver_wider() -> None:
        with (
            opened_router(url, lock_seconds=1) as router,
            pytest.raises(muxly.RetryableError, match="lock") as caught,
        ):
            router.deliver(wider)
        refused.append(str(caught.value))

    with opened_router(url) as router:
        router.deliver(numbered([0]))
        router.deliver(interrupted(numbered([1, 3], batch_records=1), deliver_wider))
        router.deliver(wider)
    assert len(refused) == 1
    rows = other.execute(text("SELECT id, more FROM orders ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(0, None), (1, None), (2, "text"), (3, None)]


def remember(other: Connection, stream: str, ids: list[str], at: str) -> None:
    rows = [{"id": id, "stream": stream, "at": at} for id in ids]
    columns = "id, digest, pipeline, route, stream, receipt, delivered_at"
    insert = f"INSERT INTO _muxly_deliveries ({columns}) VALUES (:id, 'x', 'shop', 'lake', :stream, '{{}}', :at)"
    other.execute(text(insert), rows)


@pytest.mark.parametrize("old", [1, 40, 250])
def test_forgetting_does_not_wait_for_another_stream(url: str, other: Connection, old: int) -> None:
    with opened_router(url) as router:
        router.deliver(numbered([1]))
    remember(other, "orders", [f"old {number}" for number in range(old)], "2020-01-01T00:00:00.000000Z")
    other.commit()
    remember(other, "others", ["another"], "2020-01-01T00:00:00.000000Z")
    with opened_router(url, lock_seconds=1) as router:
        for number in range(2, 6):
            router.deliver(numbered([number]))
    other.commit()
    left = list(other.execute(text("SELECT id FROM _muxly_deliveries WHERE digest = 'x'")).scalars())
    assert left == ["another"]


def test_stop_ends_waiting_for_a_lock(url: str, other: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_GRACE_SECONDS", 0.0)
    stop = threading.Event()
    with opened_router(url, stop=stop, lock_seconds=600) as router:
        router.deliver(numbered([1], mode="upsert"))
        other.execute(text("SELECT id FROM orders WHERE id = 1 FOR UPDATE"))
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        with pytest.raises(muxly.StoppedError, match="the run was asked to stop"):
            router.deliver(numbered([1], mode="upsert"))
        timer.join()
    other.rollback()
    with opened_router(url, lock_seconds=5) as router:
        router.deliver(numbered([1], mode="upsert"))
