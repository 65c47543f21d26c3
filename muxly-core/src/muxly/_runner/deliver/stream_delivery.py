"""The deliveries of one stream on one route: tried, split, acknowledged, one after the other.

A delivery is stored before its first attempt and never changes, so that every attempt, also of another
process after a crash, hands the router the same records under the same id. That is what lets a router
recognize a repeat.

A router that rejects records without saying which makes the delivery smaller until it does: the part
that it has marked as delivered is split off, else the delivery is halved. Both parts are stored before
either is tried, under ids of their own. A delivery of one record that is rejected becomes a dead letter.
Deliveries in mode ``overwrite`` are never split: a part would replace what belongs to the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve

from muxly._runner.context import RunContext
from muxly._runner.streams import mode_of, rules_of
from muxly.batch import Rejected
from muxly.component import Notice
from muxly.errors import RejectedError, RouteError
from muxly.pipeline import Route, StreamRules
from muxly.retry import Retry
from muxly.router import Mode, Receipt, Router
from muxly.store import acknowledge, deliveries, log, positions, retention
from muxly.store.rows import StoredDelivery
from muxly.stream import Stream

if TYPE_CHECKING:
    from muxly._runner.deliver.dead_letter_delivery import DeadLetterDelivery
    from muxly._runner.deliver.segment_delivery import SegmentDelivery

    Prepared = SegmentDelivery | DeadLetterDelivery


class Worker(Protocol):
    """The worker whose thread delivers a stream."""

    def progress(self, stream: str, *, ahead_seconds: float = 0.0) -> None:
        """Note that something of a stream was done, or will be after waiting as long as was asked."""

    def refuse_abandoned(self) -> None:
        """Raise StoppedError if nothing that is done now counts any more."""

    def count_rejected(self, count: int, reason: str) -> None:
        """Count dead letters; raises TooManyRejectedError if the route does not allow so many in one run."""


class StreamDelivery:
    """The deliveries of one stream on one route, one after the other.

    Args:
        context: The run.
        route: The route.
        router: An opened copy of its router.
        stream: The stream.
        worker: Told of progress and of rejected records.
    """

    def __init__(self, context: RunContext, route: Route, router: OpenedRouter, stream: Stream, worker: Worker) -> None:
        self._context, self._route, self._opened = context, route, router
        self._stream, self._worker = stream, worker
        self._ledger = self._context.ledger
        rules = rules_of(self._context.pipeline, stream.name) or StreamRules()
        self._mode: Mode = mode_of(self._route, stream, rules)
        self._options = route_options(self._route, self._mode)
        self._looked_at = False
        if self._mode == "replace":
            self._supersede()

    def _supersede(self) -> None:
        """Pass over full reads before the newest whole one, and those the destination has, or may not get."""
        sealed = positions.generations_of(self._ledger, self._stream.name).sealed
        with self._ledger.read() as connection:
            here = positions.get(connection, self._ledger, self._route.name, self._stream.name)
        oldest = max(sealed, here.completed + 1)
        positions.supersede(self._ledger, self._route.name, self._stream.name, generation=oldest)

    def deliver_letters(self) -> None:
        """Deliver again the dead letters that a replay asked for."""
        while not self._context.stop.is_set():
            waiting = deliveries.open_letters(self._ledger, self._route.name, self._stream.name, limit=1)
            if not waiting:
                return
            from muxly._runner.deliver.dead_letter_delivery import DeadLetterDelivery, MixedTypesError  # loads pyarrow

            try:
                self.deliver(DeadLetterDelivery(self._context, waiting[0], self._route, self._stream))
            except MixedTypesError as error:
                self._split(waiting[0], error.parts)
            self._worker.progress(self._stream.name)

    def deliver_next(self) -> bool:
        """Deliver the next delivery to its end; False if nothing waits."""
        limits = self._route.batch
        stored = self._retry().call(
            lambda: deliveries.following(
                self._ledger,
                self._route.name,
                self._stream.name,
                options=self._options,
                records=limits.records,
                bytes=limits.bytes,
                whole_groups=self._mode == "overwrite",
                check=self._check_selection,
            )
        )
        if stored is None:
            return False
        from muxly._runner.deliver.segment_delivery import DamagedSegmentError, SegmentDelivery  # loads pyarrow

        try:
            prepared = SegmentDelivery(self._context, stored, self._route, self._stream)
        except DamagedSegmentError as error:
            retention.quarantine(self._ledger, error.segment)
            raise log.quarantined(self._stream.name, error.segment.position, str(error)) from error
        except RouteError:
            # A filter that fails on a value fails each time, so no router has seen this delivery: taken back,
            # it is made anew with the filter as it was mended.
            deliveries.withdraw(self._ledger, stored)
            raise
        self.deliver(prepared)
        return True

    def _check_selection(self) -> None:
        """Look at columns and filter before a delivery keeps them, now that the stream's columns are known."""
        if self._looked_at or (self._route.where is None and self._route.columns is None):
            return
        from muxly._runner.deliver.preflight import check_filter, missing_columns

        known = self._context.pipeline, self._route, list(self._context.log.streams.values()), self._ledger
        check_filter(*known)
        for message in missing_columns(*known):
            if all(notice.message != message for notice in self._context.observers.notices):
                self._context.run.notice(Notice("column_missing", message, stream=self._stream.name))
        self._looked_at = True

    def deliver(self, prepared: Prepared) -> None:
        """Try a delivery until it is acknowledged, split, or given up for this run."""
        if self._skippable(prepared):
            self._acknowledge(prepared, Receipt())
            return
        try:
            receipt = self._retry().call(lambda: self._attempt(prepared), failed=self._opened.close)
        except RejectedError as error:
            self._rejected(prepared, error)
        else:
            self._acknowledge(prepared, receipt)

    def _retry(self) -> Retry:
        on_retry = partial(self._context.failures.retry, self._route.name, self._stream.name)
        return Retry(self._route.retry, self._sleep, on_retry=on_retry)

    def _sleep(self, seconds: float) -> None:
        """Wait before another try; that is no stall."""
        self._worker.refuse_abandoned()
        self._worker.progress(self._stream.name, ahead_seconds=seconds)
        self._context.run.sleep(seconds)

    def _skippable(self, prepared: Prepared) -> bool:
        """Whether the router need not be called: all filtered out, or all delivered already."""
        if prepared.count and prepared.stored.marked >= prepared.count:
            return True
        return prepared.count == 0 and prepared.stored.options["mode"] != "overwrite"

    def _attempt(self, prepared: Prepared) -> Receipt:
        self._worker.refuse_abandoned()
        router = self._opened.router()
        stored = prepared.stored
        if stored.options["mode"] == "replace":
            self._begin(router, stored.generation)
        with self._ledger.read() as connection:
            state = positions.get(connection, self._ledger, stored.route, stored.stream).state
        delivery = prepared.delivery(
            state,
            on_mark=lambda count: self._mark(prepared, count),
            on_batch=lambda: self._worker.progress(self._stream.name),
        )
        receipt = router.deliver(delivery)
        if receipt is None:
            return Receipt()
        if not isinstance(receipt, Receipt):
            raise TypeError(f"deliver() of {type(router).__name__} returned {receipt!r}, not a muxly.Receipt or None")
        return receipt

    def _mark(self, prepared: Prepared, count: int) -> None:
        self._worker.refuse_abandoned()
        if count > prepared.count:
            raise ValueError(
                f"route {self._route.name!r} marks {count} records of a delivery that has only {prepared.count}"
            )
        deliveries.mark(self._ledger, prepared.stored, count)
        prepared.stored = evolve(prepared.stored, marked=count)
        self._worker.progress(self._stream.name)

    def _begin(self, router: Router, generation: int) -> None:
        """Tell the router of a new full read, once per opened router."""
        if (self._stream.name, generation) in self._opened.begun:
            return
        router.begin(self._stream, generation)
        self._worker.refuse_abandoned()
        with self._ledger.write() as connection:
            positions.change(connection, self._ledger, self._route.name, self._stream.name, begun=generation)
        self._opened.begun.add((self._stream.name, generation))

    def _acknowledge(self, prepared: Prepared, receipt: Receipt) -> None:
        self._worker.refuse_abandoned()
        rejected = self._checked(prepared, receipt)
        if rejected and not prepared.stored.letters:  # letters were counted when they died first
            self._worker.count_rejected(len(rejected), rejected[0].reason)
        letters = prepared.letters(rejected)
        # It is at the destination: what the store does not take now it is asked again, not the destination.
        self._retry().call(
            lambda: acknowledge.acknowledge(
                self._ledger,
                prepared.stored,
                delivered=prepared.count - len(rejected),
                filtered=prepared.filtered,
                rejected=letters,
                state=receipt.state,
            )
        )
        self._context.progress.notify()

    def _checked(self, prepared: Prepared, receipt: Receipt) -> list[Rejected]:
        """The receipt's rejected records, each once and with a number that exists."""
        found: dict[int, Rejected] = {}
        for rejection in receipt.rejected:
            if rejection.index is None or not 0 <= rejection.index < prepared.count:
                raise ValueError(
                    f"the receipt of route {self._route.name!r} rejects record {rejection.index}, and the delivery "
                    f"has {prepared.count}"
                )
            found.setdefault(rejection.index, rejection)
        return list(found.values())

    def _rejected(self, prepared: Prepared, error: RejectedError) -> None:
        """Split the delivery, or keep its one record as a dead letter."""
        self._worker.refuse_abandoned()
        if not prepared.stored.letters and prepared.stored.options["mode"] == "overwrite":
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
        self._split(prepared.stored, parts)

    def _split(self, stored: StoredDelivery, parts: list[StoredDelivery]) -> None:
        self._retry().call(lambda: deliveries.split(self._ledger, stored, parts))

    def complete(self) -> None:
        """Make a whole generation visible, once everything of it is delivered."""
        if self._mode != "replace":
            return
        reads = positions.generations_of(self._ledger, self._stream.name)
        with self._ledger.read() as connection:
            here = positions.get(connection, self._ledger, self._route.name, self._stream.name)
        whole = reads.newest == reads.sealed > here.completed
        if whole and here.position == reads.head and not here.detached:
            self._patiently_complete(reads.sealed)

    def _patiently_complete(self, generation: int) -> None:
        def attempt() -> None:
            router = self._opened.router()
            self._begin(router, generation)
            router.complete(self._stream, generation)
            self._worker.refuse_abandoned()

        self._retry().call(attempt, failed=self._opened.close)
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


