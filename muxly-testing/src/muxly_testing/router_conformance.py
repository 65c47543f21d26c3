"""The tests that every router has to pass."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, cast

import attrs

from muxly.errors import ConfigurationError, DeliveryError
from muxly.router import Router
from muxly.stream import Stream
from muxly_testing import fake_records
from muxly_testing.deliveries import delivery
from muxly_testing.expectations import expect
from muxly_testing.odd_texts import NAMES, TEXTS
from muxly_testing.router_crashes import RouterCrashes
from muxly_testing.router_modes import RouterModes
from muxly_testing.router_patience import RouterPatience
from muxly_testing.router_repeats import RouterRepeats
from muxly_testing.watching import WatchedRun, within

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from muxly.component import Component, Run
    from muxly.router import Delivery

__all__ = ["RouterConformance"]

PROMISES = ("effectively_once", "at_least_once", "idempotent")


class RouterConformance(RouterRepeats, RouterModes, RouterPatience, RouterCrashes):
    """Subclass it, and say how your router is made and how to read what arrived.

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
        """Quotes, line ends, all scripts, things that look like numbers or code."""
        records = [{**self.record(number), "text": text} for number, text in enumerate(TEXTS)]
        self.deliver_reopened(made, run, self._of(records))
        self.expect_arrived(range(len(TEXTS)), "text of all kinds")
        for record in self.arrived():
            if isinstance(found := record.get("text"), str):
                sent = TEXTS[int(self.identity(record))]
                expect(found == sent, "text arrives unchanged", f"{sent[:80]!r} became {found[:80]!r}")

    def test_delivery_without_records_is_a_success(self, made: Component, run: Run) -> None:
        """A filter may have left nothing."""
        empty = self.numbered(range(1)).table().slice(0, 0)
        self.deliver_reopened(made, run, self._of(empty))
        self.expect_arrived([], "a delivery without records")

    def test_empty_batches_do_no_harm(self, made: Component, run: Run) -> None:
        """They may stand anywhere."""
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
        return delivery(data, facts.pop("stream", self.stream), mode=self.usual_mode, generation=generation, **facts)

    def test_marked_records_are_durable(self, ready: Router) -> None:
        """``mark`` comes after the records are at the destination, not before."""
        one, early = self.numbered(range(10)), list[str]()

        def marked(count: int) -> None:
            there = self.seen()
            early.extend(str(number) for number in range(count) if not there[self.identity(self.record(number))])

        self.deliver(ready, attrs.evolve(one, source=attrs.evolve(one.source, on_mark=marked)))
        expect(not early, "mark(n) says that n records are durable at the destination", f"not there: {early}")
        expect(one.delivered <= 10, "mark counts the records of the delivery", one.delivered)

    def test_every_type_arrives_or_is_refused_by_name(self, made: Component, run: Run) -> None:
        """A type that the destination does not have is an error that names the column."""
        schema, sent = fake_records.schema(wide=True), 1000
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
        import pyarrow as pa

        usual = pa.Table.from_pylist([self.record(number) for number in numbers])
        values = [fake_records.record(0, "typed", n, wide=True, per_day=10).get(field.name) for n in numbers]
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
        for number, name in enumerate(NAMES):
            stream = attrs.evolve(self.stream, name=name)
            with contextlib.suppress(DeliveryError, ConfigurationError):
                self.deliver_reopened(made, run, self._of([self.record(number)], stream=stream))
                sent.append(number)
        self.expect_arrived(sent, "streams with odd names, each delivered or refused")
        expect(_outside(tmp_path) == before, "nothing is written outside", sorted(_outside(tmp_path) - before))

    def test_streams_are_kept_apart(self, made: Component, run: Run) -> None:
        """Copies of the router deliver as many streams at once as it allows."""
        count = max(2, cast("Router", made).concurrency)
        errors: list[str] = []

        def one_stream(number: int) -> None:
            stream = attrs.evolve(self.stream, name=f"stream_{number}")
            records = [self.record(one) for one in range(number * 10, number * 10 + 5)]
            try:
                self.deliver_reopened(made, run, self._of(records, stream=stream))
            except Exception as error:  # noqa: BLE001 (shown by the test)
                errors.append(f"{type(error).__name__}: {error}")

        _at_once(one_stream, count, cast("Router", made).concurrency)
        expect(not errors, f"{count} streams are delivered by their own copies", errors)
        self.expect_arrived([one for n in range(count) for one in range(n * 10, n * 10 + 5)], "several streams")

    def test_stopping_run_ends_delivering_in_time(self, ready: Router, run: WatchedRun) -> None:
        """Whatever a router waits for, it stops waiting when the run stops."""
        run.stop.set()
        within(
            self.stop_seconds,
            f"deliver returns or raises within {self.stop_seconds} s after the run was stopped",
            lambda: self.deliver(ready, self.numbered(range(10))),
        )


def _outside(tmp_path: Path) -> set[str]:
    """All files of the test that are not in the router's own folder."""
    inside = tmp_path / "inside" / "deep"
    return {str(path) for path in tmp_path.rglob("*") if not path.is_relative_to(inside) and path.is_file()}


def _at_once(call: Any, count: int, concurrency: int) -> None:
    limit = threading.Semaphore(concurrency)

    def limited(number: int) -> None:
        with limit:
            call(number)

    threads = [threading.Thread(target=limited, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
