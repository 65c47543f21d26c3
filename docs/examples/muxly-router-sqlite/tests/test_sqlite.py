"""The router with real database files, read by the standard library."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from muxly_router_sqlite import Sqlite

import muxly
from muxly_testing import RouterConformance, delivery


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of all tables, as another program sees them."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = [row["name"].replace('"', '""') for row in found if row["name"] != "_muxly_deliveries"]
        return [dict(row) for table in tables for row in database.execute(f'SELECT * FROM "{table}"')]


class TestConformance(RouterConformance):
    def router(self, tmp_path: Path) -> Sqlite:
        self.path = tmp_path / "records.db"
        return Sqlite(path=self.path)

    def arrived(self) -> list[dict[str, Any]]:
        return rows(self.path)

    def broken(self, tmp_path: Path) -> Sqlite:
        tmp_path.mkdir(parents=True)
        (tmp_path / "photo.jpg").write_bytes(b"no database" * 1000)
        return Sqlite(path=tmp_path / "photo.jpg")


@pytest.fixture
def router(tmp_path: Path) -> Any:
    router = Sqlite(path=tmp_path / "records.db")
    router.open(muxly.Run("01JW0000000000000000000000", "test"))
    yield router
    router.close()


def test_new_columns_are_added(router: Sqlite) -> None:
    router.deliver(delivery([{"id": 1}], "orders"))
    router.deliver(delivery([{"id": 2, "price": Decimal("1.50"), "tags": ["a", "b"]}], "orders"))
    assert rows(router.path) == [
        {"id": 1, "price": None, "tags": None},
        {"id": 2, "price": "1.50", "tags": '["a", "b"]'},
    ]


def test_locked_database_is_tried_again(router: Sqlite) -> None:
    assert router._database is not None
    router._database.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(router.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(muxly.RetryableError, match="in use by another program"):
            router.deliver(delivery([{"id": 1}]))
    router.deliver(delivery([{"id": 1}]))
    assert len(rows(router.path)) == 1


def test_plugin_is_found_by_its_name() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="muxly.routers", name="sqlite")
    assert found.load().muxly_router() is Sqlite
