"""Sending a delivery: one request after the other or several at once, halved where they are refused.

A request that is refused is halved until the record at fault stands alone, so one bad record costs a
logarithm of requests and takes no other with it. Answers may also tell the fate of each record.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from attrs import frozen

import muxly
from muxly_routers._http.messages import HttpResponse, response_error, status_meaning

if TYPE_CHECKING:
    from muxly_routers.webhook.bodies import BodyFormat, RecordSpan

__all__ = ["DeliverySender", "RecordResults", "pointer_parts"]

Rejections = list[muxly.Rejected]


class DeliverySender:
    """Sends the spans of one delivery.

    Args:
        delivery: What is delivered; its ``mark`` is called as its first records are.
        send: Makes the request of an id with a body.
        body_format: How bodies are made.
        results: Reads answers that tell the fate of each record.
        give_up_after: Records refused, with none accepted before, that stop the route; 0 = never.
        in_flight: Most requests at the same time.
    """

    def __init__(
        self,
        delivery: muxly.Delivery,
        *,
        send: Callable[[str, bytes], HttpResponse],
        body_format: BodyFormat,
        results: RecordResults,
        give_up_after: int,
        in_flight: int,
    ) -> None:
        self._delivery, self._send, self._body_format, self._results = delivery, send, body_format, results
        self._in_flight = in_flight
        self._refusals = _RefusalCounter(give_up_after, results.site, accepted=delivery.delivered)
        self._too_large: int | None = None

    def send_all(self, spans: Iterable[RecordSpan]) -> Rejections:
        """Send them, and return the records that were rejected.

        A mark says that records before it need never be sent again, so none is set behind a
        rejected one: what is known of it lasts only until the receipt is kept.
        """
        rejected: Rejections = []
        for span, refused in self._in_order(spans) if self._in_flight == 1 else self._concurrently(spans):
            rejected.extend(refused)
            self._delivery.mark(self._delivery.delivered if rejected else span.end)
        return rejected

    def _in_order(self, spans: Iterable[RecordSpan]) -> Iterator[tuple[RecordSpan, Rejections]]:
        for span in spans:
            yield span, self._send_span(span)

    def _concurrently(self, spans: Iterable[RecordSpan]) -> Iterator[tuple[RecordSpan, Rejections]]:
        """Outcomes in the order of the spans, of which some are always on their way."""
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="muxly-webhook") as pool:
            in_flight: deque[tuple[RecordSpan, Future[Rejections]]] = deque()
            with _cancelled_on_error(in_flight):
                for span in spans:
                    in_flight.append((span, pool.submit(self._send_span, span)))
                    if len(in_flight) > self._in_flight:
                        yield _next_outcome(in_flight)
                while in_flight:
                    yield _next_outcome(in_flight)

    def _send_span(self, span: RecordSpan) -> Rejections:
        """Send a span, in halves if need be, until each of its records is accepted or rejected."""
        encoded = span.sendable()
        if len(encoded) > 1 and self._too_large is not None and span.size >= self._too_large:
            return self._send_halves(span)
        unsendable = [
            muxly.Rejected(record.reason, index=span.first + at)
            for at, record in enumerate(span.records)
            if not isinstance(record, bytes)
        ]
        if not encoded:
            return unsendable
        answer = self._send(f"{self._delivery.id}-{span.first}-{len(span.records)}", self._body_format.body(encoded))
        outcome = status_meaning(answer.status)
        if outcome == "accepted":
            refused = self._results.rejected(answer, len(encoded))
            self._refusals.count_accepted(len(encoded) - len(refused))
            return unsendable + [muxly.Rejected(why, index=span.number(at)) for at, why in sorted(refused.items())]
        error = response_error(self._results.site, answer)
        if outcome not in ("refused", "too_large"):
            raise error
        if len(encoded) == 1:
            self._refusals.count_refused(error)
            return [*unsendable, muxly.Rejected(str(error), index=span.number(0))]
        if outcome == "too_large":
            self._too_large = min(span.size, self._too_large or span.size)
        return self._send_halves(span)

    def _send_halves(self, span: RecordSpan) -> Rejections:
        first, second = span.halves()
        return self._send_span(first) + self._send_span(second)


def _next_outcome(in_flight: deque[tuple[RecordSpan, Future[Rejections]]]) -> tuple[RecordSpan, Rejections]:
    span, future = in_flight.popleft()
    return span, future.result()


@contextlib.contextmanager
def _cancelled_on_error(in_flight: deque[tuple[RecordSpan, Future[Rejections]]]) -> Iterator[None]:
    """After an error nothing more is sent; what is on its way already is waited for."""
    try:
        yield
    finally:
        for _span, future in in_flight:
            future.cancel()


class _RefusalCounter:
    """Notices that the receiver refuses everything: then the set-up is wrong and not the records. Thread-safe."""

    def __init__(self, give_up_after: int, site: str, *, accepted: int) -> None:
        self._give_up_after, self._site = give_up_after, site
        self._lock = threading.Lock()
        self._accepted, self._refused = accepted, 0

    def count_accepted(self, count: int) -> None:
        with self._lock:
            self._accepted += count

    def count_refused(self, error: muxly.MuxlyError) -> None:
        """One record alone was refused.

        Raises:
            RouteError: So were many before it, and none was accepted.
        """
        with self._lock:
            self._refused += 1
            if self._accepted or not self._give_up_after or self._refused < self._give_up_after:
                return
        raise muxly.RouteError(
            f"{self._site} refused each of the first {self._refused} records, so probably it is not the records but "
            f"body, template or url that is wrong; if the records are, set give_up_after to 0. The last answer: {error}"
        )


_MULTI_STATUS = 207
_REASONS = ("reason", "error", "message", "detail")


def pointer_parts(pointer: str) -> list[str]:
    """The parts of a JSON pointer (RFC 6901); none of them names the whole document.

    Raises:
        ValueError: It is none.
    """
    if pointer and not pointer.startswith("/"):
        raise ValueError(
            f'{pointer!r} is not a JSON pointer; write one such as "/rejected", or "" for the whole answer'
        )
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


@frozen
class RecordResults:
    """Reads from an answer which records were not taken.

    Args:
        site: Scheme, host and port, for errors.
        rejected_at: JSON pointer to a list of rejected numbers, or objects with ``index``; None = the
            status speaks for all records.
        results_at: JSON pointer to the list of results in an answer 207.
    """

    site: str
    rejected_at: str | None = None
    results_at: str = ""

    def rejected(self, answer: HttpResponse, count: int) -> dict[int, str]:
        """The rejected records of a request by their place in it, each with the reason.

        Args:
            answer: One with a status 2xx.
            count: How many records were sent.

        Raises:
            RetryableError: A record is to be sent again; the whole request is.
            RouteError: The answer does not say it in the way that was configured.
        """
        if answer.status == _MULTI_STATUS:
            return self._of_results(answer, self._found(answer, self.results_at), count)
        if self.rejected_at is None or (answer.whole and not answer.body.strip()):
            return {}
        found = self._found(answer, self.rejected_at)
        return {} if found is None else self._of_list(answer, found, count)

    def _found(self, answer: HttpResponse, pointer: str) -> Any:
        if not answer.whole:
            raise self._unclear("is larger than answer_bytes or cannot be decoded")
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self._unclear(f"is not JSON: {answer.excerpt}") from None
        for part in pointer_parts(pointer):
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isascii() and part.isdigit() and len(part) < 9:
                found = found[int(part)] if int(part) < len(found) else None
            else:
                return None
        return found

    def _of_list(self, answer: HttpResponse, found: Any, count: int) -> dict[int, str]:
        if not isinstance(found, list):
            raise self._unclear(f"has no list at {self.rejected_at!r}")
        rejected: dict[int, str] = {}
        for entry in found:
            place = entry.get("index") if isinstance(entry, dict) else entry
            if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
                said = answer.shown(str(place))[:40]
                raise self._unclear(f"rejects {said!r}, and the request had the records 0 to {count - 1}")
            rejected[place] = self._reason(answer, entry)
        return rejected

    def _of_results(self, answer: HttpResponse, found: Any, count: int) -> dict[int, str]:
        if not isinstance(found, list) or len(found) != count:
            raise self._unclear(f"has no list of {count} results at {self.results_at!r}")
        rejected: dict[int, str] = {}
        for place, result in enumerate(found):
            status = result.get("status") if isinstance(result, dict) else result
            if isinstance(status, bool) or not isinstance(status, int):
                raise self._unclear(f"has a result without a status at {place}")
            if status_meaning(status) == "again":
                raise muxly.RetryableError(
                    f"{self.site} answered 207, and {status} for record {place} of the request",
                    retry_after=answer.retry_after,
                )
            if status_meaning(status) != "accepted":
                rejected[place] = f"{self._reason(answer, result)} ({status})"
        return rejected

    def _reason(self, answer: HttpResponse, entry: Any) -> str:
        texts = [entry[key] for key in _REASONS if isinstance(entry.get(key), str)] if isinstance(entry, dict) else []
        said = answer.shown(texts[0]) if texts else ""
        return f"{self.site} rejected the record{f': {said}' if said else ''}"

    def _unclear(self, problem: str) -> muxly.RouteError:
        return muxly.RouteError(
            f"{self.site} took a request, but its answer {problem}; look at rejected_at and results_at"
        )
