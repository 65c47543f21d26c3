"""The SQL router keeps the contract of routers, on each database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from muxly import Secret
from muxly_routers.sql import Sql
from muxly_testing import RouterConformance

if TYPE_CHECKING:
    from pathlib import Path


class OnSqlite(RouterConformance):
    """A SQLite file, read by the standard library."""

    options: ClassVar[dict[str, Any]] = {}
    crash_points = 8
    path: Path

    def router(self, tmp_path: Path) -> Sql:
        self.path = tmp_path / "records.db"
        return Sql(url=Secret(f"sqlite:///{self.path}"), **self.options)

    def arrived(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path)) as database:
            database.row_factory = sqlite3.Row
            found = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = [name.replace('"', '""') for name in found if not name.startswith("_muxly_")]
            return [dict(row) for table in tables for row in database.execute(f'SELECT * FROM "{table}"')]

    def broken(self, tmp_path: Path) -> Sql:
        tmp_path.mkdir(parents=True)
        (tmp_path / "photo.jpg").write_bytes(b"no database" * 1000)
        return Sql(url=Secret(f"sqlite:///{tmp_path}/photo.jpg"), **self.options)


class TestSqlite(OnSqlite):
    """Through ADBC."""


class TestThroughSqlAlchemy(OnSqlite):
    """The way of all databases that have no faster one."""

    options: ClassVar[dict[str, Any]] = {"fast_path": False}
    crash_points = 4


class TestPostgres(RouterConformance):
    """A schema for each router, read by psycopg."""

    crash_points = 5
    url: str
    schema: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, postgres_server: str) -> None:
        cls.url = postgres_server

    def router(self, tmp_path: Path) -> Sql:
        self.schema = f"records_{uuid4().hex[:12]}"
        return Sql(url=Secret(self.url), schema=self.schema)

    def arrived(self) -> list[dict[str, Any]]:
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = %s AND NOT starts_with(tablename, '_muxly_')"
        with psycopg.connect(self.url, autocommit=True) as connection:
            tables = [name for (name,) in connection.execute(listed, [self.schema])]
            rows = connection.cursor(row_factory=dict_row)
            return [
                row
                for table in tables
                for row in rows.execute(
                    sql.SQL("SELECT * FROM {}").format(sql.Identifier(self.schema, table))
                ).fetchall()
            ]

    def broken(self, tmp_path: Path) -> Sql:
        return Sql(url=Secret("postgresql://muxly:canary-4711@127.0.0.1:9/records"))
