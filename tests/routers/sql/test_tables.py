"""Tables that are there already, made by another mode or by somebody else, on each database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pyarrow as pa
import pytest

import muxly
from muxly_testing import delivery
from tests.routers.sql.database import ORDERS, numbered

if TYPE_CHECKING:
    from tests.routers.sql.targets import Target

NO_DOUBLE = 2**53 + 1


def test_rows_that_are_in_the_way_of_a_key_stay_in_its_way(target: Target) -> None:
    with target.opened() as router:
        router.deliver(numbered([1]))
        router.deliver(numbered([1]))
        for _ in range(2):
            with pytest.raises(muxly.StreamError, match=r"'orders' cannot be made ready for upsert.*rename the table"):
                router.deliver(numbered([2], mode="upsert"))
    assert target.ids() == [1, 1]


def only(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("target", kinds, indirect=True)


@only("postgres", "sqlite", "duckdb")
def test_key_that_changed_needs_an_index_of_its_own(target: Target) -> None:
    other = attrs.evolve(ORDERS, primary_key=("text",))
    with target.opened() as router:
        router.deliver(numbered([1, 2], mode="upsert"))
        with pytest.raises(muxly.StreamError, match="or rename it, and a new one is made"):
            router.deliver(numbered([2, 3], stream=other, mode="upsert"))
        target.run("CREATE UNIQUE INDEX texts ON orders (text)")
        router.deliver(numbered([2, 3], stream=other, mode="upsert"))
    assert target.ids() == [1, 2, 3]


@only("mariadb", "sqlalchemy")
def test_key_that_changed_is_found_without_an_index(target: Target) -> None:
    other = attrs.evolve(ORDERS, primary_key=("version", "id"))
    with target.opened() as router:
        router.deliver(numbered([1, 2], mode="upsert"))
        router.deliver(numbered([2, 3], stream=other, mode="upsert"))
    assert target.ids() == [1, 2, 3]


@only("postgres", "mariadb", "duckdb")
def test_whole_numbers_that_would_be_rounded_are_left_as_they_are(target: Target) -> None:
    floats = delivery(pa.table({"id": [2], "n": [0.5]}), "numbers")
    with target.opened() as router:
        router.deliver(delivery(pa.table({"id": [1], "n": [NO_DOUBLE]}), "numbers"))
        with pytest.raises(muxly.StreamError, match=r"holds numbers that (?i:double).* would round; rename it"):
            router.deliver(floats)
        target.run("DELETE FROM numbers")
        router.deliver(floats)
        router.deliver(delivery(pa.table({"id": [3], "n": [2**53]}), "numbers"))
        with pytest.raises(muxly.RejectedError, match="column 'n'"):
            router.deliver(delivery(pa.table({"id": [4], "n": [NO_DOUBLE]}), "numbers"))
    assert [row["n"] for row in target.run("SELECT n FROM numbers ORDER BY id")] == [0.5, 2**53]


@only("sqlite", "duckdb")
def test_key_whose_type_cannot_be_changed_stops_its_stream_only(target: Target) -> None:
    with target.opened() as router:
        router.deliver(numbered([1], mode="upsert"))
        larger = pa.table({"id": pa.array([2], pa.uint64()), "version": [1]})
        with pytest.raises(muxly.StreamError, match="change the table, or rename it, and a new one is made"):
            router.deliver(delivery(larger, ORDERS, mode="upsert"))
        router.deliver(numbered([3], mode="upsert"))
    assert target.ids() == [1, 3]


@only("mariadb")
def test_text_without_a_length_is_no_key(target: Target) -> None:
    named = muxly.Stream("named", ("name",))
    with target.opened() as router:
        router.deliver(delivery([{"name": "a"}], named))
        for _ in range(2):
            with pytest.raises(muxly.StreamError, match=r"1170.*change the table, or rename it"):
                router.deliver(delivery([{"name": "b"}], named, mode="upsert"))
        target.run("ALTER TABLE named MODIFY name VARCHAR(100)")
        router.deliver(delivery([{"name": "b"}], named, mode="upsert"))
    assert sorted(row["name"] for row in target.run("SELECT name FROM named")) == ["a", "b"]


@only("sqlite", "sqlalchemy", "mariadb", "duckdb")
def test_view_shows_the_new_generation(target: Target) -> None:
    with target.opened() as router:
        for generation in (1, 2, 3):
            router.begin(ORDERS, generation)
            if generation < 3:
                router.deliver(numbered([generation], mode="replace", generation=generation))
            router.complete(ORDERS, generation)
            if generation == 1:
                target.run("CREATE VIEW seen AS SELECT id FROM orders WHERE id > 0")
            assert target.ids("seen") == ([generation] if generation < 3 else [])
