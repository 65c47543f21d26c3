"""Databases of each kind to write to, as another program sees them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import duckdb
import psycopg
import pymysql
from psycopg.rows import dict_row
from pymysql.cursors import DictCursor
from sqlalchemy import make_url

from tests.routers.sql.database import opened_router

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["KINDS", "OnDuckDb", "OnMariaDb", "Target", "in_file", "target_of"]


@attrs.frozen
class Target:
    """A database to write to, and to look at.

    Args:
        url: What the router is given.
        path: The file, of SQLite.
        options: For the router.
    """

    url: str
    path: Path | None
    options: dict[str, Any]

    def run(self, statement: str) -> list[dict[str, Any]]:
        """Run one statement of the test's own; its rows, if it has some."""
        if self.path is not None:
            with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(statement)]
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def ids(self, table: str = "orders") -> list[int]:
        """The ids in a table, in order."""
        return [row["id"] for row in self.run(f'SELECT id FROM "{table}" ORDER BY id')]

    def tables(self) -> list[str]:
        """The names of all tables, in order."""
        listed = "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
        found = self.run(listed if self.path is None else "SELECT name FROM sqlite_master WHERE type = 'table'")
        return sorted(row["name"] for row in found)

    def indexes(self) -> list[str]:
        """Names of the indexes of the orders."""
        listed = "SELECT indexname AS name FROM pg_indexes WHERE tablename = 'orders'"
        found = self.run(listed if self.path is None else "SELECT name FROM pragma_index_list('orders')")
        return [row["name"] for row in found]

    def opened(self, **options: Any) -> Any:
        """A router to it, opened for as long as the block lasts."""
        return opened_router(self.url, **self.options, **options)


class OnMariaDb(Target):
    """A database of MariaDB."""

    def run(self, statement: str) -> list[dict[str, Any]]:
        url = make_url(self.url)
        with closing(
            pymysql.connect(
                host="127.0.0.1",
                port=url.port or 0,
                user="muxly",
                password=url.password or "",
                database=url.database,
                sql_mode="ANSI_QUOTES",
                autocommit=True,
                cursorclass=DictCursor,
            )
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())

    def tables(self) -> list[str]:
        return sorted(name for row in self.run("SHOW TABLES") for name in row.values())

    def indexes(self) -> list[str]:
        return sorted({row["Key_name"] for row in self.run("SHOW INDEX FROM orders")})


class OnDuckDb(Target):
    """A file of DuckDB."""

    def run(self, statement: str) -> list[dict[str, Any]]:
        with duckdb.connect(str(self.path)) as connection:
            # None for a statement without rows, though its types do not say so.
            found: Any = connection.sql(statement)
            rows: list[dict[str, Any]] = [] if found is None else found.to_arrow_table().to_pylist()
            return rows

    def tables(self) -> list[str]:
        return sorted(row["table_name"] for row in self.run("SELECT table_name FROM duckdb_tables()"))

    def indexes(self) -> list[str]:
        return [row["index_name"] for row in self.run("SELECT index_name FROM duckdb_indexes()")]


KINDS = ["postgres", "sqlite", "sqlalchemy", "mariadb", "duckdb"]


def in_file(kind: str, folder: Path) -> Target:
    """A database that is a file, not made yet."""
    path = folder / "records.db"
    if kind == "duckdb":
        return OnDuckDb(f"duckdb:///{path}", path, {})
    return Target(f"sqlite:///{path}", path, {"fast_path": kind == "sqlite"})


def target_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Target:
    """An empty database of a kind."""
    if kind == "postgres":
        return Target(request.getfixturevalue("postgres_url"), None, {})
    if kind == "mariadb":
        return OnMariaDb(request.getfixturevalue("mariadb_url"), None, {})
    return in_file(kind, folder)
