"""Routers for tests: one that keeps its deliveries for inspection, and one with scripted faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs.validators import ge, in_

from muxly.batch import Rejected
from muxly.component import Notice, Run
from muxly.errors import ConflictError, RejectedError
from muxly.options import option
from muxly.router import Delivery, Promise, Receipt, Router
from muxly.stream import Stream
from muxly_testing._destination import (
    SEQUENCE,
    FakeDestination,
    SharedState,
    entry_of,
    generation_entry,
    new_token,
    visible_generation,
    visible_records,
    without_tombstones,
)
from muxly_testing._faults import Call, Fault, scripted

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["ChaosRouter", "CollectingRouter"]


class CollectingRouter(Router):
    """A router that keeps every delivery, recognises repeats by their ids, and has every mode.

    The router that a test holds shows what the copies of a run were given. In a configuration, give
    it a ``token``, and make another router with the same token in the test; or give it a
    ``folder``, which works for other processes too.
    """

    modes: ClassVar[frozenset[str]] = frozenset({"append", "upsert", "overwrite", "replace"})
    promise: ClassVar[Promise] = "effectively_once"

    folder: Path | None = option("Folder in which deliveries are kept, so that they survive the process.", default=None)
    token: str = option("Routers with the same token share their deliveries; by default a new one.", default="")
    mark_every: int = option(
        "Number of records kept and marked at a time, in mode append; 0 = all.",
        default=0,
        validator=ge(0),
    )

    _run: Run | None = None

    def __attrs_post_init__(self) -> None:
        self.token = self.token or new_token()

    @property
    def calls(self) -> Sequence[Call]:
        """Every call of this router and of its copies, in order."""
        return self._state.calls.all()

    @property
    def ids(self) -> list[str]:
        """The ids of all deliveries that were kept, without repetition, in order."""
        entries = (entry for entry, _ in self._destination.entries())
        return list(dict.fromkeys(entry.id for entry in entries if entry.kind == "delivery"))

    @property
    def streams(self) -> list[str]:
        """The names of all streams of which something was delivered."""
        return list(dict.fromkeys(entry.stream for entry, _ in self._destination.entries()))

    def records(self, stream: str = "numbers") -> list[dict[str, Any]]:
        """What a reader of the destination sees of a stream, tombstones included."""
        return visible_records(self._destination.entries(), stream)

    def alive(self, stream: str = "numbers") -> list[dict[str, Any]]:
        """As ``records``, without tombstones."""
        return without_tombstones(self.records(stream))

    def batches(self, stream: str = "numbers") -> list[pa.RecordBatch]:
        """Every batch that was kept of a stream, as it came."""
        stored = self._destination.entries()
        kept = [batch for entry, batches in stored if entry.stream == stream for batch in batches()]
        return [batch.drop_columns(SEQUENCE) if SEQUENCE in batch.schema.names else batch for batch in kept]

    def clear(self) -> None:
        """Forget what was delivered."""
        self._destination.clear()

    def open(self, run: Run) -> None:
        """Note the call."""
        self._run = run
        self._note(Call("open"))

    def close(self) -> None:
        """Note the call."""
        self._run = None
        self._note(Call("close"))

    def deliver(self, delivery: Delivery) -> Receipt | None:
        """Note the call, and keep the delivery unless it is kept already."""
        self._note(call_of(delivery))
        self.keep(delivery)
        return None

    def begin(self, stream: Stream, generation: int) -> None:
        """Note the call."""
        self._note(Call("begin", stream=stream.name, number=generation))
        self.start(stream, generation)

    def complete(self, stream: Stream, generation: int) -> None:
        """Make the generation the visible one."""
        self._note(Call("complete", stream=stream.name, number=generation))
        self.finish(stream, generation)

    def keep(self, delivery: Delivery, *, left_out: Iterable[int] = ()) -> None:
        """Keep the delivery's records, unless they are kept already.

        Args:
            delivery: What was delivered.
            left_out: Numbers of records that are refused.

        Raises:
            ConflictError: Other content is kept under that id.
        """
        kept = self._kept(delivery)
        refused = frozenset(left_out)
        if self.mark_every and delivery.mode == "append":
            self._keep_parts(delivery, kept, refused)
        elif kept == 0:
            self._destination.add(entry_of(delivery, left_out=refused), _kept_batches(delivery))

    def start(self, stream: Stream, generation: int) -> None:
        """Begin a generation; what is visible stays visible."""
        self._destination.add(generation_entry(stream, "begin", generation))

    def finish(self, stream: Stream, generation: int) -> None:
        """Make the generation the visible one.

        Raises:
            ConflictError: A newer one is visible.
        """
        newest = visible_generation(self._destination.entries(), stream.name)
        if newest is not None and newest > generation:
            raise ConflictError(f"generation {newest} of {stream.name} is visible; {generation} is older")
        self._destination.add(generation_entry(stream, "complete", generation))

    def _kept(self, delivery: Delivery) -> int:
        """The number of leading records that are kept; 1 for a kept delivery without records."""
        end = 0
        for entry, batches in self._destination.entries():
            if entry.id != delivery.id:
                continue
            if entry.digest != delivery.digest:
                raise ConflictError(f"delivery {delivery.id} is kept with digest {entry.digest}, not {delivery.digest}")
            end = max(end, 1, entry.first + sum(batch.num_rows for batch in batches()))
        return end

    def _keep_parts(self, delivery: Delivery, kept: int, left_out: frozenset[int]) -> None:
        """Keep and mark ``mark_every`` records at a time, as a router for single messages does."""
        for part in self._parts(delivery):
            start, end = delivery.delivered, delivery.delivered + part.num_rows
            if end > kept:
                known = max(0, kept - start)
                entry = attrs.evolve(entry_of(delivery, left_out=left_out), first=start + known)
                self._destination.add(entry, [part.slice(known)])
            delivery.mark(end)

    def _parts(self, delivery: Delivery) -> Iterator[pa.RecordBatch]:
        for batch in delivery.batches():
            for start in range(0, batch.num_rows, self.mark_every):
                yield batch.slice(start, self.mark_every)

    def _note(self, call: Call) -> None:
        self._state.calls.note(call)

    @property
    def _state(self) -> SharedState:
        return SharedState.of(self.token, self.folder)

    @property
    def _destination(self) -> FakeDestination:
        return self._state.destination


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

    faults: list[Fault] = option("Scripted faults.", factory=list)
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
        """Note the call, and let its faults happen."""
        self._run = run
        with self._scripted(Call("open")):
            pass

    def check(self) -> Iterable[Notice]:
        """Note the call, and let its faults happen."""
        with self._scripted(Call("check")):
            return ()

    def close(self) -> None:
        """Note the call, and let its faults happen."""
        with self._scripted(Call("close")):
            self._run = None

    def deliver(self, delivery: Delivery) -> Receipt | None:
        """Keep the delivery, as far as the script allows."""
        with self._scripted(call_of(delivery)):
            rejected = self._rejected(delivery) if self.reject else []
            if rejected and self.reject_by == "error":
                raise RejectedError(f"{rejected[0].reason} (record {rejected[0].index} of delivery {delivery.id})")
            self._keep_or_lie(delivery, [reject.index for reject in rejected if reject.index is not None])
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
        return scripted(self.faults, self._state.calls, call, self._run)


def _kept_batches(delivery: Delivery) -> Iterator[pa.RecordBatch]:
    """The batches; for an upsert, with each record's position in the log, which decides between equal versions."""
    if delivery.mode != "upsert":
        yield from delivery.batches()
        return
    for sequences, batch in delivery.sequenced():
        yield batch.append_column(SEQUENCE, sequences)


def call_of(delivery: Delivery) -> Call:
    """The call that is noted for a delivery."""
    return Call("deliver", stream=delivery.stream.name, key=delivery.id, number=delivery.delivered)
