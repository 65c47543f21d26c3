"""The SQL router on a real MariaDB, looked at through MariaDB's own client."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import muxly
from muxly_routers.sql import Sql
from muxly_routers.sql.mysql import session
from muxly_testing import delivery
from muxly_testing._fake_connector import fake_record, fake_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fixtures_mariadb import MariaDb

KEYED = muxly.Stream("orders", ("id",), cursor_field="version", overwrite_key=("day",))

pytestmark = pytest.mark.usefixtures("mariadb_server")


@pytest.fixture
def opened(mariadb_url: str) -> Iterator[Callable[..., Sql]]:
    """Makes opened routers to the test's database."""
    with contextlib.ExitStack() as stack:

        def make(url: str = mariadb_url, noticed: list[muxly.Notice] | None = None, **options: Any) -> Sql:
            notices = [] if noticed is None else noticed
            run = muxly.Run("01JW0000000000000000000000", "daily", route="shop", on_notice=notices.append)
            router = Sql(url=muxly.Secret(url), **options)
            router.open(run)
            stack.callback(run.end)
            stack.callback(router.close)
            return router

        yield make


@pytest.fixture
def shown(mariadb_server: MariaDb, mariadb_database: str) -> Callable[[str], list[list[str]]]:
    """What the command line client shows of a query."""

    def show(query: str) -> list[list[str]]:
        return [line.split("\t") for line in mariadb_server.client(query, mariadb_database).splitlines()]

    return show


@pytest.fixture(params=["ON", "OFF"])
def local_infile(request: pytest.FixtureRequest, mariadb_server: MariaDb) -> Iterator[str]:
    """The server's setting: LOAD DATA LOCAL is allowed, or records go in by INSERT."""
    mariadb_server.run(f"SET GLOBAL local_infile = {request.param}")
    yield request.param
    mariadb_server.run("SET GLOBAL local_infile = ON")


def wide(numbers: range) -> pa.Table:
    """Records with a column of every type, without the infinity that MySQL has no form for."""
    schema = fake_schema(wide=True)
    records = [fake_record(0, "wide", number, wide=True, per_day=10) for number in numbers]
    arrays = []
    for field in schema:
        values = [None if record[field.name] == float("inf") else record[field.name] for record in records]
        kind = pa.string() if pa.types.is_dictionary(field.type) else field.type
        arrays.append(pa.array(values, kind))
    return pa.table(arrays, names=schema.names)


def test_every_type_is_a_column_of_its_own_kind(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]], local_infile: str
) -> None:
    opened().deliver(delivery(wide(range(200)), "wide"))
    types = {name: kind for name, kind, *_ in shown("DESCRIBE wide")}
    assert types == {
        "id": "bigint(20)",
        "name": "longtext",
        "amount": "double",
        "day": "date",
        "changed_at": "datetime(6)",
        "flag": "tinyint(1)",
        "tiny": "tinyint(4)",
        "big": "bigint(20) unsigned",
        "price": "decimal(24,9)",
        "ratio": "double",
        "text": "longtext",
        "bytes": "longblob",
        "clock": "time(6)",
        "lasted": "bigint(20)",
        "naive_at": "datetime(6)",
        "tags": "longtext",
        "place": "longtext",
        "kind": "longtext",
        "old": "date",
        "noon": "time(6)",
    }
    assert [name for name, *_ in shown("DESCRIBE wide")] == list(types)


def test_every_value_is_what_it_was(
    opened: Callable[..., Sql], mariadb_server: MariaDb, mariadb_database: str, local_infile: str
) -> None:
    sent = wide(range(200))
    opened().deliver(delivery(sent, "wide"))
    names = "id, name, amount, day, flag, tiny, big, price, text, bytes, lasted, naive_at, kind, old, changed_at, clock"
    rows = mariadb_server.run(f"USE {mariadb_database}", f"SELECT {names} FROM wide ORDER BY id")
    for row, record in zip(rows, sent.to_pylist(), strict=True):
        found = dict(zip(names.split(", "), row, strict=True))
        found["lasted"] = timedelta(microseconds=found["lasted"])
        found["changed_at"] = found["changed_at"].replace(tzinfo=UTC)
        found["clock"] = (datetime(2000, 1, 1) + found["clock"]).time()  # noqa: DTZ001
        found["flag"] = None if found["flag"] is None else bool(found["flag"])
        assert found == {name: record[name] for name in found}


