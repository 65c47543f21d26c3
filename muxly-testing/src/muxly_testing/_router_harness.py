"""Hooks and steps shared by the router tests: records, deliveries, and the state of the destination."""

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
from muxly_testing._deliveries import delivery as make_delivery
from muxly_testing._expectations import cursor_problem, expect

__all__ = ["RouterHarness"]

STATE_LIMIT_BYTES = 1 << 20


class RouterHarness(ComponentConformance):
    """The hooks that a router's author overrides, and the steps that router tests are made of."""

    def router(self, tmp_path: Path) -> Router:
        """Your router; called for each test, and more than once in some.

        Args:
            tmp_path: A folder for this test, not created yet. Keep it for ``arrived``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method router(self, tmp_path)")

    def arrived(self) -> list[dict[str, Any]]:
        """The records that another reader sees at the destination of the router made last.

        Those of all streams, visible ones only; none if there is nothing yet.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method arrived(self)")

    def record(self, number: int) -> dict[str, Any]:
        """The record with this number; override it if the router needs other columns.

        Keep ``id``; ``identity`` must return a text that differs for every number.
        """
        return {
            "id": number,
            "text": f"text {number}",
            "amount": number + 0.25,
            "day": date(2026, 1, 1) + timedelta(days=number // 10),
            "version": 1,
        }

    def identity(self, record: dict[str, Any]) -> str:
        """Identify a record that arrived: its ``id`` as text, whatever type the destination gave it."""
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
        """Make one delivery; the runner keeps its receipt."""
        return self.deliver(cast("Router", component), self.numbered(range(900, 905)))

    @pytest.fixture
    def ready(self, opened: Component) -> Router:
        """The router, opened."""
        return cast("Router", opened)

    @property
    def usual_mode(self) -> Mode:
        """The mode for tests in which the mode does not matter."""
        return cast("Mode", "append" if "append" in self._modes else min(self._modes))

    _modes: frozenset[str] = frozenset({"append"})
    _promise: str = "at_least_once"

    @pytest.fixture(autouse=True)
    def _declared(self, made: Component) -> None:
        """Note what the router declares; start with an empty ledger."""
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
        return make_delivery(records, stream, batch_records=batch_records, **facts)

    def again(self, first: Delivery, **changes: Any) -> Delivery:
        """The same delivery as the runner makes it again."""
        return attrs.evolve(first, **changes)

    def deliver(self, router: Router, delivery: Delivery) -> Receipt:
        """Deliver as the runner does and check the receipt; its state is given to the next delivery.

        Raises:
            AssertionError: The receipt breaks the contract.
        """
        replacing = delivery.mode == "replace" and delivery.generation is not None
        if replacing:
            router.begin(delivery.stream, cast("int", delivery.generation))
        self._states.give(delivery)
        receipt: object = router.deliver(delivery)
        if replacing:
            router.complete(delivery.stream, cast("int", delivery.generation))
        if receipt is None:
            return Receipt()
        expect(isinstance(receipt, Receipt), "deliver returns None or a muxly.Receipt", receipt)
        assert isinstance(receipt, Receipt)
        _expect_receipt(receipt, sum(batch.num_rows for batch in delivery.all_batches()))
        self._states.acknowledge(delivery, receipt)
        return receipt

    def deliver_reopened(self, made: Component, run: Run, delivery: Delivery) -> Receipt:
        """Deliver with a fresh copy, opened before and closed afterwards."""
        router = cast("Router", copy.deepcopy(made))
        router.open(run)
        try:
            return self.deliver(router, delivery)
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
            tries: How often they were delivered; only ``at_least_once`` may show them more than once.
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
    numbers = [rejected.index for rejected in receipt.rejected]
    wrong = [index for index in numbers if index is None or not 0 <= index < records]
    expect(not wrong, f"a rejected record has its number in the delivery, from 0 to {records - 1}", wrong)
    expect(len(set(numbers)) == len(numbers), "a record is rejected once", numbers)
    problem = cursor_problem(receipt.state, "state")
    expect(problem is None, "the state of a receipt is made of JSON values", problem)
    size = len(json.dumps(receipt.state, default=str))
    expect(size <= STATE_LIMIT_BYTES, "the state of a receipt is at most 1 MiB", f"{size} bytes")


class LedgerStates:
    """The ledger's part in tests without a runner: each stream's state after its last acknowledged delivery."""

    def __init__(self) -> None:
        self._acknowledged: dict[str, Any] = {}
        self._given: dict[str, Any] = {}

    def give(self, delivery: Delivery) -> None:
        """Set the stream's state in a delivery that has none.

        A repeat is given the same state as the first attempt: it happens because that attempt was not
        acknowledged, or because an old ledger was restored.
        """
        if delivery.state is None:
            delivery.state = deepcopy(self._given.setdefault(delivery.id, self._acknowledged.get(delivery.stream.name)))

    def acknowledge(self, delivery: Delivery, receipt: Receipt) -> None:
        """Keep the receipt's state for the stream's next delivery."""
        if receipt.state is not None:
            self._acknowledged[delivery.stream.name] = deepcopy(receipt.state)
