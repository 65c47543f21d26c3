"""Delivering: one worker per route serves its streams, each in the order of its log."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.subscriptions import mode_of, rules_of
from muxly.batch import Rejected
from muxly.component import Notice
from muxly.errors import (
    FencedError,
    RejectedError,
    RetryableError,
    RouteError,
    StoppedError,
    StreamError,
)
from muxly.pipeline import StreamRules
from muxly.router import Receipt
from muxly.store import deliveries, positions, retention
from muxly.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly._runner.active import ActiveRun
    from muxly._runner.prepared import PreparedDelivery, PreparedLetters

    Prepared = PreparedDelivery | PreparedLetters
    from muxly.pipeline import Route
    from muxly.router import Mode, Router

_IDLE_SECONDS = 0.5


class RouteWorker:
    """Serves one route: takes its streams' segments, and hands them to the router.

    Args:
        active: The run.
        route: The route.
        streams: The streams it has a position in, as the run begins.
    """

    def __init__(self, active: ActiveRun, route: Route, streams: Mapping[str, Stream]) -> None:
        self._active, self._route = active, route
        self._streams = dict(streams)
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._idle_at: dict[str, tuple[int, bool]] = {}
        self._waiting_since: dict[str, float] = {}
        self._rejected = 0
        self._threads: list[threading.Thread] = []
        self._progress_at = time.monotonic()
        self.error: BaseException | None = None
        self.abandoned = False

    def start(self) -> None:
        """Begin serving in as many threads as the router takes streams at once."""
        for number in range(max(1, self._route.router.concurrency)):
            name = f"muxly-route-{self._route.name}-{number}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether it is still serving."""
        return not self.abandoned and any(thread.is_alive() for thread in self._threads)

    def stalled_seconds(self) -> float:
        """How long it has been busy without progress."""
        return time.monotonic() - self._progress_at if self._busy else 0.0

    def abandon(self, error: BaseException) -> None:
        """Leave its threads to themselves: whatever they still do is not acknowledged."""
        with self._lock:
            self.abandoned = True
            for stream in self._busy:
                self._active.failed[(self._route.name, stream)] = error
            self.error = self.error or error
        self._active.acknowledged()

    def _serve(self) -> None:
        serving = _Serving(self._active, self._route)
        try:
            while (stream := self._next_stream()) is not None:
                try:
                    self._work(serving, stream)
                finally:
                    with self._lock:
                        self._busy.discard(stream)
                    self._active.acknowledged()
        finally:
            serving.close()

    def _next_stream(self) -> str | None:
        """A stream that may have work and that no other thread serves; waits for one."""
        while True:
            if self.abandoned or self.error is not None or self._active.stop.is_set():
                return None
            done = self._active.reading_done
            with self._lock:
                found = self._workable(done)
                if found is not None:
                    self._busy.add(found)
                    self._progress_at = time.monotonic()
                    return found
                if done and not self._busy:
                    return None
            self._active.wait(_IDLE_SECONDS)

    def _workable(self, done: bool) -> str | None:
        for name in self._known_streams():
            head = self._active.heads.get(name, 0)
            free = name not in self._busy and (self._route.name, name) not in self._active.failed
            if free and self._idle_at.get(name) != (head, done) and (done or self._waited_enough(name)):
                self._waiting_since.pop(name, None)
                return name
        return None

    def _waited_enough(self, name: str) -> bool:
        """Whether a delivery is full, or has waited for more as long as the route's batch says."""
        limits = self._route.batch
        if not limits.seconds:
            return True
        since = self._waiting_since.setdefault(name, time.monotonic())
        if time.monotonic() - since >= limits.seconds:
            return True
        records, size = deliveries.waiting_size(self._active.ledger, self._route.name, name)
        return size >= limits.bytes or (limits.records is not None and records >= limits.records)

    def _known_streams(self) -> list[str]:
        from muxly._runner.subscriptions import matches

        for name, stream in list(self._active.streams.items()):
            if name not in self._streams and matches(name, self._route.streams):
                self._streams[name] = stream
        return list(self._streams)

    def _work(self, serving: _Serving, name: str) -> None:
        """Deliver what waits of one stream, one delivery after the other."""
        stream = self._active.streams.get(name) or self._streams[name]
        seen = (self._active.heads.get(name, 0), self._active.reading_done)
        try:
            desk = _Desk(self, serving, stream)
            desk.deliver_letters()
            while not self._active.stop.is_set() and desk.deliver_next():
                self.progress()
            if not self._active.stop.is_set():
                desk.complete()
            self._idle_at[name] = seen
        except StoppedError:
            self._idle_at[name] = seen
        except FencedError as error:
            self._active.fence(error)
        except BaseException as error:  # noqa: BLE001 - a router may raise anything
            self._fail(serving, name, error)

    def _fail(self, serving: _Serving, name: str, error: BaseException) -> None:
        """Stop serving a stream for this run, or the whole route if the destination is at fault."""
        serving.close()
        if self.abandoned:
            return
        with self._lock:
            self._active.failed[(self._route.name, name)] = error
            if isinstance(error, (RouteError, RetryableError)):
                self.error = self.error or error
        if isinstance(error, Exception):
            self._active.tell("muxly_delivery_failed", route=self._route.name, stream=name, error=error)

    def progress(self) -> None:
        """Say that something was done."""
        self._progress_at = time.monotonic()

    def count_rejected(self, count: int, reason: str) -> None:
        """Hold the route's limit of dead letters in one run.

        Raises:
            RouteError: More records are rejected than ``max_rejected`` allows.
        """
        with self._lock:
            if self._rejected + count > self._route.max_rejected:
                raise TooManyRejectedError(
                    f"route {self._route.name!r}: the destination rejects "
                    f"{count} record{'s' if count > 1 else ''}: {reason}; mend the record or the destination, "
                    f"or let the route keep dead letters with `max_rejected:` (now {self._route.max_rejected})"
                )
            self._rejected += count


