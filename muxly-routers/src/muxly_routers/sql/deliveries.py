"""The destination's own log: deliveries with their receipts, and the visible generation of each stream.

``_muxly_deliveries`` has a row for each delivery, written in the transaction of its records, so the records and the
id are either both there or both missing. ``_muxly_generations`` has one for each stream that was ever fully read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from attrs import frozen

import muxly
from muxly_routers.sql import names
from muxly_routers.sql.dialect import Column, SqlDialect, SqlSession
from muxly_routers.sql.names import TableName
from muxly_routers.sql.tables import KnownTables

__all__ = ["DeliveryLog", "RecordOwner"]

_DELIVERIES = ("id", "digest", "pipeline", "route", "stream", "receipt", "delivered_at")
_GENERATIONS = ("owner", "pipeline", "route", "stream", "generation", "completed_at")

_PRUNED_AT_ONCE = 100


@frozen
class RecordOwner:
    """The stream of one route that records belong to: what another route writes is never touched."""

    pipeline: str
    route: str
    stream: str

    def digest(self, size: int = 4) -> str:
        """Hexadecimal digits that stand for it, two for each byte of ``size``."""
        return names.digest(self.pipeline, self.route, self.stream, size=size)


class DeliveryLog:
    """``_muxly_deliveries`` and ``_muxly_generations`` beside the tables of one schema.

    Args:
        session: The connection; a delivery is recorded in its open transaction.
        dialect: Of that session.
        tables: What the session knows of both tables.
        schema: The schema of both tables.
    """

    def __init__(self, session: SqlSession, dialect: SqlDialect, tables: KnownTables, schema: str | None) -> None:
        self._session, self._dialect, self._tables = session, dialect, tables
        self._deliveries = TableName(schema, "_muxly_deliveries")
        self._generations = TableName(schema, "_muxly_generations")

    def receipt(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        """The receipt that was given when the delivery was made; None = it was not made.

        Raises:
            ConflictError: The id is known with other content.
        """
        if not self._tables.columns(self._deliveries):
            return None
        row = self._select(self._deliveries, ("digest", "receipt"), "id", delivery.id)
        if row is None:
            return None
        digest, receipt = row
        if digest != delivery.digest:
            raise muxly.ConflictError(
                f"the database holds the delivery {delivery.id} of stream {delivery.stream.name!r} with other records; "
                "if a store was restored, replay the stream under new ids with `muxly replay`"
            )
        return _receipt(receipt)

    def prepare(self) -> None:
        """Make the table of deliveries, if it is missing."""
        self._make(self._deliveries, _DELIVERIES, "id")

    def record(self, delivery: muxly.Delivery, owner: RecordOwner, receipt: muxly.Receipt) -> None:
        """Write the id and the receipt, in the transaction of the records."""
        row = (delivery.id, delivery.digest, *_owner_columns(owner), _receipt_text(receipt), _timestamp())
        self._insert(self._deliveries, _DELIVERIES, row)

    def prune(self, owner: RecordOwner, seconds: float) -> bool:
        """Delete some of the stream's deliveries that are older.

        The ids are read first, and then each is deleted by itself: a search by a deleting statement, or a list
        of ids that has MySQL read the whole table instead, would lock what the route's other streams are about
        to add, and end in deadlocks.

        Args:
            owner: The stream.
            seconds: The age from which on deliveries are deleted.

        Returns:
            Whether no older ones are left.
        """
        table, quoted, parameter = (
            self._dialect.qualified(self._deliveries),
            self._dialect.quoted,
            self._dialect.parameter,
        )
        conditions = zip(("pipeline", "route", "stream", "delivered_at"), ("=", "=", "=", "<"), strict=True)
        where = " AND ".join(
            f"{quoted(name)} {sign} {parameter(number)}" for number, (name, sign) in enumerate(conditions, start=1)
        )
        sql = f"SELECT {quoted('id')} FROM {table} WHERE {where}"
        old = [id for (id,) in self._session.query(sql, *_owner_columns(owner), _timestamp(seconds))]
        for id in old[:_PRUNED_AT_ONCE]:
            self._session.execute(f"DELETE FROM {table} WHERE {quoted('id')} = {parameter(1)}", id)
        return len(old) <= _PRUNED_AT_ONCE

    def visible_generation(self, owner: RecordOwner) -> int | None:
        """The generation that is visible; None = none was ever complete."""
        if not self._tables.columns(self._generations):
            return None
        row = self._select(self._generations, ("generation",), "owner", owner.digest(16))
        return None if row is None else int(row[0])

    def prepare_generations(self) -> None:
        """Make the table of generations, if it is missing."""
        self._make(self._generations, _GENERATIONS, "owner")

    def record_generation(self, owner: RecordOwner, generation: int) -> None:
        """Write which generation is visible from now on."""
        key = owner.digest(16)
        if self.visible_generation(owner) is not None:  # in MySQL, deleting a missing row locks the gap it would be in
            table, column = self._dialect.qualified(self._generations), self._dialect.quoted("owner")
            self._session.execute(f"DELETE FROM {table} WHERE {column} = {self._dialect.parameter(1)}", key)
        row = (key, *_owner_columns(owner), str(generation), _timestamp())
        self._insert(self._generations, _GENERATIONS, row)

    def _make(self, table: TableName, names: tuple[str, ...], key: str) -> None:
        if self._tables.columns(table):
            return
        self._tables.ensure_schema(table.schema)
        columns = [Column(name, self._text_type(name == key)) for name in names]
        self._tables.change(self._dialect.create_table(table, columns, [key]))
        self._tables.invalidate()

    def _text_type(self, key: bool) -> str:
        text = self._dialect.column_type(pa.string(), key=key)
        assert text is not None
        return text.sql

    def _insert(self, table: TableName, names: tuple[str, ...], row: tuple[str, ...]) -> None:
        placeholders = ", ".join(self._dialect.parameter(number) for number in range(1, len(row) + 1))
        target = f"{self._dialect.qualified(table)} ({self._dialect.column_list(names)})"
        self._session.execute(f"INSERT INTO {target} VALUES ({placeholders})", *row)

    def _select(self, table: TableName, names: tuple[str, ...], key: str, value: str) -> tuple[Any, ...] | None:
        where = f"{self._dialect.quoted(key)} = {self._dialect.parameter(1)}"
        sql = f"SELECT {self._dialect.column_list(names)} FROM {self._dialect.qualified(table)} WHERE {where}"
        return next(iter(self._session.query(sql, value)), None)


def _owner_columns(owner: RecordOwner) -> list[str]:
    """Its names as text that every database can hold."""
    names = (owner.pipeline, owner.route, owner.stream)
    return [name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00") for name in names]


def _timestamp(seconds_ago: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _receipt_text(receipt: muxly.Receipt) -> str:
    rejected = [{"index": rejection.index, "reason": rejection.reason} for rejection in receipt.rejected]
    return json.dumps({"rejected": rejected, "state": receipt.state})


def _receipt(text: str) -> muxly.Receipt:
    receipt = json.loads(text)
    rejected = [muxly.Rejected(rejection["reason"], index=rejection["index"]) for rejection in receipt["rejected"]]
    return muxly.Receipt(rejected, state=receipt["state"])
