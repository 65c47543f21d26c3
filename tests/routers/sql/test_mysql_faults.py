"""What goes wrong in MariaDB and on the way to it, and what the runner is told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import attrs
import pymysql
import pytest
from attrs import frozen
from pymysql.constants import CLIENT
from sqlalchemy import make_url

import muxly
from muxly_routers.sql.mysql import load
from muxly_testing import delivery
from tests.routers.sql.database import ORDERS, interrupted, numbered, opened_router
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures_mariadb import MariaDb

BROKEN = "the connection (broke|was ended)"


@frozen
class Database:
    """A database of the test's own, as another program sees it."""

    server: MariaDb
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.run(f"USE {self.name}", *statements)

    def ids(self) -> list[int]:
        """The ids of all orders, in order."""
        return [number for (number,) in self.run("SELECT id FROM orders ORDER BY id")]

    def tables(self) -> set[str]:
        return {name for (name,) in self.run("SHOW TABLES")}

    @contextlib.contextmanager
    def other(self) -> Iterator[pymysql.cursors.Cursor]:
        """A transaction of somebody else's."""
        with contextlib.closing(
            pymysql.connect(unix_socket=str(self.server.socket), user="root", database=self.name)
        ) as connection:
            yield connection.cursor()
            connection.rollback()

    @contextlib.contextmanager
    def setting(self, name: str, value: object) -> Iterator[None]:
        """A setting of the server, for a while."""
        ((before,),) = self.server.run(f"SELECT @@GLOBAL.{name}")
        self.server.run(f"SET GLOBAL {name} = {value}")
        try:
            yield
        finally:
            self.server.run(f"SET GLOBAL {name} = {before}")


@pytest.fixture
def database(mariadb_server: MariaDb, mariadb_database: str) -> Database:
    return Database(mariadb_server, mariadb_database)


@pytest.fixture
def proxy(database: Database) -> Iterator[TcpProxy]:
    """Between the router and the server."""
    with TcpProxy(("127.0.0.1", database.server.port)) as proxy:
        yield proxy


def by_way_of(port: int, database: Database) -> str:
    return make_url(database.url).set(port=port).render_as_string(hide_password=False)


def kill_connections(database: Database) -> None:
    mine = f"SELECT id FROM information_schema.processlist WHERE db = '{database.name}' AND user = 'muxly'"
    for (number,) in database.run(mine):
        database.run(f"KILL {number}")


