"""The modes of the SQL router on PostgreSQL, SQLite, MariaDB and DuckDB, and through SQLAlchemy."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import count, repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import attrs
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import muxly
from muxly.router import sequence_number
from muxly_testing import delivery
from tests.routers.sql_database import ORDERS, numbered, opened_router
from tests.routers.sql_targets import KINDS, OnMariaDb, Target, in_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muxly_routers.sql import Sql
    from tests.fixtures_mariadb import MariaDb

KEYED = muxly.Stream("keyed", ("id",), cursor_field="changed")
DEAD = datetime(2026, 1, 1, tzinfo=UTC)
STREAMS = count()


@attrs.frozen
class Lasting:
    """A database for many examples, which take other streams, with routers that stay open.

    Args:
        target: The database.
        routers: By what they do with deleted records.
    """

    target: Target
    routers: dict[str, Sql]


@pytest.fixture(scope="module")
def lasting(lasting_target: Target) -> Iterator[Lasting]:
    with lasting_target.opened(deletes="soft") as soft, lasting_target.opened(deletes="hard") as hard:
        yield Lasting(lasting_target, {"soft": soft, "hard": hard})


@pytest.fixture(scope="module", params=KINDS)
def lasting_target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if request.param == "mariadb":
        server: MariaDb = request.getfixturevalue("mariadb_server")
        server.run("CREATE DATABASE muxly_modes")
        yield OnMariaDb(server.url("muxly_modes"), None, {})
        server.run("DROP DATABASE muxly_modes")
        return
    if request.param != "postgres":
        yield in_file(request.param, tmp_path_factory.mktemp("modes"))
        return
    schema = f"modes_{uuid4().hex[:12]}"  # the workers of a test run share the server
    target = Target(request.getfixturevalue("postgres_server"), None, {"schema": schema})
    yield target
    target.run(f"DROP SCHEMA {schema} CASCADE")


Change = tuple[int, int | None, bool]
CHANGES = st.tuples(st.integers(1, 3), st.none() | st.integers(1, 3), st.booleans())


def newest(deliveries: list[list[Change]]) -> dict[int, tuple[str, bool]]:
    """What is left of each key, by the rule: greater cursor, then position, then the later record."""
    best: dict[int, tuple[tuple[int, int, int], str, bool]] = {}
    for position, changes in enumerate(deliveries):
        for number, (key, cursor, dead) in enumerate(changes):
            rank = (-1 if cursor is None else cursor, position, number)
            if key not in best or rank > best[key][0]:
                best[key] = (rank, f"{position}.{number}", dead)
    return {key: (text, dead) for key, (_rank, text, dead) in best.items()}


def changed(stream: muxly.Stream, position: int, changes: list[Change], only: int | None = None) -> muxly.Delivery:
    """The changes at a position of the log; or only one of them, as a dead letter is delivered again."""
    records = [
        {"id": key, "changed": cursor, "text": f"{position}.{number}", "_deleted_at": DEAD if dead else None}
        for number, (key, cursor, dead) in enumerate(changes)
        if only in (None, number)
    ]
    kinds = pa.schema(
        [("id", pa.int64()), ("changed", pa.int64()), ("text", pa.string()), ("_deleted_at", pa.timestamp("us", "UTC"))]
    )
    one = delivery(pa.Table.from_pylist(records, kinds), stream, mode="upsert", batch_records=2)
    if only is None:
        source = attrs.evolve(one.source, positions=lambda: repeat(position))
    else:
        numbers = pa.array([sequence_number(position, only)], pa.int64())
        source = attrs.evolve(one.source, sequences=lambda: [numbers])
    return attrs.evolve(one, source=source)


@pytest.mark.parametrize("deletes", ["soft", "hard"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    deliveries=st.lists(st.lists(CHANGES, min_size=1, max_size=4), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_newest_record_of_each_key_is_left_whatever_comes_first(
    lasting: Lasting, deletes: str, deliveries: list[list[Change]], order: Any
) -> None:
    stream = attrs.evolve(KEYED, name=f"keyed_{deletes}_{next(STREAMS)}")
    made = [changed(stream, position, changes) for position, changes in enumerate(deliveries)]
    made += [
        changed(stream, position, changes, number)
        for position, changes in enumerate(deliveries)
        for number in range(len(changes))
        if order.random() < 1 / 2
    ]
    order.shuffle(made)
    for one in made:
        lasting.routers[deletes].deliver(one)
    schema = lasting.target.options.get("schema")
    rows = lasting.target.run(f'SELECT * FROM {f"{schema}." if schema else ""}"{stream.name}"')
    wanted = newest(deliveries)
    alive = {row["id"]: row["text"] for row in rows if row["_deleted_at"] is None}
    assert alive == {key: text for key, (text, dead) in wanted.items() if not dead}
    marked = {row["id"] for row in rows if row["_deleted_at"] is not None}
    assert marked == ({key for key, (_text, dead) in wanted.items() if dead} if deletes == "soft" else set())


def test_tombstone_changes_nothing_but_the_mark(target: Target) -> None:
    born = [{"id": 1, "changed": 1, "text": "kept", "_deleted_at": None}]
    with target.opened() as router:
        router.deliver(delivery(born, KEYED, mode="upsert"))
        router.deliver(delivery([{"id": 1, "changed": 2, "text": None, "_deleted_at": DEAD}], KEYED, mode="upsert"))
    (row,) = target.run("SELECT * FROM keyed")
    assert (row["text"], row["changed"], row["_deleted_at"] is None) == ("kept", 2, False)


def test_deleted_record_comes_back_when_it_is_newer(target: Target) -> None:
    with target.opened(deletes="hard") as router:
        for version, dead in ((1, None), (2, DEAD), (3, None)):
            record = {"id": 1, "changed": version, "text": f"v{version}", "_deleted_at": dead}
            router.deliver(delivery([record], KEYED, mode="upsert"))
    assert [row["text"] for row in target.run("SELECT * FROM keyed")] == ["v3"]


def test_columns_that_the_records_do_not_have_are_kept(target: Target) -> None:
    with target.opened() as router:
        router.deliver(delivery([{"id": 1, "changed": 1, "text": "a", "note": "mine"}], KEYED, mode="upsert"))
        router.deliver(delivery([{"id": 1, "changed": 2, "text": "b"}], KEYED, mode="upsert"))
    (row,) = target.run("SELECT * FROM keyed")
    assert (row["text"], row["note"]) == ("b", "mine")


def test_key_of_several_columns(target: Target) -> None:
    stream = muxly.Stream("pairs", ("shop", "number"))
    with target.opened() as router:
        for text in ("first", "second"):
            records = [{"shop": shop, "number": 1, "text": f"{shop} {text}"} for shop in ("a", "b")]
            router.deliver(delivery(records, stream, mode="upsert"))
    found = sorted(row["text"] for row in target.run("SELECT text FROM pairs"))
    assert found == ["a second", "b second"]


def test_upsert_without_a_key_says_what_to_do(target: Target) -> None:
    with target.opened() as router, pytest.raises(muxly.StreamError, match=r"no primary key.*mode: append"):
        router.deliver(delivery([{"id": 1}], "keyless", mode="upsert"))


def test_table_of_appended_records_is_taken_over_by_upsert(target: Target) -> None:
    with target.opened() as router:
        router.deliver(numbered([1, 2]))
        router.deliver(numbered([2, 3], mode="upsert"))
    assert target.ids() == [1, 2, 3]


def test_overwrite_replaces_also_null_values(target: Target) -> None:
    stream = muxly.Stream("days", overwrite_key=("day", "shop"))

    def rows(*records: tuple[date | None, str | None, int], **facts: Any) -> muxly.Delivery:
        schema = pa.schema([("day", pa.date32()), ("shop", pa.string()), ("id", pa.int64())])
        named = [dict(zip(schema.names, record, strict=True)) for record in records]
        return delivery(pa.Table.from_pylist(named, schema), stream, mode="overwrite", **facts)

    day = date(2026, 1, 1)
    with target.opened() as router:
        router.deliver(rows((None, "a", 1), (day, None, 2), (day, "a", 3), (None, None, 4)))
        router.deliver(rows((None, "a", 10), replaces=[(day, None)]))
    assert target.ids("days") == [3, 4, 10]


@pytest.mark.parametrize("records", [1, 0])
def test_new_generation_takes_the_place_of_the_old(target: Target, records: int) -> None:
    with target.opened() as router:
        for generation in (1, 2):
            router.begin(ORDERS, generation)
            if generation == 1 or records:
                router.deliver(numbered([generation], mode="replace", generation=generation))
            router.complete(ORDERS, generation)
    assert target.ids() == [2] * records
    assert target.tables() == ["_muxly_deliveries", "_muxly_generations", "orders"]


def test_routes_that_share_a_database_do_not_drop_each_others_generations(target: Target) -> None:
    with target.opened() as router:
        router.begin(ORDERS, 1)
        router.deliver(numbered([1], mode="replace", generation=1))
        other = muxly.Run("01JW000000MUXLYTESTRUN0000", "shop", route="other")
        second = type(router)(url=router.url, table="other_{stream}", fast_path=router.fast_path)
        second.open(other)
        second.begin(ORDERS, 2)
        second.deliver(numbered([7], mode="replace", generation=2))
        second.complete(ORDERS, 2)
        second.close()
        router.complete(ORDERS, 1)
    assert (target.ids(), target.ids("other_orders")) == ([1], [7])


def test_generation_that_comes_too_late_is_refused(target: Target) -> None:
    with target.opened() as router:
        router.begin(ORDERS, 5)
        router.deliver(numbered([1], mode="replace", generation=5))
        router.complete(ORDERS, 5)
        with pytest.raises(muxly.ConflictError, match=r"generation 5 .*comes too late.*_muxly_generations"):
            router.begin(ORDERS, 4)
        for generation in (4, 5):
            with pytest.raises(muxly.ConflictError, match=r"generation 5 .*comes too late"):
                router.deliver(numbered([2], mode="replace", generation=generation))
    assert target.ids() == [1]


def test_indexes_and_keys_are_made_with_the_table(target: Target) -> None:
    with target.opened(indexes={"orders": [["day"], ["version", "text"]]}, primary_keys=True) as router:
        router.deliver(numbered([1]))
        with pytest.raises(muxly.RejectedError, match=r"(?i)duplicate|unique"):
            router.deliver(numbered([1]))
    assert sum(name.startswith("_muxly_ix") for name in target.indexes()) == 2


def test_delivery_is_forgotten_after_a_while(target: Target) -> None:
    first, second = numbered([1]), numbered([2])
    with target.opened() as router:
        router.deliver(first)
    target.run("UPDATE _muxly_deliveries SET delivered_at = '2020-01-01T00:00:00.000000Z'")
    with target.opened() as router:
        router.deliver(second)
    (row,) = target.run("SELECT * FROM _muxly_deliveries")
    assert (row["id"], row["pipeline"], row["route"], row["stream"]) == (second.id, "shop", "lake", "orders")
    assert row["receipt"] == '{"rejected": [], "state": null}'


def test_types_widen_with_the_records(target: Target) -> None:
    with target.opened() as router:
        router.deliver(delivery(pa.table({"id": pa.array([1], pa.int16()), "n": pa.array([1], pa.int64())}), "wide"))
        narrow = pa.table({"id": pa.array([2], pa.int64()), "n": pa.array([None], pa.null())})
        router.deliver(delivery(narrow, "wide"))
        router.deliver(delivery(pa.table({"id": [2**40], "new": ["text"]}), "wide"))
    rows = target.run("SELECT * FROM wide ORDER BY id")
    assert [(row["id"], row["n"], row["new"]) for row in rows] == [(1, 1, None), (2, None, None), (2**40, None, "text")]


def test_whole_numbers_become_exact_decimals(tmp_path: Path, postgres_url: str) -> None:
    path = tmp_path / "records.db"
    for target in (Target(postgres_url, None, {}), Target(f"sqlite:///{path}", path, {})):
        with target.opened() as router:
            router.deliver(delivery(pa.table({"id": [1], "n": [2**62 + 1]}), "wide"))
            exact = pa.array([12345678901234567890], pa.decimal128(30, 0)).cast(pa.decimal128(34, 4))
            router.deliver(delivery(pa.table({"id": [2], "n": exact}), "wide"))
        found = [str(row["n"]).partition(".")[0] for row in target.run("SELECT n FROM wide ORDER BY id")]
        assert found == [str(2**62 + 1), "12345678901234567890"]


def test_text_where_numbers_were_stops_the_stream(postgres_url: str) -> None:
    with opened_router(postgres_url) as router:
        router.deliver(delivery([{"id": 1}], "mixed"))
        with pytest.raises(muxly.StreamError, match=r"'id': mixed.id is bigint and cannot hold text"):
            router.deliver(delivery([{"id": "one"}], "mixed"))


def test_old_deliveries_of_the_stream_are_forgotten(target: Target) -> None:
    other = attrs.evolve(ORDERS, name="others")
    with target.opened() as router:
        router.deliver(numbered([1], id="old"))
        router.deliver(numbered([2], id="new"))
        router.deliver(numbered([3], id="other", stream=other))
    target.run("UPDATE _muxly_deliveries SET delivered_at = '2020-01-01T00:00:00.000000Z' WHERE id <> 'new'")
    with target.opened() as router:
        router.deliver(numbered([4], id="next"))
        router.deliver(numbered([2], id="new"))
    assert sorted(row["id"] for row in target.run("SELECT id FROM _muxly_deliveries")) == ["new", "next", "other"]
    assert target.ids() == [1, 2, 4]
