"""Plugins that break their contract, each in one way; the conformance tests have to find out."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import muxly
from muxly.testing import ChaosRouter, CollectingRouter, ConnectorConformance, FakeConnector, Fault, RouterConformance


class Router(RouterConformance):
    """Tries a router that keeps what it got in a file."""

    crash_points = 12
    big_batches = 2
    stop_seconds = 2.0
    kind: ClassVar[type[CollectingRouter]] = ChaosRouter
    options: ClassVar[dict[str, Any]] = {}

    def router(self, tmp_path: Path) -> CollectingRouter:
        self.kept = self.kind(folder=tmp_path, **self.options)
        return self.kept

    def arrived(self) -> list[dict[str, Any]]:
        return [record for stream in self.kept.streams for record in self.kept.records(stream)]


class TestForgetsIds(Router):
    options: ClassVar[dict[str, Any]] = {"lie": "forgets"}


class TestLoses(Router):
    options: ClassVar[dict[str, Any]] = {"lie": "loses"}


class TestTears(Router):
    options: ClassVar[dict[str, Any]] = {"lie": "tears"}


class TestHangs(Router):
    options: ClassVar[dict[str, Any]] = {
        "faults": [Fault(method="deliver", action="hang", seconds=5.0, stream="conformance", times=0)]
    }


class IgnoresMarks(ChaosRouter):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        delivery.delivered = 0
        return super().deliver(delivery)


class TestIgnoresMarks(Router):
    kind = IgnoresMarks


class MarksEarly(ChaosRouter):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        batches = list(delivery.batches())
        delivery.mark(delivery.delivered + sum(batch.num_rows for batch in batches))
        delivery.delivered -= sum(batch.num_rows for batch in batches)
        return super().deliver(delivery)


class TestMarksEarly(Router):
    kind = MarksEarly


class TakesAllIntoMemory(ChaosRouter):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        delivery.table()
        return super().deliver(delivery)


class TestTakesAllIntoMemory(Router):
    kind = TakesAllIntoMemory
    big_batches = 96


class Chatty(ChaosRouter):
    password: muxly.Secret = muxly.option("A secret.", default=muxly.Secret("correct horse battery"))

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        print("delivering", delivery.id)
        logging.getLogger("chatty").info("with %s", self.password.reveal())
        return super().deliver(delivery)


class TestChatty(Router):
    kind = Chatty


class LeavesThingsOpen(ChaosRouter):
    def open(self, run: muxly.Run) -> None:
        super().open(run)
        self._file = Path(__file__).open()  # noqa: SIM115 (that is the lie)
        self._ended = threading.Event()
        threading.Thread(target=self._ended.wait, args=(3,)).start()
        KEPT.append(self._file)


KEPT: list[Any] = []


class TestLeavesThingsOpen(Router):
    kind = LeavesThingsOpen


class ShowsGenerationsEarly(ChaosRouter):
    def begin(self, stream: muxly.Stream, generation: int) -> None:
        super().begin(stream, generation)
        self.finish(stream, generation)


class TestShowsGenerationsEarly(Router):
    kind = ShowsGenerationsEarly


class UpsertsByArrival(ChaosRouter):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        import attrs

        delivery.stream = attrs.evolve(delivery.stream, cursor_field=None)
        return super().deliver(delivery)


class TestUpsertsByArrival(Router):
    kind = UpsertsByArrival


class Connector(ConnectorConformance):
    """Tries a fake connector."""

    stop_seconds = 2.0
    kind: ClassVar[type[FakeConnector]] = FakeConnector
    options: ClassVar[dict[str, Any]] = {}

    def connector(self, tmp_path: Path) -> FakeConnector:
        return self.kind(records=100, batch_records=20, **self.options)


class CursorsAhead(FakeConnector):
    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        for batch in super().read(stream, partition, cursor):
            yield muxly.Batch(batch.data, batch.cursor + 1)


class TestCursorsAhead(Connector):
    kind = CursorsAhead


class CursorsBehind(FakeConnector):
    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        for batch in super().read(stream, partition, cursor):
            yield muxly.Batch(batch.data, max(0, batch.cursor - 3))


class TestCursorsBehind(Connector):
    kind = CursorsBehind


class TupleCursors(FakeConnector):
    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        start = cursor[0] if isinstance(cursor, tuple) else cursor
        for batch in super().read(stream, partition, start):
            yield muxly.Batch(batch.data, (batch.cursor,))


class TestTupleCursors(Connector):
    kind = TupleCursors


NUMBERS = itertools.count()


class DifferentEachTime(FakeConnector):
    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        for batch in super().read(stream, partition, cursor):
            yield muxly.Batch([{"id": next(NUMBERS)}], batch.cursor)


class TestDifferentEachTime(Connector):
    kind = DifferentEachTime


class RemembersThePlan(FakeConnector):
    _planned = False

    def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        self._planned = True
        return super().plan(stream, cursor)

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        if self._planned:
            yield from super().read(stream, partition, cursor)


class TestRemembersThePlan(Connector):
    kind = RemembersThePlan


class SleepsInItsOwnWay(FakeConnector):
    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        time.sleep(0.2)
        yield from super().read(stream, partition, cursor)


class TestSleepsInItsOwnWay(Connector):
    kind = SleepsInItsOwnWay


class SameNames(FakeConnector):
    def streams(self) -> list[muxly.Stream]:
        return [*super().streams(), *super().streams()]


class TestSameNames(Connector):
    kind = SameNames


class SameKeys(FakeConnector):
    def streams(self) -> list[muxly.Stream]:
        return [muxly.Stream("numbers", ("day",), sorted=True)]


class TestSameKeys(Connector):
    kind = SameKeys


class HidesChildren(FakeConnector):
    def streams(self) -> list[muxly.Stream]:
        return [stream for stream in super().streams() if stream.parent is None]


class TestHidesChildren(Connector):
    kind = HidesChildren
    options: ClassVar[dict[str, Any]] = {"children": True}


class TestTornDays(Connector):
    options: ClassVar[dict[str, Any]] = {}
    kind = type("TornDays", (FakeConnector,), {})

    def connector(self, tmp_path: Path) -> FakeConnector:
        return TornDays(records=100, batch_records=20)


class TornDays(FakeConnector):
    def streams(self) -> list[muxly.Stream]:
        return [muxly.Stream("numbers", ("id",), overwrite_key=("day",), sorted=True)]


class RaisesAnything(FakeConnector):
    token_of_api: muxly.Secret = muxly.option("A secret.", default=muxly.Secret("correct horse battery"))

    def open(self, run: muxly.Run) -> None:
        if self.seed:
            raise ValueError(f"cannot log in with {self.token_of_api.reveal()}")
        super().open(run)


class TestRaisesAnything(Connector):
    kind = RaisesAnything

    def broken(self, tmp_path: Path) -> FakeConnector:
        return RaisesAnything(seed=1)


class TellsSecrets(RaisesAnything):
    def open(self, run: muxly.Run) -> None:
        if self.seed:
            raise muxly.ConfigurationError(f"cannot log in with {self.token_of_api.reveal()}")
        super().open(run)


class TestTellsSecrets(Connector):
    kind = TellsSecrets

    def broken(self, tmp_path: Path) -> FakeConnector:
        return TellsSecrets(seed=1)


class CloseNeedsOpen(FakeConnector):
    def open(self, run: muxly.Run) -> None:
        super().open(run)
        self._session = object()

    def close(self) -> None:
        del self._session
        super().close()


class TestCloseNeedsOpen(Connector):
    kind = CloseNeedsOpen


class NeedsItsRun(FakeConnector):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._lock = threading.Lock()


class TestDoesNotPickle(Connector):
    kind = NeedsItsRun
