"""A whole run into databases: the ledger, the spool and the router together."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import muxly
from muxly_connector_file import File
from muxly_routers.sql import Sql
from tests.routers.sql.database import Database

if TYPE_CHECKING:
    from pathlib import Path

BAD = r"nul \u0000 byte"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".muxly"


def pipeline(tmp_path: Path, url: str, **route: Any) -> muxly.Pipeline:
    connector = File(path=tmp_path / "orders.jsonl", format="jsonl", stream="orders", primary_key=["id"])
    quick = muxly.Backoff(first_seconds=0.01, limit_seconds=0.02, attempts=2)
    lake = muxly.Route("lake", Sql(url=muxly.Secret(url)), retry=quick, **route)
    local = muxly.Route("local", Sql(url=muxly.Secret(f"sqlite:///{tmp_path}/local.db")), mode="append")
    return muxly.Pipeline("shop", connector, routes=[lake, local])


def write(tmp_path: Path, *lines: str) -> None:
    (tmp_path / "orders.jsonl").write_text("".join(f"{line}\n" for line in lines))


def local_ids(tmp_path: Path) -> list[int]:
    with closing(sqlite3.connect(tmp_path / "local.db")) as database:
        return [number for (number,) in database.execute("SELECT id FROM orders ORDER BY id")]


def test_bad_record_is_found_and_the_others_are_delivered(tmp_path: Path, home: Path, postgres_url: str) -> None:
    write(tmp_path, *(f'{{"id": {n}, "text": "{BAD if n == 7 else "fine"}"}}' for n in range(20)))
    result = muxly.run(pipeline(tmp_path, postgres_url, mode="upsert", max_rejected=1), home=home)
    lake = result.routes["lake"]
    assert (lake.delivered, lake.rejected, lake.pending, lake.error) == (19, 1, 0, None)
    assert Database(postgres_url).ids() == [n for n in range(20) if n != 7]
    assert local_ids(tmp_path) == list(range(20))


def test_database_that_is_away_delays_only_its_own_route(tmp_path: Path, home: Path, postgres_url: str) -> None:
    write(tmp_path, '{"id": 1}', '{"id": 2}')
    away = "postgresql://muxly:canary-4711@127.0.0.1:9/shop"
    result = muxly.run(pipeline(tmp_path, away, mode="append", required=False), home=home)
    assert (result.routes["lake"].pending, result.routes["local"].delivered) == (2, 2)
    assert "canary" not in repr(result)
    (tmp_path / "orders.jsonl").unlink()
    result = muxly.run(pipeline(tmp_path, postgres_url, mode="append", required=False), home=home)
    assert (result.routes["lake"].delivered, result.routes["local"].delivered) == (2, 0)
    assert Database(postgres_url).ids() == [1, 2]
    assert local_ids(tmp_path) == [1, 2]


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_second_run_brings_the_present_state(tmp_path: Path, home: Path, postgres_url: str, mode: Any) -> None:
    for line in ('{"id": 1, "text": "old"}', '{"id": 1, "text": "new"}'):
        write(tmp_path, line, '{"id": 2, "text": "same"}')
        given = pipeline(tmp_path, postgres_url, mode=mode)
        streams = {"orders": {"read": "full"}} if mode == "replace" else {}
        alone = muxly.Pipeline("shop", given.connector, routes=given.routes[:1], streams=streams)
        muxly.run(alone, home=home).raise_for_status()
    rows = Database(postgres_url).rows()
    assert [(row["id"], row["text"]) for row in rows] == [(1, "new"), (2, "same")]
