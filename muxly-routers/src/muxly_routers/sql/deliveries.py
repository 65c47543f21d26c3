"""The destination's memory: which deliveries it has, and which generation of a stream is visible."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import frozen

import muxly
from muxly_routers.sql import names
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.quoting import Column, Place
from muxly_routers.sql.session import Session

if TYPE_CHECKING:
    from muxly_routers.sql.tables import Tables

__all__ = ["Deliveries", "Owner"]

_DELIVERIES = ("id", "digest", "pipeline", "route", "stream", "receipt", "delivered_at")
_GENERATIONS = ("owner", "pipeline", "route", "stream", "generation", "completed_at")

_FORGOTTEN_AT_ONCE = 100


@frozen
class Owner:
    """Whose records they are: what another route writes is never touched."""

    pipeline: str
    route: str
    stream: str

    def digest(self, size: int = 4) -> str:
        """Hexadecimal digits that stand for it, two for each byte of ``size``."""
        return names.digest(self.pipeline, self.route, self.stream, size=size)


class Deliveries:
    """``_muxly_deliveries`` and ``_muxly_generations`` beside the tables of one schema.

    Args:
        session: In whose transaction a delivery is remembered.
        dialect: Of that session.
        tables: Knows whether they are there.
        schema: Where they are.
    """

    def __init__(self, session: Session, dialect: Dialect, tables: Tables, schema: str | None) -> None:
        self._session, self._dialect, self._tables = session, dialect, tables
        self._deliveries = Place(schema, "_muxly_deliveries")
        self._generations = Place(schema, "_muxly_generations")

    def receipt(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        """What was answered when the delivery was made; None = it was not made.

        Raises:
            ConflictError: The id is known with other content.
        """
        if not self._tables.columns(self._deliveries):
            return None
        found = self._select(self._deliveries, ("digest", "receipt"), "id", delivery.id)
        if found is None:
            return None
        if found[0] != delivery.digest:
            raise muxly.ConflictError(
                f"the database holds the delivery {delivery.id} of stream {delivery.stream.name!r} with other records; "
                "if a store was restored, replay the stream under new ids with `muxly replay`"
            )
        return _receipt(found[1])

    def prepare(self) -> None:
        """Make the tables, if they are not there."""
        self._make(self._deliveries, _DELIVERIES, "id")

    def remember(self, delivery: muxly.Delivery, owner: Owner, receipt: muxly.Receipt) -> None:
        """Keep the id and the answer, in the transaction of the records."""
        kept = (delivery.id, delivery.digest, *_shown(owner), _text(receipt), _now())
        self._insert(self._deliveries, _DELIVERIES, kept)

    def prune(self, owner: Owner, seconds: float) -> bool:
        """Forget some of what was delivered of this stream longer ago.

        The ids are read first, and then each is deleted by itself: a search by a deleting statement, or a list
        of ids that has MySQL read the whole table instead, would lock what the route's other streams are about
        to add, and end in deadlocks.

        Returns:
            Whether there is nothing left to forget.
        """
        at, quoted, parameter = self._dialect.at(self._deliveries), self._dialect.quoted, self._dialect.parameter
        conditions = zip(("pipeline", "route", "stream", "delivered_at"), ("=", "=", "=", "<"), strict=True)
        where = " AND ".join(
            f"{quoted(name)} {sign} {parameter(number)}" for number, (name, sign) in enumerate(conditions, start=1)
        )
        sql = f"SELECT {quoted('id')} FROM {at} WHERE {where}"
        old = [id for (id,) in self._session.query(sql, *_shown(owner), _now(seconds))]
        for id in old[:_FORGOTTEN_AT_ONCE]:
            self._session.execute(f"DELETE FROM {at} WHERE {quoted('id')} = {parameter(1)}", id)
        return len(old) <= _FORGOTTEN_AT_ONCE

    def visible(self, owner: Owner) -> int | None:
        """The generation that is visible; None = none was ever complete."""
        if not self._tables.columns(self._generations):
            return None
        found = self._select(self._generations, ("generation",), "owner", owner.digest(16))
        return None if found is None else int(found[0])

    def prepare_generations(self) -> None:
        """Make the table, if it is not there."""
        self._make(self._generations, _GENERATIONS, "owner")

    def show(self, owner: Owner, generation: int) -> None:
        """Keep which generation is visible from now on."""
        at, quoted = self._dialect.at(self._generations), self._dialect.quoted
        identity = owner.digest(16)
        if self.visible(owner) is not None:  # in MySQL, deleting what is not there locks others out of its place
            self._session.execute(f"DELETE FROM {at} WHERE {quoted('owner')} = {self._dialect.parameter(1)}", identity)
        kept = (identity, *_shown(owner), str(generation), _now())
        self._insert(self._generations, _GENERATIONS, kept)

    def _make(self, place: Place, columns: tuple[str, ...], key: str) -> None:
        if self._tables.columns(place):
            return
        self._tables.make_schema(place.schema)
        made = [Column(name, self._type(name == key)) for name in columns]
        self._tables.change(self._dialect.create_table(place, made, [key]))
        self._tables.forget()

    def _type(self, key: bool) -> str:
        form = self._dialect.form(pa.string(), key=key)
        assert form is not None
        return form.type

    def _insert(self, place: Place, columns: tuple[str, ...], kept: tuple[str, ...]) -> None:
        placeholders = ", ".join(self._dialect.parameter(number) for number in range(1, len(kept) + 1))
        names = self._dialect.listed(columns)
        self._session.execute(f"INSERT INTO {self._dialect.at(place)} ({names}) VALUES ({placeholders})", *kept)

    def _select(self, place: Place, columns: tuple[str, ...], key: str, value: str) -> tuple[Any, ...] | None:
        where = f"{self._dialect.quoted(key)} = {self._dialect.parameter(1)}"
        sql = f"SELECT {self._dialect.listed(columns)} FROM {self._dialect.at(place)} WHERE {where}"
        return next(iter(self._session.query(sql, value)), None)


def _shown(owner: Owner) -> list[str]:
    """Its names as text that every database holds."""
    names = (owner.pipeline, owner.route, owner.stream)
    return [name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00") for name in names]


def _now(ago_seconds: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=ago_seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(receipt: muxly.Receipt) -> str:
    rejected = [{"index": one.index, "reason": one.reason} for one in receipt.rejected]
    return json.dumps({"rejected": rejected, "state": receipt.state})


def _receipt(text: str) -> muxly.Receipt:
    kept = json.loads(text)
    rejected = [muxly.Rejected(one["reason"], index=one["index"]) for one in kept["rejected"]]
    return muxly.Receipt(rejected, state=kept["state"])