class OpenedRouter:
    """One opened copy of a route's router; opened again after an error.

    Args:
        context: The run.
        route: The route.
        on_wait: Told when the router waits: for which stream, and for how many seconds.
    """

    def __init__(self, context: RunContext, route: Route, on_wait: Callable[[str, float], None]) -> None:
        self._context, self._route, self._on_wait = context, route, on_wait
        self.stream = ""
        self._router: Router | None = None
        self.begun: set[tuple[str, int]] = set()

    def router(self) -> Router:
        """The router, opened."""
        if self._router is None:
            router = copy.deepcopy(self._route.router)
            try:
                router.open(self._context.run.on_route(self._route.name, self._waits))
            except BaseException:
                _close_quietly(self._context, self._route.name, router)
                raise
            self._router = router
        return self._router

    def _waits(self, seconds: float) -> None:
        self._on_wait(self.stream, seconds)

    def close(self) -> None:
        """Close the router; may be repeated."""
        router, self._router = self._router, None
        self.begun.clear()
        if router is not None:
            _close_quietly(self._context, self._route.name, router)


def _close_quietly(context: RunContext, route: str, router: Router) -> None:
    """Close a router; what is acknowledged stays acknowledged, whatever closing raises."""
    try:
        router.close()
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        context.run.notice(Notice("close_failed", f"closing route {route!r} raised {type(error).__name__}: {error}"))
