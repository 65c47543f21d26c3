"""A PostgreSQL database with a router for it, and a second connection that makes trouble."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import psycopg
from psycopg import sql

import muxly
from muxly_routers.sql import Sql
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    import pyarrow as pa

__all__ = ["ORDERS", "Database", "interrupted", "numbered", "opened_router"]

ORDERS = muxly.Stream("orders", ("id",), overwrite_key=("day",), cursor_field="version")


def numbered(numbers: Any, **facts: Any) -> muxly.Delivery:
    """A delivery of orders with these numbers."""
    records = [
        {"id": number, "day": f"day {number // 10}", "version": 1, "text": f"text {number}"} for number in numbers
    ]
    return delivery(records, facts.pop("stream", ORDERS), **facts)


def interrupted(one: muxly.Delivery, act: Callable[[], object]) -> muxly.Delivery:
    """The delivery, with something that happens before its last batch is read."""

    def source() -> Iterator[pa.RecordBatch]:
        *first, last = one.all_batches()
        yield from first
        act()
        yield last

    return attrs.evolve(one, source=attrs.evolve(one.source, batches=source))


@contextmanager
def opened_router(url: str, *, token: int = 0, stop: Event | None = None, **options: Any) -> Iterator[Sql]:
    """A router on the route ``lake`` of the pipeline ``shop``, opened."""
    router = Sql(url=muxly.Secret(url), **options)
    run = muxly.Run("01JW000000MUXLYTESTRUN0000", "shop", route="lake", token=token, stop=stop)
    router.open(run)
    try:
        yield router
    finally:
        router.close()
        run.end()


class Database:
    """A database as another program sees it.

    Args:
        url: Of PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement of the test's own; its rows, if it has some."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self, table: str = "orders", schema: str = "public", order: str = "1") -> list[dict[str, Any]]:
        """All rows of a table."""
        query = sql.SQL("SELECT * FROM {} ORDER BY ").format(sql.Identifier(schema, table)) + sql.SQL(order)
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.cursor(row_factory=psycopg.rows.dict_row).execute(query).fetchall()

    def ids(self, table: str = "orders") -> list[int]:
        """The ids in a table, in order."""
        return [row["id"] for row in self.rows(table)]
