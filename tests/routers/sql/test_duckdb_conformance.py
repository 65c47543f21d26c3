"""The SQL router keeps the contract of routers on DuckDB."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb

import muxly
from muxly_routers.sql import Sql
from muxly_testing import RouterConformance

if TYPE_CHECKING:
    from pathlib import Path


class TestDuckDb(RouterConformance):
    """A file, read through a connection of its own."""

    crash_points = 5
    # DuckDB is given 128 MiB, and compresses what it keeps at the commit beside that.
    memory_bytes = 288 << 20
    path: Path

    def router(self, tmp_path: Path) -> Sql:
        self.path = tmp_path / "records.duckdb"
        return Sql(url=muxly.Secret(f"duckdb:///{self.path}"))

    def arrived(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with closing(duckdb.connect(str(self.path))) as connection:
            found = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            tables = [name.replace('"', '""') for (name,) in found if not name.startswith("_muxly_")]
            return [
                row
                for table in tables
                for row in connection.sql(f'SELECT * FROM "{table}"').to_arrow_table().to_pylist()
            ]

    def broken(self, tmp_path: Path) -> Sql:
        tmp_path.mkdir(parents=True)
        (tmp_path / "photo.jpg").write_bytes(b"no database" * 1000)
        return Sql(url=muxly.Secret(f"duckdb:///{tmp_path}/photo.jpg"))
