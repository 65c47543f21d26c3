"""What the binary COPY of PostgreSQL makes of Arrow's values, read back by psycopg."""

from __future__ import annotations

from datetime import UTC, timedelta
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from muxly_routers.sql.dialect import SessionTimeouts
from muxly_routers.sql.names import TableName
from muxly_routers.sql.postgres import load
from muxly_routers.sql.postgres.dialect import PostgresDialect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_routers.sql.dialect import SqlSession

DIALECT = PostgresDialect()
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[SqlSession]:
    """A connection of the router's, in a database that it shares with nobody."""
    url = make_url(request.getfixturevalue("postgres_server"))
    opened = DIALECT.open(url, SessionTimeouts(sleep=lambda seconds: None))
    yield opened
    opened.close()


def came_back(session: SqlSession, array: pa.Array, *, as_text: bool = False) -> list[Any]:
    """What the server has of the values, loaded into a table of the type that the router gives them."""
    column_type = DIALECT.column_type(array.type)
    assert column_type is not None
    batch = pa.record_batch([column_type.convert(array), pa.array(range(len(array)))], ["value", "number"])
    session.begin()
    session.execute(f"CREATE TEMPORARY TABLE loaded (value {column_type.sql}, number bigint) ON COMMIT DROP")
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    session.load(TableName(None, "loaded"), reader, temporary=True)
    cast = "::text" if as_text else ""
    found = [value for (value,) in session.query(f"SELECT value{cast} FROM loaded ORDER BY number")]
    session.execute("ROLLBACK")
    return found


@st.composite
def decimals(draw: st.DrawFn) -> pa.Array:
    digits = draw(st.integers(1, 76))
    scale = draw(st.integers(0, digits))
    kind = pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)
    whole = st.integers(-(10**digits) + 1, 10**digits - 1) | st.integers(-3, 3)
    found = draw(st.lists(st.none() | whole, min_size=1, max_size=6))
    wide = Context(prec=80)
    values = [None if one is None else Decimal(one).scaleb(-scale, wide) for one in found]
    array = pa.array(values, kind)
    return array.slice(draw(st.integers(0, len(values) - 1)))


@FEW
@given(array=decimals())
def test_decimals_of_any_size_are_exact(session: SqlSession, array: pa.Array) -> None:
    assert came_back(session, array) == array.to_pylist()


@pytest.mark.parametrize("digits", [18, 19, 38, 39, 76])
def test_greatest_decimals_are_exact(session: SqlSession, digits: int) -> None:
    most = 10**digits - 1
    kind = pa.decimal128 if digits <= 38 else pa.decimal256
    for scale in (0, 1, 7, 8, 9, digits):
        values = [Decimal(one).scaleb(-scale, Context(prec=80)) for one in (most, -most, 1, -1, 0)]
        assert came_back(session, pa.array(values, kind(digits, scale))) == values


def test_decimals_at_the_edge_of_64_bits_are_exact(session: SqlSession) -> None:
    values = [Decimal(one) for one in (2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**96)]
    assert came_back(session, pa.array(values, pa.decimal128(38, 0))) == values
    for one in values:
        assert came_back(session, pa.array([one], pa.decimal128(38, 0))) == [one]


def test_decimals_have_the_scale_of_their_column(session: SqlSession) -> None:
    array = pa.array([Decimal("1.50"), Decimal("0.00"), Decimal("-100.00")])
    assert came_back(session, array, as_text=True) == ["1.50", "0.00", "-100.00"]


VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.uint8(): st.integers(0, 2**8 - 1),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.integers(-1000, 1000).map(lambda number: number / 8),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    pa.large_string(): st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    pa.binary(): st.binary(),
    pa.large_binary(): st.binary(),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@settings(FEW, max_examples=12)
@given(data=st.data())
def test_values_of_every_type_are_what_they_were(session: SqlSession, kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], min_size=2, max_size=20))
    array = pa.array(values, kind)
    start = data.draw(st.integers(0, 9)) % len(array)
    assert came_back(session, array.slice(start)) == values[start:]
    assert came_back(session, array.drop_null()) == [one for one in values if one is not None]


@pytest.mark.parametrize(
    ("kind", "numbers", "first", "last"),
    [
        (pa.date32(), pa.int32(), (-2_440_588, "4714-11-24 BC"), (2_145_042_905, "5874897-12-31")),
        (
            pa.timestamp("us"),
            pa.int64(),
            (-210_866_803_200_000_000, "4714-11-24 00:00:00 BC"),
            (2**63 - 1, "294247-01-10 04:00:54.775807"),
        ),
    ],
    ids=["date", "timestamp"],
)
def test_first_and_last_moments_are_taken_and_those_beyond_are_bad_records(
    session: SqlSession, kind: pa.DataType, numbers: pa.DataType, first: tuple[int, str], last: tuple[int, str]
) -> None:
    array = pa.array([first[0], last[0]], numbers).view(kind)
    assert came_back(session, array, as_text=True) == [first[1], last[1]]
    column_type = DIALECT.column_type(kind)
    assert column_type is not None
    for beyond in {first[0] - 1, min(last[0] + 1, 2**63 - 1)} - {last[0]}:
        with pytest.raises(ValueError, match="4714 BC"):
            column_type.convert(pa.array([beyond], numbers).view(kind))


def test_parts_are_short_and_hold_all_records(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pa.record_batch({"id": range(100_000), "text": ["x" * 100] * 100_000})
    parts = list(load.parts(batch))
    assert pa.Table.from_batches(parts) == pa.Table.from_batches([batch])
    assert max(load.rows(part).size for part in parts) < 8 * 1024 * 1024


def test_field_of_a_null_is_its_length_alone() -> None:
    part = pa.record_batch({"a": pa.array([None, 1], pa.int16()), "b": pa.array(["é", None])})
    first = b"\0\2" + b"\xff\xff\xff\xff" + b"\0\0\0\2\xc3\xa9"
    second = b"\0\2" + b"\0\0\0\2\0\1" + b"\xff\xff\xff\xff"
    assert bytes(load.rows(part)) == first + second


def test_texts_do_not_depend_on_the_encoding_that_the_user_has(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    session = DIALECT.open(make_url(postgres_url), SessionTimeouts(sleep=lambda seconds: None))
    assert came_back(session, pa.array(["é日本"])) == ["é日本"]
    session.close()


def test_not_a_number_and_infinity_are_themselves(session: SqlSession) -> None:
    found = came_back(session, pa.array([float("nan"), float("inf"), float("-inf"), -0.0]), as_text=True)
    assert found == ["NaN", "Infinity", "-Infinity", "-0"]