def test_nested_values_are_json(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]], local_infile: str
) -> None:
    records = [{"id": 1, "tags": ["a\tb", "\\", "'", '"', "\n"], "place": {"lat": 1.5, "city": "日本\n"}}]
    opened().deliver(delivery(records, "orders"))
    query = "SELECT JSON_LENGTH(tags), HEX(JSON_VALUE(tags, '$[1]')), JSON_VALUE(place, '$.lat') FROM orders"
    assert shown(query) == [["5", "5C", "1.5"]]


def test_texts_arrive_byte_by_byte(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]], local_infile: str
) -> None:
    texts = [
        "",
        "NULL",
        "\\N",
        "\\",
        "\\\\n",
        "a\tb\nc\r\n",
        "'; DROP TABLE orders; --",
        "\0\x1a",
        "👩‍💻",
        "e\u0301",
        None,
        " x ",
    ]
    opened().deliver(delivery([{"id": number, "text": text} for number, text in enumerate(texts)], "orders"))
    rows = shown("SELECT HEX(text) FROM orders ORDER BY id")
    assert [row[0] for row in rows] == ["NULL" if text is None else text.encode().hex().upper() for text in texts]


def test_server_without_local_infile_is_told_of_once(opened: Callable[..., Sql], mariadb_server: MariaDb) -> None:
    noticed: list[muxly.Notice] = []
    mariadb_server.run("SET GLOBAL local_infile = OFF")
    try:
        router = opened(noticed=noticed)
        for number in range(2):
            router.deliver(delivery([{"id": number}], "orders"))
    finally:
        mariadb_server.run("SET GLOBAL local_infile = ON")
    assert [one.code for one in noticed] == ["local_infile_off"]
    assert "SET GLOBAL local_infile = ON" in noticed[0].message


def test_text_keys_that_look_alike_are_different_keys(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]]
) -> None:
    stream = muxly.Stream("names", ("key",))
    keys = ["a", "A", "á", "a ", " a", "\uff41"]
    opened().deliver(delivery([{"key": key, "n": n} for n, key in enumerate(keys)], stream, mode="upsert"))
    assert shown("SELECT COUNT(*) FROM names") == [[str(len(keys))]]


def test_text_key_that_is_too_long_is_a_bad_record(opened: Callable[..., Sql]) -> None:
    stream = muxly.Stream("names", ("key",))
    with pytest.raises(muxly.RejectedError, match=r"column 'key': a value does not fit its column"):
        opened().deliver(delivery([{"key": "x" * 256}], stream, mode="upsert"))


def test_deleted_records_leave_and_do_not_come_back(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]]
) -> None:
    router = opened(deletes="hard")
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def send(version: int, deleted: datetime | None) -> None:
        rows = pa.table(
            {
                "id": [1, 2],
                "version": [version, 1],
                "_deleted_at": pa.array([deleted, None], pa.timestamp("us", "UTC")),
            }
        )
        router.deliver(delivery(rows, KEYED, mode="upsert"))

    send(1, None)
    send(3, now)
    assert shown("SELECT id FROM orders") == [["2"]]
    send(2, None)
    assert shown("SELECT id FROM orders") == [["2"]]
    send(4, None)
    assert shown("SELECT id, version FROM orders ORDER BY id") == [["1", "4"], ["2", "1"]]


