"""Databases that SQLAlchemy knows and this router does not, among them those whose CREATE ends a transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pytest
from sqlalchemy import exc, make_url

import muxly
from muxly_routers.sql.dialects import dialect_of
from muxly_routers.sql.generic import dialect
from muxly_testing import delivery
from tests.routers.sql_database import ORDERS, numbered, opened_router

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a database that is taken for one without transactions for its tables."""
    monkeypatch.setattr(dialect, "_TRANSACTIONAL", set[str]())
    return tmp_path / "records.db"


def run(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()


def tables(path: Path) -> list[str]:
    return sorted(name for (name,) in run(path, "SELECT name FROM sqlite_master WHERE type = 'table'"))


@pytest.mark.parametrize("mode", ["append", "upsert", "overwrite", "replace"])
def test_every_mode_works_where_tables_are_made_before_the_transaction(path: Path, mode: Any) -> None:
    with opened_router(f"sqlite:///{path}", fast_path=False, token=3) as router:
        for turn, generation in enumerate((1, 2)):
            if mode == "replace":
                router.begin(ORDERS, generation)
            one = numbered(range(3 + turn), mode=mode, generation=generation if mode == "replace" else None)
            router.deliver(one)
            router.deliver(one)
            if mode == "replace":
                router.complete(ORDERS, generation)
    ids = [number for (number,) in run(path, "SELECT id FROM orders ORDER BY id")]
    assert ids == ([0, 0, 1, 1, 2, 2, 3] if mode == "append" else [0, 1, 2, 3])
    assert [name for name in tables(path) if "_t3" in name] == []


def test_what_a_killed_attempt_left_is_swept_by_the_next_run(path: Path) -> None:
    one = numbered([1], mode="upsert")

    def broken() -> Iterator[pa.RecordBatch]:
        yield from one.all_batches()
        raise muxly.RetryableError("broke off")

    with (
        opened_router(f"sqlite:///{path}", fast_path=False, token=3) as router,
        pytest.raises(muxly.RetryableError, match="broke off"),
    ):
        router.deliver(attrs.evolve(one, source=attrs.evolve(one.source, batches=broken)))
    assert [name for name in tables(path) if name.endswith("_t3")]
    with opened_router(f"sqlite:///{path}", fast_path=False, token=4) as router:
        router.deliver(one)
    assert tables(path) == ["_muxly_deliveries", "orders"]


def test_deleted_records_stay_deleted(path: Path) -> None:
    stream = muxly.Stream("keyed", ("id",), cursor_field="changed")
    with opened_router(f"sqlite:///{path}", fast_path=False, deletes="hard") as router:
        for version, dead in ((2, datetime(2026, 1, 1, tzinfo=UTC)), (1, None)):
            record = {"id": 1, "changed": version, "text": f"v{version}", "_deleted_at": dead}
            schema = pa.schema(
                [
                    ("id", pa.int64()),
                    ("changed", pa.int64()),
                    ("text", pa.string()),
                    ("_deleted_at", pa.timestamp("us", "UTC")),
                ]
            )
            router.deliver(delivery(pa.Table.from_pylist([record], schema), stream, mode="upsert"))
    assert run(path, "SELECT * FROM keyed") == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exc.IntegrityError("insert", {}, Exception("duplicate")), "value"),
        (exc.DataError("insert", {}, Exception("too long")), "value"),
        (exc.ProgrammingError("insert", {}, Exception("no such column")), "stale"),
        (exc.OperationalError("insert", {}, Exception("gone away")), "retry"),
        (exc.InterfaceError("insert", {}, Exception("closed")), "retry"),
        (OSError("unreachable"), "retry"),
        (exc.NotSupportedError("insert", {}, Exception("not here")), "wrong"),
    ],
)
def test_error_of_an_unknown_driver_says_what_is_to_be_done(error: Exception, kind: str) -> None:
    fault = dialect_of(make_url("oracle://me@db.example/shop"), fast=True).fault(error)
    assert fault is not None
    assert fault.kind == kind


def test_mistake_of_ours_is_none_of_the_databases() -> None:
    assert dialect_of(make_url("oracle://me@db.example/shop"), fast=True).fault(TypeError("ours")) is None


def test_dialect_that_is_not_installed_says_so() -> None:
    with (
        opened_router("nosuchdatabase://me@db.example/shop") as router,
        pytest.raises(muxly.ConfigurationError, match=r"nosuchdatabase.*install"),
    ):
        router.deliver(numbered([1]))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgres", "postgresql"),
        ("postgress", "postgresql"),
        ("sqlite3", "sqlite"),
        ("mysq", "mysql"),
        ("maria", "mariadb"),
        ("duck", "duckdb"),
    ],
)
def test_name_that_is_near_to_a_dialect_s_is_corrected(written: str, meant: str) -> None:
    with (
        opened_router(f"{written}://me@db.example/shop") as router,
        pytest.raises(muxly.ConfigurationError, match=rf"no dialect '{written}' here; did you mean {meant}://\?"),
    ):
        router.deliver(numbered([1]))


def test_name_that_is_near_to_nothing_is_not_guessed() -> None:
    with pytest.raises(muxly.ConfigurationError, match="no dialect 'psql' here; correct"):
        dialect_of(make_url("psql://me@db.example/shop"), fast=True)


def test_driver_that_is_not_installed_says_so() -> None:
    with (
        opened_router("oracle+oracledb://me@db.example/shop") as router,
        pytest.raises(muxly.PluginError, match="pip install oracledb"),
    ):
        router.deliver(numbered([1]))


@pytest.mark.parametrize(
    ("url", "plain", "zoned"),
    [
        ("oracle://me@db.example/shop", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
        ("mssql://me@db.example/shop", "DATETIME2", "DATETIMEOFFSET"),
        ("sqlite:///x.db", "DATETIME", "TEXT"),
    ],
)
def test_timestamps_keep_microseconds_and_zones(url: str, plain: str, zoned: str) -> None:
    words = dialect_of(make_url(url), fast=False)
    found = [words.form(pa.timestamp("us", zone)) for zone in (None, "UTC")]
    assert [form and form.type for form in found] == [plain, zoned]
