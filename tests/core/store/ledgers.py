"""Ledgers for tests: a pipeline's rows on either database, without a spool."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from sqlalchemy import Engine

from muxly._ids import new_id
from muxly.connector import Partition
from muxly.store import acknowledge, deliveries, plans, positions, runs, seals
from muxly.store import ledger as leases
from muxly.store.ledger import Ledger
from muxly.store.rows import StoredDelivery, StoredPlan, StoredSegment, WrittenGroup, WrittenSegment

ROUTES = ("lake", "warehouse")


def opened(engine: Engine, routes: tuple[str, ...] = ROUTES) -> Ledger:
    """A ledger whose lease is held, with the stream ``s`` and its routes."""
    ledger = leases.acquire_lease(engine, "daily", new_id(), holder="a test", spool="here")
    runs.start(ledger, holder="a test", command="test", params={})
    positions.register(ledger, {"s": routes}, {"s": {"primary_key": ["id"]}})
    return ledger


def planned(ledger: Ledger, *partitions: str, stream: str = "s", **options: Any) -> StoredPlan:
    """A plan of those partitions."""
    chosen = {"cursor": None, "options_digest": "o", "from_start": False, **options}
    return plans.store(ledger, stream, partitions_planned=[Partition(one) for one in partitions], **chosen)


def written(records: int, *, stream: str = "s", file: str | None = None, **options: Any) -> WrittenSegment:
    """A segment that is durable."""
    place = {"file": file or f"{new_id()}.arrow", "offset": 0, "length": records * 10, "digest": "d"}
    key = f"{stream}/{new_id()}/1"
    chosen = {"schema_version": 1, "bytes": records * 10, **place, **options}
    return WrittenSegment(key=key, stream=stream, records=records, **chosen)


def sealed(ledger: Ledger, plan: StoredPlan, *segments: WrittenSegment, **options: Any) -> list[StoredSegment]:
    """A group of the plan's first partition, sealed."""
    group = WrittenGroup(
        plan=plan.id,
        ordinal=0,
        partition=plan.partitions[0].id,
        cursor_before=None,
        cursor_after=None,
        done=False,
        segments=segments,
    )
    group = evolve(group, **options)
    return seals.seal(ledger, [group], lambda stream: ROUTES)


def following(ledger: Ledger, route: str = "lake", **options: Any) -> StoredDelivery | None:
    """The route's next delivery."""
    chosen = {"options": {"mode": "append"}, "records": None, "bytes": 1 << 30, "whole_groups": False, **options}
    return deliveries.following(ledger, route, "s", **chosen)


def delivered(ledger: Ledger, route: str = "lake", **options: Any) -> int:
    """Deliver everything that waits; returns how many records."""
    count = 0
    while (delivery := following(ledger, route, **options)) is not None:
        acknowledge.acknowledge(ledger, delivery, delivered=delivery.records, filtered=0)
        count += delivery.records
    return count
