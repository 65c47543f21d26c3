"""Conformance tests for routers."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import attrs
import pyarrow as pa
import pytest

from muxly.component import Component, Run
from muxly.errors import ConfigurationError, ConflictError, DeliveryError, MuxlyError, RetryableError
from muxly.router import Delivery, DeliverySource, Router
from muxly.stream import Stream
from muxly_testing._deliveries import delivery as make_delivery
from muxly_testing._expectations import WatchedRun, expect, within
from muxly_testing._fake_connector import fake_record, fake_schema
from muxly_testing._router_crashes import RouterCrashes
from muxly_testing._router_harness import RouterHarness
from muxly_testing._router_modes import RouterModes

__all__ = ["RouterConformance"]

PROMISES = ("effectively_once", "at_least_once", "idempotent")

THROTTLED_ATTEMPTS = 6
LONGEST_WAIT_SECONDS = 5.0

# Texts and names that have broken many programs: quotes, line ends, every script, paths, code.
ODD_TEXTS = (
    "",
    " ",
    'quo"te',
    "O'Neil; DROP TABLE x",
    "com,ma",
    "new\nline",
    "carriage\rreturn",
    "both\r\n",
    "tab\t",
    "=1+1",
    "@cmd",
    "-5",
    "null",
    "NaN",
    "\\N",
    "\\",
    "naïve",
    "日本語",
    "👩‍💻",
    "e\u0301",
    "\u202eright to left",
    "\ufeffmark",
    "${HOME}",
    "{{7*7}}",
    "<script>",
    "../../etc/passwd",
    "a" * 70_000,
)
ODD_NAMES = (
    "../../escape",
    "/absolute",
    "a/b",
    "a\\b",
    ".",
    "..",
    ".hidden",
    "",
    " ",
    "con",
    "x" * 300,
    "naïve ☃",
    "new\nline",
    "semi;colon",
    'quo"te',
    "%2e%2e",
    "deals:contacts",
    "UPPER",
    "upper",
)


class RouterRepeats(RouterHarness):
    """Tests of deliveries that come more than once, because nobody knows what became of them."""

    def test_repeat_of_a_delivery(self, made: Component, run: Run) -> None:
        """The acknowledgement was lost: the same id comes again, to another copy."""
        delivery = self.numbered(range(10))
        first = self.deliver_reopened(made, run, delivery)
        second = self.deliver_reopened(made, run, self.again(delivery))
        self.expect_arrived(range(10), "the same id twice", tries=2)
        expect(first.rejected == second.rejected, "a repeat returns the same receipt", (first, second))

    def test_repeat_in_the_same_copy(self, ready: Router) -> None:
        """Also without being opened again."""
        delivery = self.numbered(range(10))
        self.deliver(ready, delivery)
        self.deliver(ready, self.again(delivery))
        self.expect_arrived(range(10), "the same id twice in one copy", tries=2)

    def test_repeat_after_later_deliveries(self, made: Component, run: Run) -> None:
        """An old ledger was restored."""
        if self.usual_mode == "replace":
            pytest.skip("the router has only the mode replace")
        early, late = self.numbered(range(5)), self.numbered(range(5, 10))
        for delivery in (early, late, self.again(early), self.again(late)):
            self.deliver_reopened(made, run, delivery)
        self.expect_arrived(range(10), "the same ids again, after later ones", tries=2)

    def test_repeat_after_the_records_broke_off(self, made: Component, run: Run) -> None:
        """Reading a segment failed in the middle; nothing of the attempt may be doubled."""
        delivery = self.numbered(range(12))
        broken = self.again(delivery, source=_breaking_off(delivery))
        with contextlib.suppress(RetryableError):
            self.deliver_reopened(made, run, broken)
            expect(condition=False, contract="an error of the delivery's own records is passed on")
        self.deliver_reopened(made, run, self.again(delivery))
        self.expect_arrived(range(12), "an attempt broke off, and was repeated", tries=2)

    def test_known_id_with_other_content_is_a_conflict(self, made: Component, run: Run) -> None:
        """Skipping it would lose records silently."""
        if self._promise != "effectively_once":
            pytest.skip("the router does not promise effectively_once")
        delivery = self.numbered(range(5))
        self.deliver_reopened(made, run, delivery)
        other = self.numbered(range(50, 55), id=delivery.id)
        with pytest.raises(ConflictError, match=r"."):
            self.deliver_reopened(made, run, other)
        self.expect_arrived(range(5), "a conflict changes nothing")

    def test_what_is_delivered_already_is_left_out(self, made: Component, run: Run) -> None:
        """``Delivery.mark`` kept a position before the crash."""
        delivery = self.numbered(range(10))
        self.deliver_reopened(made, run, attrs.evolve(delivery, delivered=6))
        self.expect_arrived(range(6, 10), "6 of 10 records are delivered already")

    def test_attempt_after_an_error_works(self, made: Component, run: Run) -> None:
        """After any error the runner closes and opens the router."""
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        delivery = self.numbered(range(6))
        with contextlib.suppress(MuxlyError):
            router.deliver(self.again(delivery, source=_breaking_off(delivery)))
        router.close()
        router.open(run)
        self.deliver(router, self.again(delivery))
        router.close()
        self.expect_arrived(range(6), "an attempt after an error", tries=2)


def _breaking_off(delivery: Delivery) -> DeliverySource:
    """The source of the delivery, failing after its first batch."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield next(delivery.all_batches())
        raise RetryableError("the records broke off")

    return attrs.evolve(delivery.source, batches=batches)


