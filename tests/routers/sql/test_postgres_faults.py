"""What goes wrong in PostgreSQL, and what the runner is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

import muxly
from muxly_routers.sql.errors import DatabaseFault, translated_errors
from muxly_routers.sql.postgres.dialect import PostgresDialect
from muxly_testing import delivery
from tests.routers.sql.database import ORDERS, Database, interrupted, numbered, opened_router
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def database(postgres_url: str) -> Database:
    return Database(postgres_url)


@pytest.fixture
def proxy(database: Database) -> Iterator[TcpProxy]:
    """Between the router and the server."""
    folder = make_url(database.url).query["host"]
    with TcpProxy(f"{folder}/.s.PGSQL.5432") as proxy:
        yield proxy


def through(proxy: TcpProxy, database: Database) -> str:
    """The database's URL by way of the proxy."""
    url = make_url(database.url).set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
    return url.render_as_string(hide_password=False)


def kill_backends(database: Database) -> None:
    mine = "application_name = 'muxly' AND datname = current_database()"  # other workers have their own
    database.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
def test_backend_that_is_killed_in_the_transaction_leaves_nothing(database: Database, mode: Any) -> None:
    one = numbered(range(2000), mode=mode, batch_records=500)
    with opened_router(database.url) as router:
        router.deliver(numbered([5000], mode=mode))
        with pytest.raises(muxly.RetryableError, match=r"terminat|closed|connection"):
            router.deliver(interrupted(one, lambda: kill_backends(database)))
        assert database.ids() == [5000]
        router.deliver(one)
    assert database.ids() == [*range(2000), 5000]


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
def test_commit_whose_answer_is_lost_is_looked_up(database: Database, proxy: TcpProxy, mode: Any) -> None:
    one = numbered(range(100), mode=mode)
    with opened_router(through(proxy, database)) as router:
        router.deliver(numbered([0], mode=mode))
        database.run("DELETE FROM orders")
        proxy.lose_answer_to(b"COMMIT\0")
        with pytest.raises(muxly.RetryableError, match=r"closed|connection"):
            router.deliver(one)
        assert proxy.lost.is_set()
        assert database.ids() == list(range(100)), "the server has committed"
        assert router.deliver(one) == muxly.Receipt()
    assert database.ids() == list(range(100))


def test_swap_whose_answer_is_lost_is_looked_up(database: Database, proxy: TcpProxy) -> None:
    with opened_router(through(proxy, database)) as router:
        router.begin(ORDERS, 1)
        router.deliver(numbered(range(5), mode="replace", generation=1))
        proxy.lose_answer_to(b"COMMIT\0")
        with pytest.raises(muxly.RetryableError, match=r"closed|connection"):
            router.complete(ORDERS, 1)
        router.complete(ORDERS, 1)
    assert database.ids() == list(range(5))


def test_connection_that_breaks_between_two_deliveries_is_made_anew(database: Database, proxy: TcpProxy) -> None:
    with opened_router(through(proxy, database)) as router:
        router.deliver(numbered([1]))
        proxy.cut()
        with pytest.raises(muxly.RetryableError, match=r"closed|connection"):
            router.deliver(numbered([2], id="01JW2222222222222222222222"))
        router.deliver(numbered([2], id="01JW2222222222222222222222"))
    assert database.ids() == [1, 2]


def waits_for_a_lock(database: Database) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(database.run(waiting))


def test_deadlock_is_tried_again(database: Database) -> None:
    one = numbered([1, 2], mode="upsert")
    with opened_router(database.url) as router, psycopg.connect(database.url) as other:
        router.deliver(numbered([1, 2], mode="upsert"))
        other.execute("SET deadlock_timeout = '1min'")  # so that it is the router that finds the deadlock
        other.execute("SELECT * FROM orders WHERE id = 2 FOR UPDATE")

        def collide() -> None:
            while not waits_for_a_lock(database):
                pass
            other.execute("SELECT * FROM orders WHERE id = 1 FOR UPDATE")
            other.rollback()

        thread = threading.Thread(target=collide, daemon=True)
        thread.start()
        with pytest.raises(muxly.RetryableError, match="deadlock detected"):
            router.deliver(one)
        thread.join(20)
        router.deliver(one)
    assert database.ids() == [1, 2]