class TooManyRejectedError(StreamError):
    """More records of a stream are rejected than the route allows."""


class _Serving:
    """One opened copy of a route's router; opened again after an error."""

    def __init__(self, active: ActiveRun, route: Route) -> None:
        self._active, self._route = active, route
        self._router: Router | None = None
        self.begun: set[tuple[str, int]] = set()

    def router(self) -> Router:
        """The router, opened."""
        if self._router is None:
            router = copy.deepcopy(self._route.router)
            try:
                router.open(self._active.run)
            except BaseException:
                _close_quietly(self._active, self._route.name, router)
                raise
            self._router = router
        return self._router

    def close(self) -> None:
        """Close the router; may be repeated."""
        router, self._router = self._router, None
        self.begun.clear()
        if router is not None:
            _close_quietly(self._active, self._route.name, router)


def _close_quietly(active: ActiveRun, route: str, router: Router) -> None:
    """Close a router; what is acknowledged stays acknowledged, whatever closing raises."""
    try:
        router.close()
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        active.run.notice(Notice("close_failed", f"closing route {route!r} raised {type(error).__name__}: {error}"))


class _Desk:
    """The deliveries of one stream on one route, one after the other."""

    def __init__(self, worker: RouteWorker, serving: _Serving, stream: Stream) -> None:
        self._worker, self._serving, self._stream = worker, serving, stream
        self._active, self._route = worker._active, worker._route
        self._ledger = self._active.ledger
        rules = rules_of(self._active.pipeline, stream.name) or StreamRules()
        self._mode: Mode = mode_of(self._route, stream, rules)
        self._options = route_options(self._route, self._mode)
        if self._mode == "replace":
            self._supersede()

    def _supersede(self) -> None:
        """Pass over full reads before the newest whole one, and those the destination has, or may not get."""
        sealed = deliveries.generations(self._ledger, self._stream.name).sealed
        with self._ledger.read() as connection:
            here = positions.get(connection, self._ledger, self._route.name, self._stream.name)
        oldest = max(sealed, here.completed + 1)
        deliveries.supersede(self._ledger, self._route.name, self._stream.name, generation=oldest)

    def deliver_letters(self) -> None:
        """Deliver again the dead letters that a replay asked for."""
        for stored in deliveries.open_letters(self._ledger, self._route.name):
            if stored.stream == self._stream.name:
                from muxly._runner.prepared import PreparedLetters

                self.deliver(PreparedLetters(self._active, stored, self._route, self._stream))

    def deliver_next(self) -> bool:
        """Deliver the next delivery to its end; False if nothing waits."""
        limits = self._route.batch
        stored = deliveries.following(
            self._ledger,
            self._route.name,
            self._stream.name,
            options=self._options,
            records=limits.records,
            bytes=limits.bytes,
            whole_groups=self._mode == "overwrite",
        )
        if stored is None:
            return False
        from muxly._runner.prepared import DamagedSegmentError, PreparedDelivery  # loads pyarrow

        try:
            self.deliver(PreparedDelivery(self._active, stored, self._route, self._stream))
        except DamagedSegmentError as error:
            retention.quarantine(self._ledger, error.segment)
            raise deliveries.quarantined(self._stream.name, error.segment.position, str(error)) from error
        return True

    def deliver(self, prepared: Prepared) -> None:
        """Try a delivery until it is acknowledged, split, or given up for this run."""
        if self._skippable(prepared):
            self._acknowledge(prepared, Receipt())
            return
        backoff, tries = self._route.retry, 1
        while True:
            try:
                receipt = self._attempt(prepared)
            except RejectedError as error:
                self._rejected(prepared, error)
                return
            except RetryableError as error:
                self._serving.close()
                deliveries.attempted(self._ledger, prepared.stored)
                if backoff.spent(tries):
                    raise
                self._active.run.sleep(backoff.wait(tries, retry_after=error.retry_after))
                tries += 1
                continue
            self._acknowledge(prepared, receipt)
            return

    def _skippable(self, prepared: Prepared) -> bool:
        """Whether the router need not be called: all filtered out, or all delivered already."""
        if prepared.count and prepared.stored.marked >= prepared.count:
            return True
        return prepared.count == 0 and prepared.stored.options["mode"] != "overwrite"

    def _attempt(self, prepared: Prepared) -> Receipt:
        router = self._serving.router()
        stored = prepared.stored
        if stored.options["mode"] == "replace":
            self._begin(router, stored.generation)
        with self._ledger.read() as connection:
            state = positions.get(connection, self._ledger, stored.route, stored.stream).state
        receipt = router.deliver(prepared.delivery(state, lambda count: self._mark(prepared, count)))
        if receipt is None:
            return Receipt()
        if not isinstance(receipt, Receipt):
            raise TypeError(f"deliver() of {type(router).__name__} returned {receipt!r}, not a muxly.Receipt or None")
        return receipt

    def _mark(self, prepared: Prepared, count: int) -> None:
        self._refuse_abandoned()
        deliveries.mark(self._ledger, prepared.stored, count)
        prepared.stored = evolve(prepared.stored, marked=count)
        self._worker.progress()

    def _refuse_abandoned(self) -> None:
        if self._worker.abandoned:
            raise StoppedError(f"route {self._route.name!r} was given up because it made no progress")

    def _begin(self, router: Router, generation: int) -> None:
        """Tell the router of a new full read, once per opened router."""
        if (self._stream.name, generation) in self._serving.begun:
            return
        router.begin(self._stream, generation)
        with self._ledger.write() as connection:
            positions.change(connection, self._ledger, self._route.name, self._stream.name, begun=generation)
        self._serving.begun.add((self._stream.name, generation))

    def _acknowledge(self, prepared: Prepared, receipt: Receipt) -> None:
        self._refuse_abandoned()
        rejected = self._checked(prepared, receipt)
        if rejected:
            self._worker.count_rejected(len(rejected), rejected[0].reason)
        deliveries.acknowledge(
            self._ledger,
            prepared.stored,
            delivered=prepared.count - len(rejected),
            filtered=prepared.filtered,
            rejected=prepared.letters(rejected),
            state=receipt.state,
        )
        self._active.acknowledged()

    def _checked(self, prepared: Prepared, receipt: Receipt) -> list[Rejected]:
        """The receipt's rejected records, each once and with a number that exists."""
        found: dict[int, Rejected] = {}
        for one in receipt.rejected:
            if one.index is None or not 0 <= one.index < prepared.count:
                raise ValueError(
                    f"the receipt of route {self._route.name!r} rejects record {one.index}, and the delivery "
                    f"has {prepared.count}"
                )
            found.setdefault(one.index, one)
        return list(found.values())

    def _rejected(self, prepared: Prepared, error: RejectedError) -> None:
        """Split the delivery, or keep its one record as a dead letter."""
        from muxly._runner.prepared import PreparedLetters

        if isinstance(prepared, PreparedLetters) or prepared.stored.options["mode"] == "overwrite":
            raise RouteError(
                f"route {self._route.name!r}: {error}; deliveries in mode {prepared.stored.options['mode']} "
                "are not split to find the record"
            ) from error
        if prepared.stored.marked:
            parts = prepared.delivered_and_rest()
        elif prepared.count > 1:
            parts = prepared.halves()
        else:
            self._acknowledge(prepared, Receipt([Rejected(str(error), index=0)]))
            return
        deliveries.split(self._ledger, prepared.stored, parts)

    def complete(self) -> None:
        """Make a whole generation visible, once everything of it is delivered."""
        if self._mode != "replace":
            return
        log = deliveries.generations(self._ledger, self._stream.name)
        with self._ledger.read() as connection:
            here = positions.get(connection, self._ledger, self._route.name, self._stream.name)
        whole = log.newest == log.sealed > here.completed
        if whole and here.position == log.head and not here.detached:
            self._patiently_complete(log.sealed)

    def _patiently_complete(self, generation: int) -> None:
        backoff, tries = self._route.retry, 1
        while True:
            try:
                router = self._serving.router()
                self._begin(router, generation)
                router.complete(self._stream, generation)
                break
            except RetryableError as error:
                self._serving.close()
                if backoff.spent(tries):
                    raise
                self._active.run.sleep(backoff.wait(tries, retry_after=error.retry_after))
                tries += 1
        self._refuse_abandoned()
        with self._ledger.write() as connection:
            positions.change(connection, self._ledger, self._route.name, self._stream.name, completed=generation)


def route_options(route: Route, mode: Mode) -> dict[str, Any]:
    """The route's options that a delivery keeps until it ends."""
    columns = route.columns
    return {
        "mode": mode,
        "where": route.where,
        "include": None if columns is None or columns.include is None else list(columns.include),
        "exclude": [] if columns is None else list(columns.exclude),
        "rename": {} if columns is None else dict(columns.rename),
    }
