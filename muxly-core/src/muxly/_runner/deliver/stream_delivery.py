"""The deliveries of one stream on one route: tried, split, acknowledged, one after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.streams import mode_of, rules_of
from muxly.batch import Rejected
from muxly.component import Notice
from muxly.errors import RejectedError, RouteError, StoppedError
from muxly.pipeline import StreamRules
from muxly.retry import Patience
from muxly.router import Receipt
from muxly.store import acknowledge, deliveries, log, positions, retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from muxly._runner.deliver.dead_letter_delivery import PreparedLetters
    from muxly._runner.deliver.route_worker import RouteWorker, Serving
    from muxly._runner.deliver.segment_delivery import PreparedDelivery
    from muxly.pipeline import Route
    from muxly.router import Mode, Router
    from muxly.store.rows import StoredDelivery
    from muxly.stream import Stream

    Prepared = PreparedDelivery | PreparedLetters


class Desk:
    """The deliveries of one stream on one route, one after the other."""

    def __init__(self, worker: RouteWorker, serving: Serving, stream: Stream) -> None:
        self._worker, self._serving, self._stream = worker, serving, stream
        self._active, self._route = worker.active, worker.route
        self._ledger = self._active.ledger
        rules = rules_of(self._active.pipeline, stream.name) or StreamRules()
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
        while not self._active.stop.is_set():
            waiting = deliveries.open_letters(self._ledger, self._route.name, self._stream.name, limit=1)
            if not waiting:
                return
            from muxly._runner.deliver.dead_letter_delivery import MixedLettersError, PreparedLetters  # loads pyarrow

            try:
                self.deliver(PreparedLetters(self._active, waiting[0], self._route, self._stream))
            except MixedLettersError as error:
                self._split(waiting[0], error.parts)
            self._worker.progress(self._stream.name)

    def deliver_next(self) -> bool:
        """Deliver the next delivery to its end; False if nothing waits."""
        limits = self._route.batch
        stored = self._patience().call(
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
        from muxly._runner.deliver.segment_delivery import DamagedSegmentError, PreparedDelivery  # loads pyarrow

        try:
            prepared = PreparedDelivery(self._active, stored, self._route, self._stream)
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

        known = self._active.pipeline, self._route, list(self._active.streams.values()), self._ledger
        check_filter(*known)
        for message in missing_columns(*known):
            if all(one.message != message for one in self._active.notices):
                self._active.run.notice(Notice("column_missing", message, stream=self._stream.name))
        self._looked_at = True

    def deliver(self, prepared: Prepared) -> None:
        """Try a delivery until it is acknowledged, split, or given up for this run."""
        if self._skippable(prepared):
            self._acknowledge(prepared, Receipt())
            return
        try:
            receipt = self._patience().call(lambda: self._attempt(prepared), failed=self._serving.close)
        except RejectedError as error:
            self._rejected(prepared, error)
        else:
            self._acknowledge(prepared, receipt)

    def _patience(self) -> Patience:
        tell = partial(self._active.waits, self._route.name, self._stream.name)
        return Patience(self._route.retry, self._sleep, tell=tell)

    def _sleep(self, seconds: float) -> None:
        """Wait before another try; that is no stall."""
        self._refuse_abandoned()
        self._worker.progress(self._stream.name, ahead_seconds=seconds)
        self._active.run.sleep(seconds)

    def _skippable(self, prepared: Prepared) -> bool:
        """Whether the router need not be called: all filtered out, or all delivered already."""
        if prepared.count and prepared.stored.marked >= prepared.count:
            return True
        return prepared.count == 0 and prepared.stored.options["mode"] != "overwrite"

    def _attempt(self, prepared: Prepared) -> Receipt:
        self._refuse_abandoned()
        router = self._serving.router()
        stored = prepared.stored
        if stored.options["mode"] == "replace":
            self._begin(router, stored.generation)
        with self._ledger.read() as connection:
            state = positions.get(connection, self._ledger, stored.route, stored.stream).state
        delivery = prepared.delivery(state, lambda count: self._mark(prepared, count))
        delivery.source = evolve(delivery.source, batches=partial(self._taken, delivery.source.batches))
        receipt = router.deliver(delivery)
        if receipt is None:
            return Receipt()
        if not isinstance(receipt, Receipt):
            raise TypeError(f"deliver() of {type(router).__name__} returned {receipt!r}, not a muxly.Receipt or None")
        return receipt

    def _taken(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        """The delivery's batches; each that is taken is progress."""
        for batch in batches():
            self._worker.progress(self._stream.name)
            yield batch

    def _mark(self, prepared: Prepared, count: int) -> None:
        self._refuse_abandoned()
        if count > prepared.count:
            raise ValueError(
                f"route {self._route.name!r} marks {count} records of a delivery that has {prepared.count} of them"
            )
        deliveries.mark(self._ledger, prepared.stored, count)
        prepared.stored = evolve(prepared.stored, marked=count)
        self._worker.progress(self._stream.name)

    def _refuse_abandoned(self) -> None:
        if self._worker.abandoned:
            raise StoppedError(f"route {self._route.name!r} was given up because it made no progress")

    def _begin(self, router: Router, generation: int) -> None:
        """Tell the router of a new full read, once per opened router."""
        if (self._stream.name, generation) in self._serving.begun:
            return
        router.begin(self._stream, generation)
        self._refuse_abandoned()
        with self._ledger.write() as connection:
            positions.change(connection, self._ledger, self._route.name, self._stream.name, begun=generation)
        self._serving.begun.add((self._stream.name, generation))

    def _acknowledge(self, prepared: Prepared, receipt: Receipt) -> None:
        self._refuse_abandoned()
        rejected = self._checked(prepared, receipt)
        if rejected and not prepared.stored.letters:  # letters were counted when they died first
            self._worker.count_rejected(len(rejected), rejected[0].reason)
        letters = prepared.letters(rejected)
        # It is at the destination: what the store does not take now it is asked again, not the destination.
        self._patience().call(
            lambda: acknowledge.acknowledge(
                self._ledger,
                prepared.stored,
                delivered=prepared.count - len(rejected),
                filtered=prepared.filtered,
                rejected=letters,
                state=receipt.state,
            )
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
        self._refuse_abandoned()
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
        self._patience().call(lambda: deliveries.split(self._ledger, stored, parts))

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
            router = self._serving.router()
            self._begin(router, generation)
            router.complete(self._stream, generation)
            self._refuse_abandoned()

        self._patience().call(attempt, failed=self._serving.close)
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