class RouterThrottling(RouterHarness):
    """Tests of a destination that asks to wait: it is neither hurried nor given up."""

    patience_seconds: ClassVar[float] = 30.0
    """Seconds within which the destination that ``slow`` gives must have everything."""

    def test_destination_that_asks_to_wait_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: WatchedRun
    ) -> None:
        """With ``run.sleep``, or by a ``RetryableError`` that says how long."""
        router = self._slow(tmp_path, monkeypatch)
        contract = f"a destination that asks to wait has everything within {self.patience_seconds} s"
        within(self.patience_seconds, contract, lambda: self._deliver_until_taken(router, run))
        self.expect_arrived(range(6), "a destination asked to wait", tries=THROTTLED_ATTEMPTS)

    def _slow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
        why = "slow() gives no router whose destination asks to wait"
        return cast("Router", self._or_skip(self.slow(tmp_path / "inside" / "deep"), monkeypatch, why))

    def _deliver_until_taken(self, router: Router, run: WatchedRun) -> None:
        """As the runner does: repeat the delivery after the time asked for, from the last mark."""
        delivery = self.numbered(range(6))
        for _ in range(THROTTLED_ATTEMPTS):
            delivery = self.again(delivery)
            if (error := self._error_of_delivery(router, run, delivery)) is None:
                return
            expect(isinstance(error, RetryableError), "being asked to wait is a RetryableError", repr(error))
            assert isinstance(error, RetryableError)
            expect(
                error.retry_after is not None and error.retry_after > 0,
                "what the destination asked for is passed on as RetryableError(..., retry_after=seconds)",
                repr(error),
            )
            run.sleep(min(error.retry_after or 0.0, LONGEST_WAIT_SECONDS))
        expect(condition=False, contract=f"the destination takes everything within {THROTTLED_ATTEMPTS} attempts")

    def _error_of_delivery(self, router: Router, run: WatchedRun, delivery: Delivery) -> Exception | None:
        try:
            self.deliver_reopened(router, run, delivery)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 (any error is examined)
            return error
        return None

    def test_stopping_run_ends_waiting_for_the_destination(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: WatchedRun
    ) -> None:
        """The stop comes while it waits."""
        router = self._slow(tmp_path, monkeypatch)
        sleep = run.sleep

        def stopped(seconds: float) -> None:
            run.stop.set()
            sleep(seconds)

        monkeypatch.setattr(run, "sleep", stopped)
        within(
            self.stop_seconds,
            f"a router that waits ends within {self.stop_seconds} s when the run is stopped",
            lambda: self._error_of_delivery(router, run, self.numbered(range(6))),
        )