def test_second_unique_index_is_never_taken_for_the_key(
    opened: Callable[..., Sql], mariadb_server: MariaDb, mariadb_database: str, shown: Callable[[str], list[list[str]]]
) -> None:
    router = opened()
    router.deliver(delivery([{"id": 1, "mail": 7, "version": 1}], KEYED, mode="upsert"))
    mariadb_server.run(f"USE {mariadb_database}", "CREATE UNIQUE INDEX mails ON orders (mail)")
    with pytest.raises(muxly.RejectedError, match="a record with the same unique key exists already"):
        router.deliver(delivery([{"id": 2, "mail": 7, "version": 1}], KEYED, mode="upsert"))
    assert shown("SELECT id, mail FROM orders") == [["1", "7"]]


def test_columns_are_added_and_widened(opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]]) -> None:
    router = opened()
    for kind, more in (
        (pa.int8(), {}),
        (pa.int64(), {"price": [Decimal("1.5")]}),
        (pa.uint64(), {"price": [Decimal("12345.25")]}),
    ):
        router.deliver(delivery(pa.table({"id": pa.array([5], kind), **more}), "orders"))
    assert shown("DESCRIBE orders")[0][:2] == ["id", "decimal(20,0)"]
    assert shown("SELECT id, price FROM orders ORDER BY price") == [
        ["5", "NULL"], ["5", "1.50"], ["5", "12345.25"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([float("nan")]), "MySQL and MariaDB have no NaN and no infinity"),
        (pa.array([float("-inf")], pa.float32()), "MySQL and MariaDB have no NaN and no infinity"),
        (pa.array([2**55], pa.timestamp("s")), "column 'bad'"),
        (pa.array([253_402_300_800], pa.timestamp("s")), "a timestamp outside the years 1 to 9999"),
        (pa.array([-719_163], pa.date32()), "a date outside the years 1 to 9999"),
        (pa.array([1], pa.timestamp("ns")), "column 'bad'"),
    ],
)
def test_value_that_mysql_does_not_have_is_a_bad_record(
    opened: Callable[..., Sql], column: pa.Array, message: str
) -> None:
    with pytest.raises(muxly.RejectedError, match=f"column 'bad'.*{message}|{message}"):
        opened().deliver(delivery(pa.table({"id": [1], "bad": column}), "orders"))


def test_decimal_of_too_many_digits_is_refused_by_name(opened: Callable[..., Sql]) -> None:
    table = pa.table({"id": [1], "huge": pa.array([Decimal(10**70)], pa.decimal256(76, 0))})
    with pytest.raises(muxly.StreamError, match=r"column 'huge': mysql has no type for decimal256\(76, 0\)"):
        opened().deliver(delivery(table, "orders"))


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH"])
def test_settings_of_the_server_do_not_matter(
    opened: Callable[..., Sql],
    mariadb_server: MariaDb,
    mariadb_database: str,
    shown: Callable[[str], list[list[str]]],
    mode: str,
) -> None:
    before = mariadb_server.run("SELECT @@GLOBAL.sql_mode")[0][0]
    mariadb_server.run(f"SET GLOBAL sql_mode = '{mode}'", "SET GLOBAL time_zone = '+05:00'")
    try:
        router = opened()
        at = datetime(2026, 1, 1, 12, tzinfo=UTC)
        router.deliver(delivery([{"id": 1, "text": "back\\slash\n", "at": at, "n": 0}], "orders"))
        mariadb_server.run(f"USE {mariadb_database}", "CREATE TABLE short (id BIGINT, text VARCHAR(3))")
        with pytest.raises(muxly.RejectedError, match=r"column 'text': a value does not fit its column"):
            router.deliver(delivery([{"id": 1, "text": "four"}], "short"))
    finally:
        mariadb_server.run(f"SET GLOBAL sql_mode = '{before}'", "SET GLOBAL time_zone = SYSTEM")
    assert shown("SELECT HEX(text), at, (SELECT COUNT(*) FROM short) FROM orders") == [
        [b"back\\slash\n".hex().upper(), "2026-01-01 12:00:00.000000", "0"]
    ]


