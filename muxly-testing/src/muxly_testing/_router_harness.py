"""What a router's tests are made of: its records, deliveries, and a look at the destination."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import attrs
import pytest

from muxly.component import Component, Run
from muxly.router import Delivery, Mode, Receipt, Router
from muxly.stream import Stream
from muxly_testing._component_conformance import ComponentConformance
from muxly_testing._deliveries import delivery
from muxly_testing._expectations import cursor_problem, expect

__all__ = ["LedgerStates", "RouterHarness"]


STATE_LIMIT_BYTES = 1 << 20


class RouterHarness(ComponentConformance):
    """What a router's author says about it, and ways to try it."""

    def router(self, tmp_path: Path) -> Router:
        """Your router; called for each test, and more than once in some.

        Args:
            tmp_path: A folder of the test, not made yet. Keep it for ``arrived``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method router(self, tmp_path)")

    def arrived(self) -> list[dict[str, Any]]:
        """What another reader sees at the destination of the router that was made last.

        The records of all streams, visible ones only; none if there is nothing yet.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method arrived(self)")

    def record(self, number: int) -> dict[str, Any]:
        """Record with this number; override it if the router needs other columns.

        ``id`` must stay, and ``number`` must follow from what ``identity`` finds.
        """
        return {
            "id": number,
            "text": f"text {number}",
            "amount": number + 0.25,
            "day": date(2026, 1, 1) + timedelta(days=number // 10),
            "version": 1,
        }

    def identity(self, record: dict[str, Any]) -> str:
        """Which record it is that arrived; the ``id`` as text, whatever type the destination made of it."""
        return str(record["id"])

    stream: ClassVar[Stream] = Stream("conformance", ("id",), overwrite_key=("day",), cursor_field="version")

    def component(self, tmp_path: Path) -> Component:
        """The router."""
        return self.router(tmp_path)

    def slow(self, tmp_path: Path) -> Router | None:
        """The router with a destination that asks to wait for a second, once or twice, and then takes everything.

        By its own means: 429 with ``Retry-After``, throttling. Override it so that waiting is
        tested; None = the destination cannot ask.
        """
        return None

    def work(self, component: Component) -> object:
        """One delivery; what is kept of it is the receipt."""
        return self.deliver(cast("Router", component), self.numbered(range(900, 905)))

    @pytest.fixture
    def ready(self, opened: Component) -> Router:
        """The router, opened."""
        return cast("Router", opened)

    @property
    def usual_mode(self) -> Mode:
        """The mode of tests that are about something else."""
        return cast("Mode", "append" if "append" in self._modes else min(self._modes))

    _modes: frozenset[str] = frozenset({"append"})
    _promise: str = "at_least_once"

    @pytest.fixture(autouse=True)
    def _declared(self, made: Component) -> None:
        """Remember what the router declares; nothing is acknowledged yet."""
        router = cast("Router", made)
        self._modes, self._promise = router.modes, router.promise
        self._states = LedgerStates()

    def numbered(self, numbers: Iterable[int], *, batch_records: int = 4, **facts: Any) -> Delivery:
        """A delivery of the records with these numbers."""
        facts.setdefault("mode", self.usual_mode)
        if facts["mode"] == "replace":
            facts.setdefault("generation", 1)
        records = [self.record(number) for number in numbers]
        stream = facts.pop("stream", self.stream)
        return delivery(records, stream, batch_records=batch_records, **facts)

    def again(self, first: Delivery, **changes: Any) -> Delivery:
        """The same delivery as a runner gives it a second time."""
        return attrs.evolve(first, **changes)

    def deliver(self, router: Router, one: Delivery) -> Receipt:
        """Deliver as the runner does, and look at the receipt; its state is there for the next delivery.

        Raises:
            AssertionError: The receipt breaks the contract.
        """
        replacing = one.mode == "replace" and one.generation is not None
        if replacing:
            router.begin(one.stream, cast("int", one.generation))
        self._states.give(one)
        receipt: object = router.deliver(one)
        if replacing:
            router.complete(one.stream, cast("int", one.generation))
        if receipt is None:
            return Receipt()
        expect(isinstance(receipt, Receipt), "deliver returns None or a muxly.Receipt", receipt)
        assert isinstance(receipt, Receipt)
        _expect_receipt(receipt, sum(batch.num_rows for batch in one.source()))
        self._states.acknowledge(one, receipt)
        return receipt

    def deliver_reopened(self, made: Component, run: Run, one: Delivery) -> Receipt:
        """Deliver with another copy, opened for it and closed after it."""
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        try:
            return self.deliver(router, one)
        finally:
            router.close()

    def seen(self) -> Counter[str]:
        """How often each record is at the destination."""
        return Counter(self.identity(record) for record in self.arrived())

    def expect_arrived(self, numbers: Iterable[int], contract: str, *, tries: int = 1) -> None:
        """Expect exactly these records at the destination.

        Args:
            numbers: The records' numbers.
            contract: Why they should be there.
            tries: How often they were delivered; more than once shows in ``at_least_once`` only.
        """
        wanted = Counter(self.identity(self.record(number)) for number in numbers)
        seen = self.seen()
        lost = sorted(wanted - seen)
        expect(not lost, f"{contract}: every record is there when deliver has returned", f"missing {lost}")
        unknown = sorted(set(seen) - set(wanted))
        expect(not unknown, f"{contract}: only records that were delivered are there", f"unknown {unknown}")
        most = tries if self._promise == "at_least_once" else 1
        doubled = {name: count for name, count in seen.items() if count > most}
        expect(not doubled, f"{contract}: {self._promise} means at most {most} of each record", doubled)

    def need(self, mode: str) -> None:
        """Skip a test of a mode that the router does not declare."""
        if mode not in self._modes:
            pytest.skip(f"the router does not declare the mode {mode}")


def _expect_receipt(receipt: Receipt, records: int) -> None:
    numbers = [one.index for one in receipt.rejected]
    wrong = [index for index in numbers if index is None or not 0 <= index < records]
    expect(not wrong, f"a rejected record has its number in the delivery, from 0 to {records - 1}", wrong)
    expect(len(set(numbers)) == len(numbers), "a record is rejected once", numbers)
    problem = cursor_problem(receipt.state, "state")
    expect(problem is None, "the state of a receipt is made of JSON values", problem)
    size = len(json.dumps(receipt.state, default=str))
    expect(size <= STATE_LIMIT_BYTES, "the state of a receipt is at most 1 MiB", f"{size} bytes")


class LedgerStates:
    """The state of each stream of one route, as its last acknowledged delivery left it."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._given: dict[str, Any] = {}

    def give(self, one: Delivery) -> None:
        """Put the stream's state into a delivery that has none.

        A repeat gets what the delivery was given first: it comes because it was not acknowledged,
        or because an old ledger was restored.
        """
        if one.state is None:
            one.state = deepcopy(self._given.setdefault(one.id, self._kept.get(one.stream.name)))

    def acknowledge(self, one: Delivery, receipt: Receipt) -> None:
        """Keep the receipt's state for the stream's next delivery."""
        if receipt.state is not None:
            self._kept[one.stream.name] = deepcopy(receipt.state)
