"""What a ledger keeps of receipts, for tests that deliver without a runner."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxly.router import Delivery, Receipt

__all__ = ["LedgerStates"]


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