class RouterConformance(RouterRepeats, RouterModes, RouterThrottling, RouterCrashes):
    """Subclass it and say how your router is made and how to read what arrived.

    ::

        class TestMine(RouterConformance):
            def router(self, tmp_path):
                self.path = tmp_path / "mine.db"
                return Mine(path=self.path)

            def arrived(self):
                return [dict(row) for row in read_all(self.path)]

    Override ``record`` and ``identity`` if the router needs certain columns, or shows little of a
    record; and ``broken``, ``slow`` and ``hanging`` to have errors, waiting and deadlines tested.
    A test whose hook is not overridden is skipped.
    """

    def test_is_a_router(self, made: Component) -> None:
        """Its class says what it is and what it promises, and a worker can import it."""
        expect(isinstance(made, Router), "a router is a subclass of muxly.Router", type(made))
        expect("<locals>" not in type(made).__qualname__, "the class is at the top of its module", type(made))
        router = cast("Router", made)
        expect(router.promise in PROMISES, f"a promise is one of {', '.join(PROMISES)}", router.promise)
        expect(router.concurrency >= 1, "concurrency is 1 or more", router.concurrency)

    def test_every_record_arrives(self, made: Component, run: Run) -> None:
        """Also over several deliveries."""
        self.deliver_reopened(made, run, self.numbered(range(10)))
        self.expect_arrived(range(10), "a delivery")
        if self.usual_mode != "replace":
            self.deliver_reopened(made, run, self.numbered(range(10, 15)))
            self.expect_arrived(range(15), "two deliveries")

    def test_records_are_durable_when_deliver_returns(self, ready: Router) -> None:
        """Not only after ``close``."""
        self.deliver(ready, self.numbered(range(5)))
        self.expect_arrived(range(5), "deliver returns only when all of it is durable")

    def test_values_arrive_unchanged(self, made: Component, run: Run) -> None:
        """Quotes, line ends, every script, text that looks like numbers or code."""
        records = [{**self.record(number), "text": text} for number, text in enumerate(ODD_TEXTS)]
        self.deliver_reopened(made, run, self._of(records))
        self.expect_arrived(range(len(ODD_TEXTS)), "text of all kinds")
        for record in self.arrived():
            if isinstance(text := record.get("text"), str):
                sent = ODD_TEXTS[int(self.identity(record))]
                expect(text == sent, "text arrives unchanged", f"{sent[:80]!r} became {text[:80]!r}")

    def test_delivery_without_records_is_a_success(self, made: Component, run: Run) -> None:
        """A filter may leave no records."""
        empty = self.numbered(range(1)).table().slice(0, 0)
        self.deliver_reopened(made, run, self._of(empty))
        self.expect_arrived([], "a delivery without records")

    def test_empty_batches_do_no_harm(self, made: Component, run: Run) -> None:
        """They may occur anywhere."""
        first, second = self.numbered(range(8)).batches()
        none = first.slice(0, 0)
        self.deliver_reopened(made, run, self._of([none, first, none, second, none]))
        self.expect_arrived(range(8), "empty batches between others")

    def test_sliced_batches_arrive_as_they_are(self, made: Component, run: Run) -> None:
        """A delivery may be a part of a segment."""
        whole = self.numbered(range(20), batch_records=20).table().combine_chunks().to_batches()[0]
        self.deliver_reopened(made, run, self._of([whole.slice(3, 4), whole.slice(11, 2)]))
        self.expect_arrived([3, 4, 5, 6, 11, 12], "slices of batches")

    def _of(self, data: Any, **facts: Any) -> Delivery:
        generation = 1 if self.usual_mode == "replace" else None
        stream = facts.pop("stream", self.stream)
        return make_delivery(data, stream, mode=self.usual_mode, generation=generation, **facts)

    def test_marked_records_are_durable(self, ready: Router) -> None:
        """``mark`` comes after the records are at the destination, not before."""
        delivery, early = self.numbered(range(10)), list[str]()

        def marked(count: int) -> None:
            seen = self.seen()
            early.extend(str(number) for number in range(count) if not seen[self.identity(self.record(number))])

        self.deliver(ready, attrs.evolve(delivery, source=attrs.evolve(delivery.source, on_mark=marked)))
        expect(not early, "mark(n) says that n records are durable at the destination", f"not there: {early}")
        expect(delivery.delivered <= 10, "mark counts the records of the delivery", delivery.delivered)

    def test_every_type_arrives_or_is_refused_by_name(self, made: Component, run: Run) -> None:
        """A type that the destination does not have is an error that names the column."""
        schema, sent = fake_schema(wide=True), 1000
        for field in schema:
            if field.name == "id":
                continue
            numbers = range(sent, sent + 3)
            if self._type_arrives(made, run, field.name, self._typed(field, numbers)):
                arrived = [record for record in self.arrived() if int(self.identity(record)) in numbers]
                expect(len(arrived) == 3, f"records with a column of type {field.type} arrive", arrived)
            sent += 3

    def _typed(self, field: pa.Field, numbers: range) -> pa.Table:
        """The usual records with one more column of that type."""
        usual = pa.Table.from_pylist([self.record(number) for number in numbers])
        values = [fake_record(0, "typed", n, wide=True, per_day=10).get(field.name) for n in numbers]
        column = pa.array(values).dictionary_encode() if pa.types.is_dictionary(field.type) else values
        return usual.append_column(f"typed_{field.name}", pa.array(column, type=field.type))

    def _type_arrives(self, made: Component, run: Run, name: str, table: pa.Table) -> bool:
        stream = Stream(f"typed_{name}", ("id",), cursor_field="version", overwrite_key=("day",))
        try:
            self.deliver_reopened(made, run, self._of(table, stream=stream))
        except (DeliveryError, ConfigurationError) as error:
            expect(f"typed_{name}" in str(error), "a refused type is an error that names the column", str(error))
            return False
        return True

    def test_stream_names_are_only_names(self, made: Component, run: Run, tmp_path: Path) -> None:
        """They come from outside: never a path, never code, never mixed up."""
        before, sent = _outside(tmp_path), list[int]()
        for number, name in enumerate(ODD_NAMES):
            stream = attrs.evolve(self.stream, name=name)
            with contextlib.suppress(DeliveryError, ConfigurationError):
                self.deliver_reopened(made, run, self._of([self.record(number)], stream=stream))
                sent.append(number)
        self.expect_arrived(sent, "streams with odd names, each delivered or refused")
        expect(_outside(tmp_path) == before, "nothing is written outside", sorted(_outside(tmp_path) - before))

    def test_streams_are_kept_apart(self, made: Component, run: Run) -> None:
        """Copies of the router deliver as many streams at once as its ``concurrency`` allows."""
        count = max(2, cast("Router", made).concurrency)
        errors: list[str] = []

        def records_of(number: int) -> range:
            return range(number * 10, number * 10 + 5)

        def one_stream(number: int) -> None:
            stream = attrs.evolve(self.stream, name=f"stream_{number}")
            records = [self.record(record) for record in records_of(number)]
            try:
                self.deliver_reopened(made, run, self._of(records, stream=stream))
            except Exception as error:  # noqa: BLE001 (shown by the test)
                errors.append(f"{type(error).__name__}: {error}")

        _concurrently(one_stream, count, cast("Router", made).concurrency)
        expect(not errors, f"{count} streams are delivered by their own copies", errors)
        delivered = [record for number in range(count) for record in records_of(number)]
        self.expect_arrived(delivered, "several streams")

    def test_stopping_run_ends_delivering_in_time(self, ready: Router, run: WatchedRun) -> None:
        """A router stops waiting, whatever for, when the run stops."""
        run.stop.set()
        within(
            self.stop_seconds,
            f"deliver returns or raises within {self.stop_seconds} s after the run was stopped",
            lambda: self.deliver(ready, self.numbered(range(10))),
        )


def _outside(tmp_path: Path) -> set[str]:
    """The files of the test outside the router's own folder."""
    inside = tmp_path / "inside" / "deep"
    return {str(path) for path in tmp_path.rglob("*") if not path.is_relative_to(inside) and path.is_file()}


def _concurrently(call: Any, count: int, concurrency: int) -> None:
    limit = threading.Semaphore(concurrency)

    def limited(number: int) -> None:
        with limit:
            call(number)

    threads = [threading.Thread(target=limited, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
