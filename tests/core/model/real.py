"""The real ledger and spool, driven one transaction at a time, and what can be read from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import define, evolve, field
from sqlalchemy import select
from sqlalchemy.engine.default import DefaultDialect

from muxly._ids import new_id
from muxly.connector import Partition
from muxly.errors import StreamError
from muxly.spool import FolderSpool, SegmentWriter, verify
from muxly.store import accounts, deliveries, plans, positions, retention, seals
from muxly.store import acknowledge as acknowledging
from muxly.store import ledger as leases
from muxly.store.ledger import Ledger
from muxly.store.rows import Letter, StoredDelivery, WrittenGroup, WrittenSegment
from muxly.store.schema import tables
from muxly.store.schema.upgrade import open_store

__all__ = ["Crash", "Real", "crashing", "cut"]

PIPELINE = "modelled"
OPTIONS = "the options"
OUTCOMES = ("delivered", "rejected", "filtered", "dropped", "superseded")
SCHEMA = pa.schema([("id", pa.int64())])


class Crash(BaseException):
    """The process is dead from here on."""


@contextmanager
def crashing(at: int, *, after: bool) -> Iterator[None]:
    """Die at the n-th effect that lasts: before it, or right after it."""
    left = [at]
    calls: list[tuple[Any, str]] = [(os, "fsync"), (os, "link"), (os, "unlink"), (DefaultDialect, "do_commit")]
    kept = [getattr(owner, name) for owner, name in calls]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Crash
            result = call(*arguments, **more)
            if left[0] == 0:
                raise Crash
            return result

        return counted

    for (owner, name), call in zip(calls, kept, strict=True):
        setattr(owner, name, dying(call))
    try:
        yield
    finally:
        for (owner, name), call in zip(calls, kept, strict=True):
            setattr(owner, name, call)


def cut(stored: StoredDelivery, segments: dict[int, int], count: int) -> tuple[StoredDelivery, StoredDelivery]:
    """Two parts of a delivery, the first of so many records; given how many each segment has."""
    position, offset, left = stored.first_position, stored.first_offset, count
    while left > segments[position] - offset:
        left -= segments[position] - offset
        position, offset = position + 1, 0
    middle = offset + left
    second = (position, middle) if middle < segments[position] else (position + 1, 0)
    return (
        evolve(stored, last_position=position, last_offset=middle, records=count),
        evolve(stored, first_position=second[0], first_offset=second[1], records=stored.records - count),
    )


@define(eq=False)
class Real:
    """A store and a spool on disk; the engine and the ledgers are what a process has of them."""

    folder: Path
    url: str
    routes: tuple[str, ...]
    ledger: Ledger = field(init=False)
    zombies: list[Ledger] = field(factory=list)
    spool: FolderSpool = field(init=False)

    def take_over(self) -> None:
        """A new process: open what is on disk, take the lease, sweep."""
        self.spool = FolderSpool(self.folder / "spool")
        engine = open_store(self.url)
        ledger = leases.acquire_lease(engine, PIPELINE, new_id(), holder="a test", spool=self.spool.identity())
        self.spool.sweep(named=retention.files(ledger), token=ledger.token)
        self.ledger = ledger

    def die(self) -> None:
        """The process ends; another one that still thinks it holds the lease may be left."""
        self.zombies.append(self.ledger)
        while len(self.zombies) > 3:
            self.zombies.pop(0).engine.dispose()

    def close(self) -> None:
        for ledger in (*self.zombies, self.ledger):
            ledger.engine.dispose()

    def register(self, streams: list[str]) -> None:
        positions.register(self.ledger, dict.fromkeys(streams, self.routes), {})

    # --- reading

    def plan(self, stream: str, starts: dict[int, int], until: int | None) -> None:
        plans.store(
            self.ledger,
            stream,
            partitions_planned=[Partition(str(part), start) for part, start in starts.items()],
            cursor=until,
            options_digest=OPTIONS,
            from_start=stream == "full",
        )

    def group(
        self, stream: str, part: int, segments: tuple[tuple[int, ...], ...], before: Any, after: Any, *, done: bool
    ) -> WrittenGroup:
        """Write and publish the segments, in one file; the group that the ledger is to seal."""
        plan = plans.unfinished(self.ledger, stream, OPTIONS)
        assert plan is not None
        written = [self._segment(stream, part, ids) for ids in segments]
        if written:
            draft = self.spool.draft(self.ledger.token)
            offsets = []
            for _, chunks in written:
                draft.write(bytes(-draft.length % 64))
                offsets.append(draft.length)
                for chunk in chunks:
                    draft.write(chunk)
            name = self.spool.put(draft)
            self.spool.sync_folder()
            placed = [evolve(one, file=name, offset=at) for (one, _), at in zip(written, offsets, strict=True)]
        else:
            placed = []
        return WrittenGroup(
            plan=plan.id,
            ordinal=part,
            partition=str(part),
            cursor_before=before,
            cursor_after=after,
            done=done,
            segments=tuple(placed),
        )

    def _segment(self, stream: str, part: int, ids: tuple[int, ...]) -> tuple[WrittenSegment, tuple[Any, ...]]:
        writer = SegmentWriter(SCHEMA, lambda: self.spool.draft(self.ledger.token))
        writer.append(pa.record_batch([pa.array(ids, pa.int64())], schema=SCHEMA))
        content = writer.finish()
        segment = WrittenSegment(
            key=f"{stream}/{part}/{new_id()}/1",
            stream=stream,
            schema_version=1,
            records=content.records,
            bytes=content.bytes,
            file=None,
            offset=0,
            length=content.length,
            digest=content.digest,
        )
        return segment, content.chunks

    def seal(self, groups: list[WrittenGroup]) -> None:
        seals.seal(self.ledger, groups, lambda stream: self.routes)

    # --- delivering

    def following(self, key: tuple[str, str], limit: int, *, whole: bool) -> StoredDelivery | None:
        try:
            return deliveries.following(
                self.ledger, *key, options={"mode": "append"}, records=limit, bytes=1 << 30, whole_groups=whole
            )
        except StreamError:
            return None  # held up by a segment that is set aside

    def open_deliveries(self, key: tuple[str, str]) -> list[StoredDelivery]:
        with self.ledger.read() as connection:
            table = tables.deliveries
            rows = connection.execute(
                select(table)
                .where(table.c.route == key[0], table.c.stream == key[1])
                .order_by(table.c.first_position, table.c.first_offset)
            )
            return [deliveries._delivery(row) for row in rows]

    def acknowledge(self, stored: StoredDelivery, letters: list[tuple[int, int]], filtered: int) -> None:
        acknowledging.acknowledge(
            self.ledger,
            stored,
            delivered=stored.records - len(letters) - filtered,
            filtered=filtered,
            rejected=[Letter(stream=stored.stream, reason="bad", position=one, number=two) for one, two in letters],
        )

    def supersede(self, stream: str) -> None:
        """What a worker in mode replace does before it delivers."""
        sealed = positions.generations_of(self.ledger, stream).sealed
        for here in positions.every(self.ledger):
            if here.stream == stream:
                oldest = max(sealed, here.completed + 1)
                positions.supersede(self.ledger, here.route, stream, generation=oldest)

    def quarantine(self, stream: str, position: int) -> None:
        retention.quarantine(
            self.ledger, next(one for one in retention.log(self.ledger, stream) if one.position == position)
        )

    def prune(self, *, delete: bool) -> None:
        """Row first, then file; without the second step it is left to the next lease holder."""
        names = retention.prune(self.ledger, keep_seconds=0, keep_bytes=0)
        if delete:
            self.spool.delete(names)

    # --- what can be read

    def snapshot(self) -> dict[str, Any]:
        """Everything that the model knows too."""
        names = list(positions.definitions(self.ledger))
        log = retention.log(self.ledger)
        return {
            "streams": {name: self._stream(name) for name in names},
            "segments": {(one.stream, one.position): (one.records, one.state, one.generation) for one in log},
            "pairs": {(one.route, one.stream): self._pair(one) for one in positions.every(self.ledger)},
            "pending": accounts.pending(self.ledger),
            "accounts": self._accounts(),
            "letters": self._letters(),
        }

    def _stream(self, name: str) -> Any:
        log = positions.generations_of(self.ledger, name)
        plan = plans.unfinished(self.ledger, name, OPTIONS)
        parts = {one.ordinal: (one.cursor, one.done) for one in plan.partitions} if plan else None
        seen = (log.newest, log.sealed) if name == "full" else (0, 0)
        cursor = None if name == "full" else plans.stream_cursor(self.ledger, name)
        return log.head, seen, cursor, parts

    def _pair(self, here: Any) -> Any:
        queue = tuple(
            (one.first_position, one.first_offset, one.records, one.marked)
            for one in self.open_deliveries((here.route, here.stream))
        )
        return here.position, here.offset, here.detached, queue

    def _accounts(self) -> dict[tuple[str, str], dict[str, int]]:
        found: dict[tuple[str, str], Counter[str]] = {}
        with self.ledger.read() as connection:
            for row in connection.execute(select(tables.accounts)).mappings():
                if row["route"]:
                    sums = found.setdefault((row["route"], row["stream"]), Counter())
                    sums.update({word: row[word] for word in (*OUTCOMES, "replayed", "quarantined")})
        return {key: told(sums) for key, sums in found.items() if any(told(sums).values())}

    def _letters(self) -> dict[tuple[str, str], int]:
        from muxly.store import dead_letters

        return dead_letters.count(self.ledger)

    def verify(self) -> None:
        """Every sealed segment is in the spool as it was sealed; no other file is there after a sweep."""
        for one in retention.log(self.ledger):
            if one.file is not None and one.state == "sealed":
                verify(self.spool.open(one.file, one.offset, one.length), one.digest, one.key)


def told(sums: Counter[str]) -> dict[str, int]:
    """The sums as both sides tell them: what a replay finds quarantined is either in both words or in none."""
    return {**{word: sums[word] for word in OUTCOMES}, "again": sums["replayed"] - sums["quarantined"]}
