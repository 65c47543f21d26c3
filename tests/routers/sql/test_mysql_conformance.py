"""The SQL router keeps the contract of routers on MariaDB."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pymysql
import pytest
from pymysql.cursors import DictCursor

import muxly
from muxly_routers.sql import Sql
from muxly_testing import RouterConformance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures_mariadb import MariaDb


class TestMariaDb(RouterConformance):
    """A database for each router, read by another connection."""

    crash_points = 4
    server: ClassVar[MariaDb]
    databases: ClassVar[list[str]]
    database: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, mariadb_server: MariaDb) -> Iterator[None]:
        cls.server, cls.databases = mariadb_server, []
        yield
        mariadb_server.run(*(f"DROP DATABASE {name}" for name in cls.databases))

    def router(self, tmp_path: Path) -> Sql:
        self.database = f"muxly_{uuid4().hex}"
        self.databases.append(self.database)
        self.server.run(f"CREATE DATABASE {self.database}")
        return Sql(url=muxly.Secret(self.server.url(self.database)))

    def arrived(self) -> list[dict[str, Any]]:
        with closing(
            pymysql.connect(
                unix_socket=str(self.server.socket),
                user="root",
                database=self.database,
                charset="utf8mb4",
                cursorclass=DictCursor,
            )
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("SHOW TABLES")
            tables = [next(iter(row.values())) for row in cursor.fetchall()]
            rows: list[dict[str, Any]] = []
            for table in tables:
                if not table.startswith("_muxly_"):
                    cursor.execute("SELECT * FROM `" + table.replace("`", "``") + "`")
                    rows.extend(cursor.fetchall())
            return rows

    @pytest.fixture(autouse=True)
    def _silent(self) -> Iterator[None]:
        """A server that takes connections and never says a word."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.silent_port = listening.getsockname()[1]
            yield

    def hanging(self, tmp_path: Path) -> Sql:
        url = f"mysql+pymysql://muxly:canary-4711@127.0.0.1:{self.silent_port}/records"
        return Sql(url=muxly.Secret(url), connect_seconds=1)

    def broken(self, tmp_path: Path) -> Sql:
        return Sql(url=muxly.Secret("mysql+pymysql://muxly:canary-4711@127.0.0.1:9/records"))