def test_serialization_failure_is_tried_again(database: Database) -> None:
    name = make_url(database.url).database
    database.run(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'")
    one = numbered(range(10), mode="upsert", batch_records=5)
    with opened_router(database.url) as router:
        router.deliver(numbered(range(10), mode="upsert"))
        change = interrupted(one, lambda: database.run("UPDATE orders SET text = 'theirs' WHERE id = 3"))
        with pytest.raises(muxly.RetryableError, match="could not serialize"):
            router.deliver(change)
        router.deliver(one)
    assert [row["text"] for row in database.rows()] == [f"text {number}" for number in range(10)]


def test_server_that_is_read_only_is_tried_again(database: Database) -> None:
    name = make_url(database.url).database
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
    database.run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with opened_router(database.url) as router:
        with pytest.raises(muxly.RetryableError, match="read-only"):
            router.deliver(numbered([2]))
        with psycopg.connect(database.url, autocommit=True) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
        router.deliver(numbered([2]))
    assert database.ids() == [1, 2]


def as_user(database: Database, user: str) -> str:
    return make_url(database.url).set(username=user).render_as_string(hide_password=False)


@pytest.fixture
def user(database: Database) -> Iterator[str]:
    """A user who may create tables, and nothing that is others'."""
    name = f"user_{make_url(database.url).database}"
    database.run(f"CREATE ROLE {name} LOGIN")
    database.run(f"GRANT CREATE ON SCHEMA public TO {name}")
    yield name
    database.run(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
    database.run(f"DROP OWNED BY {name}")
    database.run(f"DROP ROLE {name}")


def test_too_many_clients_is_tried_again(database: Database, user: str) -> None:
    database.run(f"ALTER ROLE {user} CONNECTION LIMIT 0")
    with opened_router(as_user(database, user)) as router:
        with pytest.raises(muxly.RetryableError, match="too many connections"):
            router.deliver(numbered([1]))
        database.run(f"ALTER ROLE {user} CONNECTION LIMIT 5")
        router.deliver(numbered([1]))
    assert database.ids() == [1]


def test_right_that_was_taken_away_stops_the_route(database: Database, user: str) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
    with opened_router(as_user(database, user)) as router:
        with pytest.raises(muxly.RouteError, match=r"permission denied .*give this user the right"):
            router.deliver(numbered([2]))
        database.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}")
        router.deliver(numbered([2]))
    assert database.ids() == [1, 2]


def test_check_tells_that_the_user_may_not_create_tables(database: Database, user: str) -> None:
    database.run(f"REVOKE CREATE ON SCHEMA public FROM {user}")
    with opened_router(as_user(database, user)) as router:
        notices = {notice.code: notice for notice in router.check()}
    assert "PostgreSQL" in notices["database"].message
    assert "may not create tables" in notices["may_not_create"].message


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"username": "nobody_at_all"}, "does not exist.*user and password"),
        ({"database": "no_such_database"}, "does not exist"),
    ],
)
def test_wrong_address_stops_the_route(database: Database, parts: dict[str, str], message: str) -> None:
    url = make_url(database.url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]
    with opened_router(url) as router, pytest.raises(muxly.RouteError, match=message):
        router.deliver(numbered([1]))


def test_options_of_the_url_reach_the_server(database: Database) -> None:
    database.run("CREATE SCHEMA mine")
    plain = make_url(database.url)

    def with_options(options: str) -> str:
        return plain.update_query_dict({"options": options}).render_as_string(hide_password=False)

    with opened_router(with_options("-c search_path=mine")) as router:
        router.deliver(numbered([1]))
    assert [row["id"] for row in database.rows(schema="mine")] == [1]
    with (
        opened_router(with_options("-c no_such_setting=1")) as router,
        pytest.raises(muxly.RouteError, match="unrecognized configuration parameter"),
    ):
        router.deliver(numbered([2]))


def test_server_that_is_not_there_is_tried_again() -> None:
    with opened_router("postgresql://me:canary@127.0.0.1:9/shop") as router:
        with pytest.raises(
            muxly.RetryableError, match=r"127\.0\.0\.1:9/shop.*refused; is the server running"
        ) as caught:
            router.deliver(numbered([1]))
        assert "canary" not in str(caught.value)
        (notice,) = router.check()
        assert notice.code == "database_unreachable"


@pytest.mark.parametrize("fast", [True, False])
def test_database_that_is_not_there_stops_the_route(database: Database, fast: bool) -> None:
    url = make_url(database.url).set(drivername="postgresql+psycopg", database='no"where')
    told = r'database "no"where" does not exist.*; create it \(CREATE DATABASE "no""where"\), or correct the name'
    with (
        opened_router(url.render_as_string(hide_password=False), fast_path=fast) as router,
        pytest.raises(muxly.RouteError, match=told),
    ):
        router.deliver(numbered([1]))