def test_table_without_transactions_is_refused(
    opened: Callable[..., Sql], mariadb_server: MariaDb, mariadb_database: str, shown: Callable[[str], list[list[str]]]
) -> None:
    mariadb_server.run(f"USE {mariadb_database}", "CREATE TABLE orders (id BIGINT) ENGINE=MyISAM")
    with pytest.raises(muxly.StreamError, match=r"the engine MyISAM, which has no transactions, as InnoDB has.*change"):
        opened().deliver(delivery([{"id": 1}], "orders"))
    assert shown("SELECT * FROM orders") == []


NAMES = [
    "a b",
    "a`b",
    "a'b\"",
    "a%sb",
    "%",
    "semi;colon",
    "naïve ☃",
    "👩‍💻",
    "x" * 100,
    "☃" * 64,
    "İ",
    "i",
    "select",
    "new\nline",
    "..",
]


def test_hostile_names_are_only_names(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]], mariadb_server: MariaDb
) -> None:
    router = opened()
    for number, name in enumerate(NAMES):
        stream = muxly.Stream(name, (name,), cursor_field="version")
        record = dict.fromkeys(NAMES, number) | {"version": 1}
        for mode in ("upsert", "append"):
            kept = stream if mode == "upsert" else muxly.Stream(f"plain {name}")
            router.deliver(delivery([record], kept, mode=mode))
    tables = [row[0] for row in shown("SHOW TABLES") if not row[0].startswith("_muxly_")]
    assert len(tables) == 2 * len(NAMES)
    assert mariadb_server.run("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'mysql'") == [(1,)]


@pytest.mark.parametrize(
    "query", ["local_infile=1", "read_default_file=/etc/passwd", "init_command=SELECT+1", "sql_mode=ANSI"]
)
def test_url_may_not_have_options_that_do_more(opened: Callable[..., Sql], mariadb_url: str, query: str) -> None:
    name = query.partition("=")[0]
    with pytest.raises(muxly.ConfigurationError, match=f"the URL has the option '{name}'"):
        opened(f"{mariadb_url}?{query}").deliver(delivery([{"id": 1}], "orders"))


def test_streams_are_kept_apart_where_tables_have_small_letters_only(
    opened: Callable[..., Sql], shown: Callable[[str], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server of this kind is one on Windows, or one in the clouds; it cannot be told while it runs.
    asked = session._SETTINGS.replace("@@lower_case_table_names = 1", "1")
    monkeypatch.setattr(session, "_SETTINGS", asked)
    for run in range(2):
        router = opened()
        for number, name in enumerate(("Orders", "orders", "ORDERS")):
            router.deliver(delivery([{"id": 10 * run + number}], name))
    tables = [name for (name,) in shown("SHOW TABLES") if not name.startswith("_muxly_")]
    assert all(name == name.lower() for name in tables)
    found = [[number for (number,) in shown(f"SELECT id FROM {name} ORDER BY id")] for name in tables]
    assert sorted(found) == [["0", "10"], ["1", "11"], ["2", "12"]]


@pytest.mark.parametrize("query", ["read_timeout=soon", "read_timeout=1&read_timeout=2"])
def test_limit_that_is_no_number_is_refused(opened: Callable[..., Sql], mariadb_url: str, query: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="read_timeout and write_timeout in the URL are whole seconds"):
        opened(f"{mariadb_url}?{query}").deliver(delivery([{"id": 1}], "orders"))


def test_another_driver_is_refused_by_name(opened: Callable[..., Sql], mariadb_url: str) -> None:
    url = mariadb_url.replace("mysql+pymysql", "mysql+mysqlconnector")
    with pytest.raises(muxly.ConfigurationError, match=re.escape("write mysql+pymysql://user:password@host/database")):
        opened(url).deliver(delivery([{"id": 1}], "orders"))