def test_stream_does_not_wait_for_another_that_is_being_delivered(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
    with database.other() as other:
        other.execute(
            "INSERT INTO _muxly_deliveries (id, digest, pipeline, route, stream, receipt, delivered_at) "
            "VALUES ('another', 'digest', 'shop', 'lake', 'others', '{}', '2026-01-01T00:00:00.000000Z')"
        )
        with opened_router(database.url, lock_seconds=1) as router:
            router.deliver(numbered([2]))
    assert database.ids() == [1, 2]


def test_full_reads_of_many_streams_end_at_the_same_moment(database: Database) -> None:
    count = 8
    together, failed = threading.Barrier(count), list[str]()

    def full_read(number: int) -> None:
        stream = attrs.evolve(ORDERS, name=f"orders_{number}")
        with opened_router(database.url) as router:
            router.begin(stream, 1)
            router.deliver(numbered([number], stream=stream, mode="replace", generation=1))
            together.wait(10)
            try:
                router.complete(stream, 1)
            except muxly.RetryableError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=full_read, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {f"orders_{number}" for number in range(count)} < database.tables()


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
def test_connection_that_is_killed_in_the_transaction_leaves_nothing(database: Database, mode: Any) -> None:
    one = numbered(range(2000), mode=mode, batch_records=500)
    with opened_router(database.url) as router:
        router.deliver(numbered([5000], mode=mode))
        with pytest.raises(muxly.RetryableError, match=BROKEN):
            router.deliver(interrupted(one, lambda: kill_connections(database)))
        assert database.ids() == [5000]
        router.deliver(one)
    assert database.ids() == [*range(2000), 5000]


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
def test_commit_whose_answer_is_lost_is_looked_up(database: Database, proxy: TcpProxy, mode: Any) -> None:
    one = numbered(range(100), mode=mode)
    with opened_router(by_way_of(proxy.port, database)) as router:
        proxy.lose_answer_to(b"\x03COMMIT")
        with pytest.raises(muxly.RetryableError, match=BROKEN):
            router.deliver(one)
        assert proxy.lost.is_set()
        assert database.ids() == list(range(100)), "the server has committed"
        assert router.deliver(one) == muxly.Receipt()
    assert database.ids() == list(range(100))


@pytest.mark.parametrize("before", [range(0), range(3)], ids=["first", "second"])
@pytest.mark.parametrize("step", [b"CREATE TABLE `_muxly_", b"RENAME TABLE", b"\x03COMMIT", b"DROP TABLE"])
def test_swap_that_breaks_off_behind_any_step_is_finished(
    database: Database, proxy: TcpProxy, step: bytes, before: range
) -> None:
    with opened_router(by_way_of(proxy.port, database)) as router:
        if before:
            router.begin(ORDERS, 1)
            router.deliver(numbered(before, mode="replace", generation=1))
            router.complete(ORDERS, 1)
        router.begin(ORDERS, 2)
        router.deliver(numbered(range(10, 15), mode="replace", generation=2))
        proxy.lose_answer_to(step)
        with contextlib.suppress(muxly.RetryableError):
            router.complete(ORDERS, 2)
        if "orders" in database.tables():
            assert database.ids() in (list(before), list(range(10, 15)))
        router.complete(ORDERS, 2)
        assert database.ids() == list(range(10, 15))
        router.begin(ORDERS, 3)
        router.complete(ORDERS, 3)
    assert database.ids() == []
    assert database.tables() == {"orders", "_muxly_deliveries", "_muxly_generations"}


def test_connection_that_breaks_between_two_deliveries_is_made_anew(database: Database, proxy: TcpProxy) -> None:
    second = numbered([2])
    with opened_router(by_way_of(proxy.port, database)) as router:
        router.deliver(numbered([1]))
        proxy.cut()
        with pytest.raises(muxly.RetryableError, match=BROKEN):
            router.deliver(second)
        router.deliver(second)
    assert database.ids() == [1, 2]


def test_deadlock_is_tried_again(database: Database) -> None:
    one = numbered([1, 2], mode="upsert")
    with opened_router(database.url, lock_seconds=30) as router, database.other() as other:
        router.deliver(numbered([1, 2], mode="upsert"))
        # The one who has changed less is rolled back.
        other.execute("UPDATE orders SET text = 'theirs' WHERE id = 2")
        for number in range(100, 120):
            other.execute("INSERT INTO orders (id, day) VALUES (%s, 'x')", (number,))

        def collide() -> None:
            waiting = (
                f"SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND '{database.name}' > ''"
            )
            while not database.run(waiting):
                time.sleep(0.2)  # the server renews that table only for who has not looked for a tenth of a second
            # The delivery's own row is written before its records, whatever their order.
            other.execute("SELECT id FROM _muxly_deliveries FOR UPDATE")

        thread = threading.Thread(target=collide, daemon=True)
        thread.start()
        with pytest.raises(muxly.RetryableError, match=r"a deadlock with another transaction.*1213"):
            router.deliver(one)
        thread.join(20)
        other.connection.rollback()
        router.deliver(one)
    assert database.ids() == [1, 2]


def test_lock_that_is_held_too_long_is_tried_again(database: Database) -> None:
    one = numbered([1], mode="upsert")
    with opened_router(database.url, lock_seconds=1) as router, database.other() as other:
        router.deliver(numbered([1], mode="upsert"))
        other.execute("SELECT * FROM orders FOR UPDATE")
        with pytest.raises(muxly.RetryableError, match=r"another transaction holds a lock for too long.*1205"):
            router.deliver(one)
        other.connection.rollback()
        router.deliver(one)


def test_table_that_somebody_else_locks_is_tried_again(database: Database) -> None:
    with opened_router(database.url, lock_seconds=1) as router, database.other() as other:
        router.deliver(numbered([1]))
        other.execute("LOCK TABLES orders WRITE")
        with pytest.raises(muxly.RetryableError, match="another transaction holds a lock for too long"):
            router.deliver(numbered([2]))
        other.execute("UNLOCK TABLES")


def test_server_that_is_read_only_is_tried_again(database: Database) -> None:
    one = numbered([1])
    with opened_router(database.url) as router:
        router.deliver(numbered([0]))
        with database.setting("read_only", 1), pytest.raises(muxly.RetryableError, match="the server is read-only"):
            router.deliver(one)
        router.deliver(one)
    assert database.ids() == [0, 1]


def test_server_with_too_many_connections_is_tried_again(database: Database) -> None:
    with contextlib.ExitStack() as stack, database.setting("max_connections", 10):
        with contextlib.suppress(pymysql.OperationalError):
            for _ in range(12):
                user = make_url(database.url)
                one = pymysql.connect(host="127.0.0.1", port=user.port or 0, user="muxly", password=user.password or "")
                stack.callback(one.close)
        with opened_router(database.url) as router, pytest.raises(muxly.RetryableError, match="too many connections"):
            router.deliver(numbered([1]))
        stack.close()
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))


