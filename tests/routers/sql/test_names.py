"""Names from outside: of streams, columns and schemas."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

import muxly
from muxly_routers.sql import Sql, names
from muxly_routers.sql.postgres.dialect import PostgresDialect
from muxly_routers.sql.sqlite.dialect import SqliteDialect
from muxly_testing import delivery
from tests.routers.sql.database import opened_router

if TYPE_CHECKING:
    from pathlib import Path

    from muxly_routers.sql.dialect import SqlDialect

HOSTILE = [
    "select",
    "user",
    "order",
    "table",
    'quo"te',
    'x"; DROP TABLE canary; --',
    "x'; DROP TABLE canary; --",
    "`back`",
    "[brackets]",
    "semi;colon",
    "a.b",
    "a b",
    " leading",
    "trailing ",
    "",
    " ",
    "nul\0byte",
    "new\nline",
    "tab\t",
    "%s",
    "%(p1)s",
    "$1",
    ":name",
    "?",
    "{stream}",
    "\\",
    "/* comment */",
    "ctid",
    "xmin",
    "oid",
    "rowid",
    "_rowid_",
    "sqlite_master",
    "pg_class",
    "__proto__",
    "constructor",
    "_muxly_sequence",
    "_muxly_deliveries",
    "_deleted_at2",
    "é",
    "e\u0301",
    "\u202egnp",
    "日本語",
    "👩‍💻",
    "UPPER",
    "upper",
    "x" * 63,
    "x" * 63 + "y",
    "x" * 63 + "z",
    "é" * 40,
    "a" * 300,
    "name_x0123abcd",
]
DIALECTS: list[SqlDialect] = [PostgresDialect(), SqliteDialect()]
ANY_TEXT = st.text(max_size=80)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
@given(given_names=st.sets(ANY_TEXT | st.sampled_from(HOSTILE), min_size=1, max_size=12))
def test_every_name_gets_one_of_its_own_that_fits(dialect: SqlDialect, given_names: set[str]) -> None:
    found = names.assigned(sorted(given_names), [], dialect)
    assert len({dialect.folded(one) for one in found.values()}) == len(given_names)
    for one in found.values():
        assert one
        assert dialect.length(one) <= dialect.longest_name
        assert not one.startswith("_muxly_")
        assert one.encode().isascii() or one == one.strip()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
@given(before=st.lists(ANY_TEXT | st.sampled_from(HOSTILE), unique=True, max_size=6), data=st.data())
def test_name_stays_the_same_when_others_come(dialect: SqlDialect, before: list[str], data: Any) -> None:
    there = names.assigned(before, [], dialect)
    more = data.draw(st.lists(ANY_TEXT | st.sampled_from(HOSTILE), unique=True, max_size=6))
    order = data.draw(st.permutations(list(dict.fromkeys([*before, *more]))))
    again = names.assigned(order, there.values(), dialect)
    assert {name: again[name] for name in before} == there


def test_usual_names_are_kept() -> None:
    usual = ["orders", "Order Date", "deals:contacts", "events_20240101", "straße", "a" * 63]
    assert names.assigned(usual, [], PostgresDialect()) == {name: name for name in usual}


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("fixed", r"\{stream\} must be in 'fixed'"),
        ("{stream}_{table}", r"\{table\} is not known"),
        ("{stream.__class__}", "brace that belongs to no placeholder"),
        ("{stream", "brace"),
        ("{{stream}}", "brace"),
    ],
)
def test_template_that_would_mix_streams_is_refused(template: str, problem: str) -> None:
    with pytest.raises((muxly.ConfigurationError, ValueError), match=problem):
        Sql(url=muxly.Secret("sqlite:///unused.db"), table=template)


def columns_of(number: int) -> list[str]:
    """All the names in the first table, in each other the table's own, and that of the cursor."""
    return HOSTILE if number == 0 else list(dict.fromkeys(["%s", HOSTILE[number]]))


def hostile_records(number: int) -> pa.Table:
    """A record with a text of its own in each column."""
    columns = {name: pa.array([f"{number} {name!r}"]) for name in columns_of(number)}
    return pa.table({"id": pa.array([number]), **columns})


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite", "replace"])
@pytest.mark.parametrize("fast", [True, False])
def test_hostile_names_are_only_names_in_sqlite(tmp_path: Path, mode: Any, fast: bool) -> None:
    path = tmp_path / "records.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE canary (alive TEXT)")
        database.commit()
    with opened_router(f"sqlite:///{path}", fast_path=fast) as router:
        deliver_all(router, mode)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT COUNT(*) FROM canary").fetchone() == (0,)
        found = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [name for name in found if not name.startswith(("_muxly_", "canary"))]
        assert len(tables) == len(HOSTILE)
        rows = [database.execute(f"SELECT * FROM {quoted(name)}").fetchall() for name in tables]
    check_rows([row for table in rows for row in table])


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def deliver_all(router: Any, mode: Any) -> None:
    for number, name in enumerate(HOSTILE):
        stream = muxly.Stream(name, ("id", name), overwrite_key=(name,), cursor_field="%s")
        generation = 1 if mode == "replace" else None
        if generation:
            router.begin(stream, generation)
        router.deliver(delivery(hostile_records(number), stream, mode=mode, generation=generation))
        if generation:
            router.complete(stream, generation)


def check_rows(rows: list[Any]) -> None:
    assert len(rows) == len(HOSTILE)
    for row in rows:
        texts = {value for value in row if isinstance(value, str)}
        assert texts == {f"{row[0]} {name!r}" for name in columns_of(row[0])}


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite", "replace"])
def test_hostile_names_are_only_names_in_postgres(postgres_url: str, mode: Any) -> None:
    schema = 'sch"ema; DROP TABLE canary; --'
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE canary (alive text)")
        with opened_router(postgres_url, schema=schema) as router:
            deliver_all(router, mode)
        assert database.execute("SELECT COUNT(*) FROM canary").fetchone() == (0,)
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = %s AND NOT starts_with(tablename, '_muxly_')"
        tables = [name for (name,) in database.execute(listed, [schema])]
        assert len(tables) == len(HOSTILE)
        rows = [
            database.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, name))).fetchall()
            for name in tables
        ]
    check_rows([row for table in rows for row in table])


def test_schema_and_table_are_made_of_stream_route_and_pipeline(postgres_url: str) -> None:
    with opened_router(postgres_url, schema="{pipeline}_{route}", table="raw_{stream}") as router:
        router.deliver(delivery([{"id": 1}], "orders"))
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT id FROM shop_lake.raw_orders").fetchall() == [(1,)]
        assert database.execute("SELECT COUNT(*) FROM shop_lake._muxly_deliveries").fetchone() == (1,)
