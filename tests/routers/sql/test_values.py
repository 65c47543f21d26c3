"""Values of every type come back from each database as they were, read by another program."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

import muxly
from muxly_testing import delivery
from tests.routers.sql.database import opened_router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from muxly_routers.sql import Sql

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001
SPANS = st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))
TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(20, 4): st.decimals(Decimal(-(10**15)), Decimal(10**15), places=4),
    pa.decimal256(60, 10): st.decimals(Decimal(-(10**25)), Decimal(10**25), places=10),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.string_view(): TEXT,
    pa.binary(): st.binary(max_size=8),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.time32("s"): st.times().map(lambda one: one.replace(microsecond=0)),
    pa.timestamp("us"): MOMENTS,
    pa.timestamp("s"): MOMENTS.map(lambda one: one.replace(microsecond=0)),
    pa.timestamp("us", "UTC"): MOMENTS.map(lambda one: one.replace(tzinfo=UTC)),
    pa.timestamp("ms", "Europe/Berlin"): MOMENTS.map(lambda one: one.replace(microsecond=5000, tzinfo=UTC)),
    pa.duration("us"): SPANS,
    pa.duration("s"): SPANS.map(lambda one: timedelta(seconds=int(one.total_seconds()))),
    pa.dictionary(pa.int32(), pa.string()): TEXT,
    pa.list_(pa.string()): st.lists(st.none() | TEXT, max_size=3),
    pa.list_(pa.int64()): st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]): st.fixed_dictionaries(
        {"a": st.none() | st.integers(-(2**63), 2**63 - 1), "b": st.none() | st.lists(TEXT, max_size=2)}
    ),
    pa.null(): st.none(),
    **{
        kind: st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    },
    **{kind: st.integers(0, 2**kind.bit_width - 1) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
}
STREAMS = count()


@st.composite
def tables(draw: Callable[..., Any]) -> pa.Table:
    """A table with columns of some types, and an id first."""
    kinds = draw(st.lists(st.sampled_from(sorted(TYPES, key=str)), min_size=1, max_size=6))
    rows = draw(st.integers(1, 4))
    columns = {"id": pa.array(range(rows), pa.int64())}
    for number, kind in enumerate(kinds):
        values = draw(st.lists(st.none() | TYPES[kind], min_size=rows, max_size=rows))
        columns[f"c{number}"] = pa.array(values, kind)
    return pa.table(columns)


def same(sent: Any, seen: Any, kind: pa.DataType) -> bool:
    if isinstance(sent, float) and math.isnan(sent):
        return seen is None or math.isnan(seen)
    if kind == pa.float32() and seen is not None and math.isfinite(seen):
        (seen,) = struct.unpack("f", struct.pack("f", seen))  # PostgreSQL shows as many digits as a real has
    return bool(sent == seen)


def delivered(router: Sql, table: pa.Table, **facts: Any) -> str:
    name = f"stream_{next(STREAMS)}"
    router.deliver(delivery(table, muxly.Stream(name, ("id",)), **facts))
    return name


def compare(table: pa.Table, rows: list[dict[str, Any]]) -> None:
    assert len(rows) == table.num_rows
    for sent, row in zip(table.to_pylist(), rows, strict=True):
        for column, value in sent.items():
            kind = table.schema.field(column).type
            seen = row.get(column)
            assert same(value, seen, kind), f"{kind}: {value!r} became {seen!r}"


@pytest.fixture(scope="module")
def postgres(postgres_server: str) -> Iterator[Any]:
    """A router, and a reader of the rows of its tables."""
    schema = f"values_{uuid4().hex[:12]}"  # the workers of a test run share the server

    def read(table: str) -> list[dict[str, Any]]:
        psycopg.types.json.set_json_loads(lambda text: json.loads(text, parse_float=Decimal), connection)
        return connection.cursor(row_factory=dict_row).execute(f'SELECT * FROM {schema}."{table}"'.encode()).fetchall()

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        with opened_router(postgres_server, schema=schema) as router:
            yield router, read
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables())
def test_postgres_gives_back_what_it_was_given(postgres: Any, table: pa.Table) -> None:
    router, read = postgres
    compare(table, read(delivered(router, table)))


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables())
def test_postgres_gives_back_what_was_merged(postgres: Any, table: pa.Table) -> None:
    router, read = postgres
    compare(table, sorted(read(delivered(router, table, mode="upsert")), key=lambda row: int(row["id"])))


def plain(value: Any, kind: pa.DataType) -> Any:
    """A value of SQLite as what it stands for; see the type table of the reference."""
    if value is None:
        return None
    if pa.types.is_nested(kind):
        return json.loads(value, parse_float=Decimal)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if pa.types.is_uint64(kind):
        return int(value)
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_time(kind):
        return time.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    return timedelta(microseconds=value) if pa.types.is_duration(kind) else value


def read_sqlite(path: Path, stream: str, schema: pa.Schema) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(f'SELECT * FROM "{stream}" ORDER BY id').fetchall()
    return [
        {name: plain(row[name], schema.field(name).type) for name in row.keys() if name in schema.names}  # noqa: SIM118
        for row in rows
    ]


@pytest.fixture(scope="module", params=["adbc", "sqlalchemy"])
def sqlite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("sqlite") / "values.db"
    with opened_router(f"sqlite:///{path}", fast_path=request.param == "adbc") as router:
        yield router, path


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), mode=st.sampled_from(["append", "upsert"]))
def test_sqlite_gives_back_what_it_was_given(sqlite: Any, table: pa.Table, mode: str) -> None:
    router, path = sqlite
    compare(table, read_sqlite(path, delivered(router, table, mode=mode), table.schema))


BEYOND_BOTH = [
    (pa.timestamp("us"), -(2**63)),
    (pa.timestamp("s"), 2**60),
    (pa.duration("ns"), 1),
    (pa.duration("s"), 2**62),
    (pa.time64("us"), -1),
    (pa.time64("us"), 86_400_000_000),
    (pa.time32("s"), 86_400),
    (pa.date32(), 2**31 - 1),
    (pa.date32(), -(2**31)),
]


def refused(router: Sql, kind: pa.DataType, number: int) -> None:
    whole = pa.int32() if kind.bit_width == 32 else pa.int64()
    table = pa.table({"id": [1], "when": pa.array([number], whole).view(kind)})
    with pytest.raises(muxly.RejectedError, match="column 'when'"):
        delivered(router, table)


@pytest.mark.parametrize(("kind", "number"), [*BEYOND_BOTH, (pa.timestamp("ns"), 1), (pa.time64("ns"), 1)])
def test_time_that_postgres_does_not_have_is_refused_by_name(postgres: Any, kind: pa.DataType, number: int) -> None:
    refused(postgres[0], kind, number)


@pytest.mark.parametrize(("kind", "number"), [*BEYOND_BOTH, (pa.timestamp("us"), 2**63 - 1)])
def test_time_that_has_no_text_is_refused_by_name(sqlite: Any, kind: pa.DataType, number: int) -> None:
    refused(sqlite[0], kind, number)


DUCKDB_INFINITIES = [(pa.date32(), -(2**31) + 1), (pa.timestamp("us"), 2**63 - 1), (pa.timestamp("us"), -(2**63) + 1)]


@pytest.mark.parametrize(("kind", "number"), [*BEYOND_BOTH, *DUCKDB_INFINITIES])
def test_time_that_duckdb_does_not_have_is_refused_by_name(tmp_path: Path, kind: pa.DataType, number: int) -> None:
    with opened_router(f"duckdb:///{tmp_path}/values.duckdb") as router:
        refused(router, kind, number)


@pytest.mark.parametrize("kind", [pa.decimal128(5, 10), pa.decimal128(5, -3)])
def test_decimal_of_another_scale_is_kept(postgres: Any, kind: pa.DataType) -> None:
    router, read = postgres
    value = Decimal(12345).scaleb(-kind.scale)
    table = pa.table({"id": [1], "price": pa.array([f"{value:f}"]).cast(kind)})
    for mode in ("append", "upsert"):
        (row,) = read(delivered(router, table, mode=mode))
        assert row["price"] == value


def test_type_without_a_form_names_the_column(sqlite: Any) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["x"])])
    with pytest.raises(muxly.StreamError, match=r"'either': .* has no type for sparse_union.*exclude: \[either\]"):
        delivered(sqlite[0], pa.table({"id": [1], "either": union}))


def test_sqlalchemy_writes_postgres_too(postgres_server: str, postgres: Any) -> None:
    table = pa.table({"id": [1], "at": [datetime(2026, 1, 1, tzinfo=UTC)], "price": [Decimal("1.50")], "tags": [["a"]]})
    with opened_router(postgres_server, schema=postgres[0].schema, fast_path=False) as router:
        name = delivered(router, table, mode="upsert")
        (row,) = postgres[1](name)
    assert (row["at"], row["price"], row["tags"]) == (datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.50"), '["a"]')
