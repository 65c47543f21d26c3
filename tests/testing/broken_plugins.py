"""Plugins that break their contract, each in one way, which the conformance tests have to detect."""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import attrs

import muxly
from muxly_testing import ChaosRouter, CollectingRouter, ConnectorConformance, FakeConnector, Fault, RouterConformance
from tests.testing.summing_router import AddsToWhatItSees, Summed


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


class Impatient(ChaosRouter):
    """Keeps to itself how long the destination asked to wait."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        raise muxly.RetryableError("429: slow down")


class TestImpatient(Router):
    def slow(self, tmp_path: Path) -> CollectingRouter:
        return Impatient(folder=tmp_path)


class TestGivesUp(Router):
    def slow(self, tmp_path: Path) -> CollectingRouter:
        return ChaosRouter(folder=tmp_path, faults=[Fault(method="deliver", action="RouteError", message="429")])


class WaitsOn(ChaosRouter):
    """Takes the end of the run for one more error of the destination."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        assert self._run is not None
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                self._run.sleep(0.05)
            except muxly.MuxlyError:
                threading.Event().wait(0.05)
        return None


class TestWaitsOn(Router):
    def slow(self, tmp_path: Path) -> CollectingRouter:
        return WaitsOn(folder=tmp_path)


class TestHasNoDeadline(Router):
    hang_seconds = 1.0

    def hanging(self, tmp_path: Path) -> CollectingRouter:
        return ChaosRouter(folder=tmp_path, faults=[Fault(method="deliver", action="hang", seconds=5.0)])


class TestTakesSilenceForSuccess(Router):
    def hanging(self, tmp_path: Path) -> CollectingRouter:
        return ChaosRouter(folder=tmp_path, lie="loses")


class LogsItsHeaders(Chatty):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        basic = base64.b64encode(b"user:" + self.password.reveal().encode()).decode()
        logging.getLogger("chatty").debug("sending", extra={"headers": {"Authorization": f"Basic {basic}"}})
        return ChaosRouter.deliver(self, delivery)


class TestLogsItsHeaders(Router):
    kind = LogsItsHeaders


class WarnsWithItsAddress(Chatty):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        warnings.warn(f"https://user:{quote(self.password.reveal())}@localhost is no good", stacklevel=1)
        return ChaosRouter.deliver(self, delivery)


class TestWarnsWithItsAddress(Router):
    kind = WarnsWithItsAddress


class KeepsItsPassword(Chatty):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        ChaosRouter.deliver(self, delivery)
        return muxly.Receipt(state={"login": self.password.reveal()})


class TestKeepsItsPassword(Router):
    kind = KeepsItsPassword


class NoticesItsPassword(Chatty):
    def open(self, run: muxly.Run) -> None:
        super().open(run)
        run.notice(muxly.Notice("hello", f"logged in with {self.password.reveal()}"))

    deliver = ChaosRouter.deliver


class TestNoticesItsPassword(Router):
    kind = NoticesItsPassword


class CarriesItsPassword(Chatty):
    def open(self, run: muxly.Run) -> None:
        password = self.password.reveal()
        raise muxly.RouteError(f"cannot log in with a password of {len(password)} characters")


class TestCarriesItsPassword(Router):
    def broken(self, tmp_path: Path) -> CollectingRouter:
        return CarriesItsPassword(folder=tmp_path)


class BringsOldGenerationsBack(ChaosRouter):
    def complete(self, stream: muxly.Stream, generation: int) -> None:
        with contextlib.suppress(muxly.ConflictError):
            super().complete(stream, generation)


class TestBringsOldGenerationsBack(Router):
    kind = BringsOldGenerationsBack


class ShowsHalves(ChaosRouter):
    """Writes what it delivers as it comes; the repeat mends it, but readers have seen it."""

    modes: ClassVar[frozenset[str]] = frozenset({"replace"})

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        self.finish(delivery.stream, delivery.generation or 0)
        return super().deliver(delivery)


class TestShowsHalves(Router):
    kind = ShowsHalves
    options: ClassVar[dict[str, Any]] = {"mark_every": 3}


class ClosesOnce(ChaosRouter):
    def open(self, run: muxly.Run) -> None:
        super().open(run)
        self._connection: object | None = object()

    def close(self) -> None:
        assert self._connection is not None
        self._connection = None


class TestClosesOnce(Router):
    kind = ClosesOnce


class ShowsGenerationsEarly(ChaosRouter):
    def begin(self, stream: muxly.Stream, generation: int) -> None:
        super().begin(stream, generation)
        self.finish(stream, generation)


class TestShowsGenerationsEarly(Router):
    kind = ShowsGenerationsEarly


class UpsertsByArrival(ChaosRouter):
    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:

        delivery.stream = attrs.evolve(delivery.stream, cursor_field=None)
        return super().deliver(delivery)


class TestUpsertsByArrival(Router):
    kind = UpsertsByArrival


class GoesByArrival(ChaosRouter):
    """Takes of equals what came last."""

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt | None:
        delivery.source = attrs.evolve(delivery.source, sequences=None, positions=lambda: itertools.repeat(0))
        return super().deliver(delivery)


class TestGoesByArrival(Router):
    kind = GoesByArrival


class TestTrustsWhatIsNotAcknowledged(Summed):
    kind = AddsToWhatItSees


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
