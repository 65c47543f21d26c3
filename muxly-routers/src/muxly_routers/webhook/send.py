"""A delivery on its way: requests in order or several at once, halved where they are refused, marked."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import muxly
from muxly_routers._http.statuses import error_of, meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from muxly_routers._http.answer import HttpResponse
    from muxly_routers.webhook.chunks import BodyFormat, RecordSpan
    from muxly_routers.webhook.responses import RecordResults

__all__ = ["DeliverySender"]

Rejections = list[muxly.Rejected]


class DeliverySender:
    """Sends the spans of one delivery.

    Args:
        delivery: What is delivered; its ``mark`` is called as its first records are.
        send: Makes the request of an id with a body.
        form: How bodies are made.
        per_record: Reads answers that speak of each record.
        give_up_after: Records refused, with none accepted before, that stop the route; 0 = never.
        in_flight: Most requests at the same time.
    """

    def __init__(
        self,
        delivery: muxly.Delivery,
        *,
        send: Callable[[str, bytes], HttpResponse],
        form: BodyFormat,
        per_record: RecordResults,
        give_up_after: int,
        in_flight: int,
    ) -> None:
        self._delivery, self._send, self._form, self._per_record = delivery, send, form, per_record
        self._in_flight = in_flight
        self._tally = _RefusalCounter(give_up_after, per_record.place, accepted=delivery.delivered)
        self._too_large: int | None = None

    def all(self, spans: Iterable[RecordSpan]) -> Rejections:
        """Send them, and return the records that were rejected.

        A mark says that records before it need never be sent again, so none is set behind a
        rejected one: what is known of it lasts only until the receipt is kept.
        """
        rejected: Rejections = []
        for span, found in self._one_by_one(spans) if self._in_flight == 1 else self._several(spans):
            rejected.extend(found)
            self._delivery.mark(self._delivery.delivered if rejected else span.end)
        return rejected

    def _one_by_one(self, spans: Iterable[RecordSpan]) -> Iterator[tuple[RecordSpan, Rejections]]:
        for span in spans:
            yield span, self._settled(span)

    def _several(self, spans: Iterable[RecordSpan]) -> Iterator[tuple[RecordSpan, Rejections]]:
        """Outcomes in the order of the spans, of which some are always on their way."""
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="muxly-webhook") as pool:
            flying: deque[tuple[RecordSpan, Future[Rejections]]] = deque()
            with _cancelling(flying):
                for span in spans:
                    flying.append((span, pool.submit(self._settled, span)))
                    if len(flying) > self._in_flight:
                        yield _landed(flying)
                while flying:
                    yield _landed(flying)

    def _settled(self, span: RecordSpan) -> Rejections:
        """Send a span, in halves if need be, until each of its records is accepted or rejected."""
        pieces = span.sendable()
        if len(pieces) > 1 and self._too_large is not None and span.size >= self._too_large:
            return self._halved(span)
        unsendable = [
            muxly.Rejected(piece.reason, index=span.first + at)
            for at, piece in enumerate(span.pieces)
            if not isinstance(piece, bytes)
        ]
        if not pieces:
            return unsendable
        answer = self._send(f"{self._delivery.id}-{span.first}-{len(span.pieces)}", self._form.body(pieces))
        found = meaning(answer.status)
        if found == "accepted":
            refused = self._per_record.rejected(answer, len(pieces))
            self._tally.accepted(len(pieces) - len(refused))
            return unsendable + [muxly.Rejected(why, index=span.number(at)) for at, why in sorted(refused.items())]
        error = error_of(self._per_record.place, answer)
        if found not in ("refused", "too_large"):
            raise error
        if len(pieces) == 1:
            self._tally.refused(error)
            return [*unsendable, muxly.Rejected(str(error), index=span.number(0))]
        if found == "too_large":
            self._too_large = min(span.size, self._too_large or span.size)
        return self._halved(span)

    def _halved(self, span: RecordSpan) -> Rejections:
        first, second = span.halves()
        return self._settled(first) + self._settled(second)


def _landed(flying: deque[tuple[RecordSpan, Future[Rejections]]]) -> tuple[RecordSpan, Rejections]:
    span, future = flying.popleft()
    return span, future.result()


@contextlib.contextmanager
def _cancelling(flying: deque[tuple[RecordSpan, Future[Rejections]]]) -> Iterator[None]:
    """After an error nothing more is sent; what is on its way already is waited for."""
    try:
        yield
    finally:
        for _span, future in flying:
            future.cancel()


class _RefusalCounter:
    """Whether the receiver refuses everything: then not the records are wrong but the set-up."""

    def __init__(self, give_up_after: int, place: str, *, accepted: int) -> None:
        self._give_up_after, self._place = give_up_after, place
        self._lock = threading.Lock()
        self._accepted, self._refused = accepted, 0

    def accepted(self, count: int) -> None:
        with self._lock:
            self._accepted += count

    def refused(self, error: muxly.MuxlyError) -> None:
        """One record alone was refused.

        Raises:
            RouteError: So were many before it, and none was accepted.
        """
        with self._lock:
            self._refused += 1
            if self._accepted or not self._give_up_after or self._refused < self._give_up_after:
                return
        raise muxly.RouteError(
            f"{self._place} refused each of the first {self._refused} records, so probably it is not the records but "
            f"body, template or url that is wrong; if the records are, set give_up_after to 0. The last answer: {error}"
        )