@pytest.mark.parametrize("part", ["username", "password", "database"])
def test_space_in_the_address_is_no_mistake_and_not_shown(part: str) -> None:
    parts: dict[str, Any] = {"username": "me", "password": "mine", "database": "shop", part: "two canaries"}
    url = URL.create("postgresql", host="127.0.0.1", port=9, **parts).render_as_string(hide_password=False)
    with (
        opened_router(url.replace(" ", "%20")) as router,
        pytest.raises(muxly.RetryableError, match="Connection refused") as caught,
    ):
        router.deliver(numbered([1]))
    assert ("canaries" in str(caught.value)) == (part == "database")


def test_value_that_reads_like_an_error_is_only_a_value() -> None:
    class Words(PostgresDialect):
        def fault(self, error: Exception) -> DatabaseFault:
            return DatabaseFault("value", str(error))

    with pytest.raises(muxly.RejectedError, match="Unknown database"), translated_errors(Words(), "here"):
        raise ValueError("Unknown database 'x'")


def test_name_of_the_server_that_is_not_known_is_told() -> None:
    told = r"resolve host 'no\.such\.invalid'.*; is the name right"
    with (
        opened_router("postgresql://me@no.such.invalid/shop") as router,
        pytest.raises(muxly.RetryableError, match=told),
    ):
        router.deliver(numbered([1]))


def test_lock_that_is_held_too_long_is_tried_again(database: Database) -> None:
    with opened_router(database.url, lock_seconds=1) as router, psycopg.connect(database.url) as other:
        router.deliver(numbered([1]))
        other.execute("LOCK TABLE orders")
        with pytest.raises(muxly.RetryableError, match="lock timeout"):
            router.deliver(numbered([2]))
        other.rollback()
        router.deliver(numbered([2]))
    assert database.ids() == [1, 2]


def test_statement_timeout_is_tried_again(database: Database) -> None:
    name = make_url(database.url).database
    with opened_router(database.url) as router, psycopg.connect(database.url) as other:
        router.deliver(numbered([1]))
        other.execute("LOCK TABLE orders")
        database.run(f'ALTER DATABASE "{name}" SET statement_timeout = 300')
        router.close()
        with pytest.raises(muxly.RetryableError, match="statement timeout"):
            router.deliver(numbered([2]))


@pytest.mark.parametrize(
    "changes",
    [
        ["DROP TABLE orders"],
        ["DROP TABLE _muxly_deliveries"],
        ["ALTER TABLE orders DROP COLUMN text", "ALTER TABLE orders ADD COLUMN more text DEFAULT 'theirs'"],
        ["ALTER TABLE orders ALTER COLUMN version TYPE text", "ALTER TABLE orders ALTER COLUMN text TYPE varchar(20)"],
        # As many bytes as before, which COPY would take for another number.
        ["ALTER TABLE orders ALTER COLUMN version TYPE double precision"],
        ["ALTER TABLE orders ALTER COLUMN version TYPE smallint"],
    ],
)
def test_table_that_somebody_changed_is_looked_at_again(database: Database, changes: list[str]) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1], mode="upsert"))
        for change in changes:
            database.run(change)
        router.deliver(numbered([2], mode="upsert"))
        router.deliver(numbered([3]))
    written = [(row["text"], float(row["version"])) for row in database.rows() if row["id"] > 1]
    assert written == [("text 2", 1.0), ("text 3", 1.0)]


