"""A router that goes wrong as it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs.validators import in_

from muxly.batch import Rejected
from muxly.errors import RejectedError
from muxly.options import option
from muxly.router import Receipt
from muxly_testing.calls import Call
from muxly_testing.collecting_router import CollectingRouter, call_of
from muxly_testing.destination import entry_of
from muxly_testing.faults import Fault, scripted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from muxly.component import Notice, Run
    from muxly.router import Delivery
    from muxly.stream import Stream

__all__ = ["ChaosRouter"]

LIES = ("", "forgets", "loses", "tears")


class ChaosRouter(CollectingRouter):
    """A ``CollectingRouter`` with scripted faults, refused records, and lies.

    ::

        ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", at=2, retry_after=0.1)])
        ChaosRouter(faults=[Fault(method="deliver", action="RetryableError", after=True)])  # applied, but an error
        ChaosRouter(reject=[17], reject_by="error")

    Without a ``folder`` the number of calls is kept in this process; with one, a fault that ends
    the process (``exit``) happens once, not again after the restart.
    """

    faults: list[Fault] = option("What goes wrong.", factory=list)
    reject: list[Any] = option("Values of reject_column that are refused.", factory=list)
    reject_column: str = option("The column of those values.", default="id")
    reject_by: str = option(
        "receipt (the others are kept) or error (nothing is kept).",
        default="receipt",
        validator=in_(("receipt", "error")),
    )
    lie: str = option(
        "forgets (does not know an id again), loses (keeps nothing), tears (keeps a delivery in two pieces and does "
        "not look which are there).",
        default="",
        validator=in_(LIES),
    )

    def open(self, run: Run) -> None:
        """Note it, and let its faults happen."""
        self._run = run
        with self._scripted(Call("open")):
            pass

    def check(self) -> Iterable[Notice]:
        """Note it, and let its faults happen."""
        with self._scripted(Call("check")):
            return ()

    def close(self) -> None:
        """Note it, and let its faults happen."""
        with self._scripted(Call("close")):
            self._run = None

    def deliver(self, delivery: Delivery) -> Receipt | None:
        """Keep the delivery, as far as the script lets it."""
        with self._scripted(call_of(delivery)):
            rejected = self._rejected(delivery) if self.reject else []
            if rejected and self.reject_by == "error":
                raise RejectedError(f"{rejected[0].reason} (record {rejected[0].index} of delivery {delivery.id})")
            self._keep_or_lie(delivery, [one.index for one in rejected if one.index is not None])
        return Receipt(rejected) if rejected else None

    def begin(self, stream: Stream, generation: int) -> None:
        """Begin a generation, and let its faults happen."""
        with self._scripted(Call("begin", stream=stream.name, number=generation)):
            self.start(stream, generation)

    def complete(self, stream: Stream, generation: int) -> None:
        """Complete a generation, and let its faults happen."""
        with self._scripted(Call("complete", stream=stream.name, number=generation)):
            self.finish(stream, generation)

    def _rejected(self, delivery: Delivery) -> list[Rejected]:
        return [
            Rejected(f"{self.reject_column} {record.get(self.reject_column)!r} is on the script's list", index=index)
            for index, record in enumerate(delivery.records(), start=delivery.delivered)
            if record.get(self.reject_column) in self.reject
        ]

    def _keep_or_lie(self, delivery: Delivery, left_out: list[int]) -> None:
        if self.lie == "forgets":
            self._destination.add(entry_of(delivery, left_out=left_out), delivery.batches())
        elif self.lie == "tears":
            self._tear(delivery, left_out)
        elif self.lie != "loses":
            self.keep(delivery, left_out=left_out)

    def _tear(self, delivery: Delivery, left_out: list[int]) -> None:
        batches = list(delivery.batches())
        half = len(batches) // 2
        kept = self._kept(delivery)
        first = entry_of(delivery, left_out=left_out)
        self._destination.add(first, batches[:half])
        if not kept:
            self._destination.add(first, batches[half:])

    def _scripted(self, call: Call) -> AbstractContextManager[None]:
        return scripted(self.faults, self._place.calls, call, self._run)
