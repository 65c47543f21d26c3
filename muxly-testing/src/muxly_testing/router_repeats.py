"""Tests of deliveries that come more than once, because nobody knows what became of them."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, cast

import attrs
import pytest

from muxly.errors import ConflictError, MuxlyError, RetryableError
from muxly_testing.expectations import expect
from muxly_testing.router_trials import RouterTrials

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from muxly.component import Component, Run
    from muxly.router import Delivery, Router

__all__ = ["RouterRepeats"]


class RouterRepeats(RouterTrials):
    """A repeat does what the promise says."""

    def test_repeat_of_a_delivery(self, made: Component, run: Run) -> None:
        """The acknowledgement was lost: the same id comes again, to another copy."""
        one = self.numbered(range(10))
        first = self.deliver_reopened(made, run, one)
        second = self.deliver_reopened(made, run, self.again(one))
        self.expect_arrived(range(10), "the same id twice", tries=2)
        expect(first.rejected == second.rejected, "a repeat returns the same receipt", (first, second))

    def test_repeat_in_the_same_copy(self, ready: Router) -> None:
        """Also without being opened again."""
        one = self.numbered(range(10))
        self.deliver(ready, one)
        self.deliver(ready, self.again(one))
        self.expect_arrived(range(10), "the same id twice in one copy", tries=2)

    def test_repeat_after_later_deliveries(self, made: Component, run: Run) -> None:
        """An old ledger was restored."""
        if self.usual_mode == "replace":
            pytest.skip("the router has only the mode replace")
        early, late = self.numbered(range(5)), self.numbered(range(5, 10))
        for one in (early, late, self.again(early), self.again(late)):
            self.deliver_reopened(made, run, one)
        self.expect_arrived(range(10), "the same ids again, after later ones", tries=2)

    def test_repeat_after_the_records_broke_off(self, made: Component, run: Run) -> None:
        """Reading a segment failed in the middle; nothing of the attempt may be doubled."""
        one = self.numbered(range(12))
        broken = self.again(one, source=attrs.evolve(one.source, batches=lambda: _breaking_off(one)))
        with contextlib.suppress(RetryableError):
            self.deliver_reopened(made, run, broken)
            expect(condition=False, contract="an error of the delivery's own records is passed on")
        self.deliver_reopened(made, run, self.again(one))
        self.expect_arrived(range(12), "an attempt broke off, and was repeated", tries=2)

    def test_known_id_with_other_content_is_a_conflict(self, made: Component, run: Run) -> None:
        """Skipping it would lose records silently."""
        if self._promise != "effectively_once":
            pytest.skip("the router does not promise effectively_once")
        one = self.numbered(range(5))
        self.deliver_reopened(made, run, one)
        other = self.numbered(range(50, 55), id=one.id)
        with pytest.raises(ConflictError, match=r"."):
            self.deliver_reopened(made, run, other)
        self.expect_arrived(range(5), "a conflict changes nothing")

    def test_what_is_delivered_already_is_left_out(self, made: Component, run: Run) -> None:
        """``Delivery.mark`` kept a position before the crash."""
        one = self.numbered(range(10))
        self.deliver_reopened(made, run, attrs.evolve(one, delivered=6))
        self.expect_arrived(range(6, 10), "6 of 10 records are delivered already")

    def test_attempt_after_an_error_works(self, made: Component, run: Run) -> None:
        """After any error the runner closes and opens the router."""
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        one = self.numbered(range(6))
        with contextlib.suppress(MuxlyError):
            router.deliver(self.again(one, source=attrs.evolve(one.source, batches=lambda: _breaking_off(one))))
        router.close()
        router.open(run)
        self.deliver(router, self.again(one))
        router.close()
        self.expect_arrived(range(6), "an attempt after an error", tries=2)


def _breaking_off(one: Delivery) -> Iterator[pa.RecordBatch]:
    yield next(one.all_batches())
    raise RetryableError("the records broke off")