def test_column_that_cannot_hold_the_values_any_more_stops_the_stream(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
        database.run("ALTER TABLE orders ALTER COLUMN version TYPE timestamp USING now()")
        with pytest.raises(muxly.StreamError, match=r"'version': orders.version is timestamp .*columns: {exclude"):
            router.deliver(numbered([2]))


def test_value_that_a_narrower_column_refuses_is_a_bad_record(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
        database.run("ALTER TABLE orders ALTER COLUMN text TYPE varchar(8)")
        with pytest.raises(muxly.RejectedError, match="value too long"):
            router.deliver(delivery([{"id": 2, "day": "d", "version": 1, "text": "longer than eight"}], ORDERS))
        router.deliver(numbered([3]))
    assert database.ids() == [1, 3]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_text_with_a_nul_byte_is_a_bad_record_that_names_the_column(database: Database, mode: Any) -> None:
    bad = delivery([{"id": 1, "day": "d", "version": 1, "text": "nul \0 byte"}], ORDERS, mode=mode)
    with opened_router(database.url) as router:
        with pytest.raises(muxly.RejectedError, match="column 'text'"):
            router.deliver(bad)
        router.deliver(numbered([3], mode=mode))
    assert database.ids() == [3]


def test_unique_index_of_somebody_else_refuses_a_record(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1], mode="upsert"))
        database.run("CREATE UNIQUE INDEX ON orders (text)")
        twin = delivery([{"id": 2, "day": "d", "version": 1, "text": "text 1"}], ORDERS, mode="upsert")
        with pytest.raises(muxly.RejectedError, match="duplicate key"):
            router.deliver(twin)


def test_rows_that_are_there_twice_are_no_records_fault(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1]))
        router.deliver(numbered([1]))
        with pytest.raises(muxly.StreamError, match=r"'orders' cannot be made ready for upsert: .*unique"):
            router.deliver(numbered([2], mode="upsert"))
    assert database.ids() == [1, 1]


def test_table_that_a_view_depends_on_is_not_replaced(database: Database) -> None:
    with opened_router(database.url) as router:
        for generation in (1, 2):
            router.begin(ORDERS, generation)
            router.deliver(numbered([generation], mode="replace", generation=generation))
            if generation == 1:
                router.complete(ORDERS, 1)
                database.run("CREATE VIEW seen AS SELECT * FROM orders")
        with pytest.raises(muxly.StreamError, match=r"other objects depend on it.*; drop what depends on it"):
            router.complete(ORDERS, 2)
        assert database.ids() == [1]
        database.run("DROP VIEW seen")
        router.complete(ORDERS, 2)
    assert database.ids() == [2]


def test_table_that_is_published_without_an_identity_stops_its_stream(database: Database) -> None:
    with opened_router(database.url) as router:
        router.deliver(numbered([1], mode="overwrite"))
        database.run("CREATE PUBLICATION seen FOR TABLE orders")
        with pytest.raises(muxly.StreamError, match=r"replica identity.*55000.*; change the table"):
            router.deliver(numbered([2], mode="overwrite"))
        database.run("ALTER TABLE orders REPLICA IDENTITY FULL")
        router.deliver(numbered([2], mode="overwrite"))
    assert database.ids() == [2]


def test_type_of_the_name_of_a_table_stops_its_stream(database: Database) -> None:
    database.run("CREATE TYPE orders AS ENUM ('new', 'paid')")
    with (
        opened_router(database.url) as router,
        pytest.raises(muxly.StreamError, match=r'type "orders" already exists.*rename it'),
    ):
        router.deliver(numbered([1]))


def test_key_that_comes_twice_is_a_bad_record_whatever_the_table_is_called(database: Database) -> None:
    stream = muxly.Stream("jpg_files", ("id",))
    with opened_router(database.url, primary_keys=True) as router:
        router.deliver(numbered([1], stream=stream))
        with pytest.raises(muxly.RejectedError, match="jpg_files_pkey"):
            router.deliver(numbered([1], stream=stream))


def test_record_without_a_key_is_refused(database: Database) -> None:
    keyless = delivery([{"id": 1, "version": 1}, {"id": None, "version": 1}], ORDERS, mode="upsert")
    with opened_router(database.url) as router, pytest.raises(muxly.RejectedError, match=r"'id': .*no primary key"):
        router.deliver(keyless)


def test_two_that_make_the_same_delivery_make_it_once(database: Database) -> None:
    one = numbered(range(100))
    with opened_router(database.url) as first, opened_router(database.url) as second:
        first.deliver(numbered([1000]))
        done: list[muxly.Receipt | None] = []
        thread = threading.Thread(target=lambda: done.append(second.deliver(one)))
        first.deliver(interrupted(one, thread.start))
        thread.join(20)
        if not done:
            done.append(second.deliver(one))
    assert done == [muxly.Receipt()]
    assert database.ids() == [*range(100), 1000]


def test_run_that_stops_ends_the_delivery_between_two_batches(database: Database) -> None:
    stop = threading.Event()
    one = numbered(range(10), batch_records=2)
    with opened_router(database.url, stop=stop) as router, pytest.raises(muxly.StoppedError, match="stop"):
        router.deliver(interrupted(one, stop.set))
    assert database.ids() == []
