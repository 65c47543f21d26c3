"""Conformance tests of the modes that a router declares."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from muxly.component import Component, Run
from muxly.errors import ConflictError
from muxly.router import Delivery, Router
from muxly_testing._deliveries import delivery as make_delivery
from muxly_testing._expectations import expect
from muxly_testing._router_harness import RouterHarness

__all__ = ["RouterModes"]

MODES = {"append", "upsert", "overwrite", "replace"}


class RouterModes(RouterHarness):
    """Tests that every declared mode works; those of other modes are skipped."""

    def test_modes_are_known(self, made: Component) -> None:
        """The runner chooses the mode of a route from them."""
        modes = cast("Router", made).modes
        expect(modes, "a router has a mode", modes)
        expect(set(modes) <= MODES, f"modes are among {sorted(MODES)}", sorted(modes))

    def _texts(self) -> dict[str, Any]:
        """The text of each record at the destination, tombstones left out."""
        alive = [record for record in self.arrived() if record.get("_deleted_at") is None]
        return {self.identity(record): record.get("text") for record in alive}

    def _changed(self, versions: Iterable[tuple[int, int]], *, position: int = 0, **facts: Any) -> Delivery:
        """Records with numbers and versions; the text names both."""
        records = [
            {**self.record(number), "text": f"{number} v{version}", "version": version, **facts}
            for number, version in versions
        ]
        return make_delivery(records, self.stream, mode="upsert", position=position)

    def test_upsert_keeps_the_newest_of_each_key(self, made: Component, run: Run) -> None:
        """New keys are added, known ones are changed."""
        self.need("upsert")
        self.deliver_reopened(made, run, self._changed([(1, 1), (2, 1)]))
        self.deliver_reopened(made, run, self._changed([(2, 2), (3, 1)]))
        expect(self._texts() == {"1": "1 v1", "2": "2 v2", "3": "3 v1"}, "upsert has one record a key", self._texts())

    def test_upsert_takes_the_last_of_one_key_within_a_delivery(self, made: Component, run: Run) -> None:
        """Also where the cursor field is the same."""
        self.need("upsert")
        twice = [
            {**self.record(1), "text": "first"},
            {**self.record(2), "text": "2"},
            {**self.record(1), "text": "last"},
        ]
        self.deliver_reopened(made, run, make_delivery(twice, self.stream, mode="upsert"))
        expect(self._texts() == {"1": "last", "2": "2"}, "of equal cursor fields the later record wins", self._texts())

    def test_upsert_does_not_go_back(self, made: Component, run: Run) -> None:
        """A replayed dead letter is older than what is there."""
        self.need("upsert")
        self.deliver_reopened(made, run, self._changed([(1, 5)]))
        self.deliver_reopened(made, run, self._changed([(1, 4)]))
        expect(self._texts() == {"1": "1 v5"}, "the greater cursor field wins, whatever comes first", self._texts())

    def test_upsert_of_equals_goes_by_the_place_in_the_log(self, made: Component, run: Run) -> None:
        """A replayed dead letter is not newer than what followed it."""
        self.need("upsert")
        for position in (2, 1, 3):
            self.deliver_reopened(made, run, self._changed([(1, 5)], position=position, text=f"at {position}"))
            kept = f"at {max(2, position)}"
            expect(self._texts() == {"1": kept}, "of equal cursor fields the later in the log wins", self._texts())

    def test_upsert_repeated_changes_nothing(self, made: Component, run: Run) -> None:
        """The same id again."""
        self.need("upsert")
        first, second = self._changed([(1, 1), (2, 1)]), self._changed([(2, 2)])
        for delivery in (first, second, self.again(first), self.again(second)):
            self.deliver_reopened(made, run, delivery)
        expect(self._texts() == {"1": "1 v1", "2": "2 v2"}, "a repeat changes nothing", self._texts())

    def test_tombstone_takes_its_record_away(self, made: Component, run: Run) -> None:
        """It applies by primary key; whether the record stays with its mark is the router's choice."""
        self.need("upsert")
        from datetime import UTC, datetime

        self.deliver_reopened(made, run, self._changed([(1, 1), (2, 1)], _deleted_at=None))
        self.deliver_reopened(made, run, self._changed([(1, 2)], _deleted_at=datetime(2026, 1, 1, tzinfo=UTC)))
        expect(set(self._texts()) == {"2"}, "a record with _deleted_at is gone, or marked", self.arrived())

    def test_overwrite_replaces_the_values_that_it_names(self, made: Component, run: Run) -> None:
        """And no others."""
        self.need("overwrite")
        days = [self.record(number)["day"] for number in (0, 10, 20)]
        first = self.numbered([0, 1, 2, 10, 11, 20], mode="overwrite", replaces=days)
        self.deliver_reopened(made, run, first)
        self.expect_arrived([0, 1, 2, 10, 11, 20], "overwrite brings its records")
        second = self.numbered([1, 3], mode="overwrite", replaces=[days[0]])
        self.deliver_reopened(made, run, second)
        self.expect_arrived([1, 3, 10, 11, 20], "overwrite replaces all records with the values of `replaces`")
        self.deliver_reopened(made, run, self.again(second))
        self.expect_arrived([1, 3, 10, 11, 20], "overwrite may be repeated")

    def test_overwrite_empties_a_value_that_has_no_records_any_more(self, made: Component, run: Run) -> None:
        """A delivery with zero records and some ``replaces`` is still made."""
        self.need("overwrite")
        days = [self.record(number)["day"] for number in (0, 10)]
        self.deliver_reopened(made, run, self.numbered([0, 1, 10], mode="overwrite", replaces=days))
        full = self.numbered([0], mode="overwrite", replaces=[days[0]])
        self.deliver_reopened(
            made, run, make_delivery(full.table().slice(0, 0), self.stream, mode="overwrite", replaces=[days[0]])
        )
        self.expect_arrived([10], "a value in `replaces` without records is emptied")

    def test_replace_shows_a_generation_when_it_is_complete(self, made: Component, run: Run) -> None:
        """Until then the old one stays visible."""
        self.need("replace")
        self._generation(made, run, 1, [1, 2, 3], until="deliver")
        self.expect_arrived([], "nothing of a generation is visible before `complete`")
        self._generation(made, run, 1, [4], until="complete")
        self.expect_arrived([1, 2, 3, 4], "`complete` makes the generation visible")
        self._generation(made, run, 2, [7, 8], until="deliver")
        self.expect_arrived([1, 2, 3, 4], "the old generation stays visible until the new one is complete")
        self._generation(made, run, 2, [], until="complete")
        self.expect_arrived([7, 8], "`complete` takes the old generation away")

    def test_replace_may_be_repeated_at_every_step(self, made: Component, run: Run) -> None:
        """After a crash the runner cannot know which step was the last."""
        self.need("replace")
        delivery = self.numbered([1, 2], mode="replace", generation=1)
        for _ in range(2):
            self._open_and_call(made, run, lambda router: router.begin(self.stream, 1))
        for _ in range(2):
            self._open_and_call(made, run, lambda router: router.deliver(self.again(delivery)))
        for _ in range(2):
            self._open_and_call(made, run, lambda router: router.complete(self.stream, 1))
        self.expect_arrived([1, 2], "begin, deliver and complete may be repeated", tries=2)

    def test_replace_with_zero_records_shows_an_empty_stream(self, made: Component, run: Run) -> None:
        """The source has become empty."""
        self.need("replace")
        self._generation(made, run, 1, [1, 2], until="complete")
        self._generation(made, run, 2, [], until="complete")
        self.expect_arrived([], "a generation without records is visible when it is complete")

    def test_replace_drops_what_an_unfinished_generation_left(self, made: Component, run: Run) -> None:
        """``begin`` of a newer generation drops it."""
        self.need("replace")
        self._generation(made, run, 1, [1, 2], until="deliver")
        self._generation(made, run, 2, [5], until="complete")
        self.expect_arrived([5], "records of a generation that was never complete are not visible")

    def test_replace_refuses_a_generation_older_than_the_visible_one(self, made: Component, run: Run) -> None:
        """A zombie's last call must not bring old records back."""
        self.need("replace")
        self._generation(made, run, 2, [1, 2], until="complete")
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        with pytest.raises(ConflictError, match=r"\d"):
            router.complete(self.stream, 1)
        router.close()
        self.expect_arrived([1, 2], "an older generation is refused")

    def _generation(self, made: Component, run: Run, generation: int, numbers: list[int], *, until: str) -> None:
        """Begin a generation, deliver, and complete it if wanted."""

        def steps(router: Router) -> None:
            router.begin(self.stream, generation)
            if numbers:
                router.deliver(self.numbered(numbers, mode="replace", generation=generation))
            if until == "complete":
                router.complete(self.stream, generation)

        self._open_and_call(made, run, steps)

    def _open_and_call(self, made: Component, run: Run, steps: Callable[[Router], object]) -> None:
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        steps(router)
        router.close()