def test_server_that_is_not_there_is_tried_again(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with (
        opened_router(by_way_of(port, database)) as router,
        pytest.raises(
            muxly.RetryableError,
            match=rf"mysql 127.0.0.1:{port}/.*the server cannot be reached: .*refused.*; is the server running there",
        ),
    ):
        router.deliver(numbered([1]))


@pytest.mark.parametrize("local_infile", [0, 1])
def test_small_packets_are_enough(database: Database, local_infile: int) -> None:
    with (
        database.setting("max_allowed_packet", 65536),
        database.setting("local_infile", local_infile),
        opened_router(database.url) as router,
    ):
        router.deliver(numbered(range(5000)))
    assert database.ids() == list(range(5000))


def test_record_longer_than_a_packet_is_a_bad_record_for_an_insert(database: Database) -> None:
    long = delivery([{"id": 1, "text": "x" * 100_000}], ORDERS)
    with (
        database.setting("max_allowed_packet", 65536),
        database.setting("local_infile", 0),
        opened_router(database.url) as router,
        pytest.raises(muxly.RejectedError, match="max_allowed_packet"),
    ):
        router.deliver(long)
    with database.setting("max_allowed_packet", 65536), opened_router(database.url) as router:
        router.deliver(long)
    assert database.run("SELECT LENGTH(text) FROM orders") == [(100_000,)]


def test_table_that_was_dropped_is_made_again(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
        database.run("DROP TABLE orders")
        router.deliver(numbered([2]))
        database.run("ALTER TABLE orders DROP COLUMN text")
        router.deliver(numbered([3]))
    assert database.ids() == [2, 3]


def test_wrong_password_stops_the_route_and_is_not_shown(database: Database) -> None:
    url = make_url(database.url).set(password="not-the-password").render_as_string(hide_password=False)
    with opened_router(url) as router, pytest.raises(muxly.RouteError, match=r"Access denied.*1045") as caught:
        router.deliver(numbered([1]))
    assert "not-the-password" not in str(caught.value)


def test_right_that_is_missing_stops_the_route(database: Database) -> None:
    # A name beyond the pattern that the tests' user has rights for.
    name = f"other{database.name}"
    database.server.run(f"CREATE DATABASE {name}", f"GRANT SELECT ON {name}.* TO muxly@'127.0.0.1'")
    try:
        with (
            opened_router(database.server.url(name)) as router,
            pytest.raises(muxly.RouteError, match=r"CREATE command denied.*1142.*give this user the right"),
        ):
            router.deliver(numbered([1]))
    finally:
        database.server.run(f"DROP DATABASE {name}", f"REVOKE ALL ON {name}.* FROM muxly@'127.0.0.1'")


_NOWHERE = (
    r"Unknown database 'muxly_nowhere'.*create it \(CREATE DATABASE `muxly_nowhere`\), or correct the name in url"
)


def test_database_that_is_not_there_stops_the_route(database: Database) -> None:
    with (
        opened_router(database.server.url("muxly_nowhere")) as router,
        pytest.raises(muxly.RouteError, match=_NOWHERE),
    ):
        router.deliver(numbered([1]))


class FalseServer:
    """Passes everything on to a real server, but answers one statement by asking for a file.

    Args:
        port: Of the real server.
        marker: What the statement holds.
    """

    def __init__(self, port: int, marker: bytes) -> None:
        self._real, self._marker = port, marker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = b""
        """What came after the file was asked for."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _address = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._real)) as server, contextlib.suppress(OSError):
            client.sendall(server.recv(1 << 16))
            while part := client.recv(1 << 16):
                if self._marker in part:
                    asking = b"\xfb/etc/passwd"
                    client.sendall(len(asking).to_bytes(3, "little") + b"\x01" + asking)
                    while more := client.recv(1 << 16):
                        self.sent += more
                    return
                server.sendall(part)
                client.sendall(server.recv(1 << 16))

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


def test_false_server_gets_no_file_by_asking_for_one(database: Database) -> None:
    with (
        contextlib.closing(FalseServer(database.server.port, b"VERSION()")) as false_server,
        opened_router(by_way_of(false_server.port, database)) as router,
        pytest.raises(muxly.RouteError, match="the server asked for a file of this machine"),
    ):
        router.deliver(numbered([1]))
    assert b"root" not in false_server.sent


def test_false_server_gets_only_the_records_when_it_asks_for_a_file_during_a_load(database: Database) -> None:
    user = make_url(database.url)
    with contextlib.closing(FalseServer(database.server.port, b"LOAD DATA")) as false_server:
        connection: Any = pymysql.connect(
            host="127.0.0.1",
            port=false_server.port,
            user="muxly",
            password=user.password or "",
            database=database.name,
            client_flag=CLIENT.LOCAL_FILES,
            read_timeout=1,
        )
        with contextlib.closing(connection), pytest.raises(pymysql.OperationalError, match="Lost connection"):
            load.load(connection, "LOAD DATA LOCAL INFILE 'muxly' INTO TABLE orders", iter([memoryview(b"1\n")]))
    assert false_server.sent == b"\x02\x00\x00\x021\n" + b"\x00\x00\x00\x03"
