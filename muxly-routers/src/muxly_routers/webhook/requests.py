"""One request: its headers, its signatures, and its turn under the rate limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import field, frozen

from muxly_routers._http.hidden import Redaction
from muxly_routers._http.outgoing import HttpRequest
from muxly_routers.webhook import signatures

if TYPE_CHECKING:
    import muxly
    from muxly_routers._http.answer import HttpResponse
    from muxly_routers._http.client import HttpClient

__all__ = ["SignedRequests", "RequestSigner"]

_TOO_MANY = 429


@frozen(kw_only=True)
class RequestSigner:
    """How requests are signed.

    Args:
        keys: Of Standard Webhooks, newest first; none = not so.
        hmac: A signature of another kind.
        hmac_header: Its header.
        timestamp_header: Where that kind has the time.
        id_header: Where that kind has the id.
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    hmac: signatures.HmacSignature | None = field(default=None, repr=False)
    hmac_header: str = ""
    timestamp_header: str | None = None
    id_header: str | None = None

    def headers(self, id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The headers of a request that belong to its identity and its signatures."""
        found = {"webhook-id": id, "webhook-timestamp": str(timestamp), "idempotency-key": id}
        if self.keys:
            found["webhook-signature"] = signatures.standard(id, timestamp, body, self.keys)
        if self.hmac is not None:
            found[self.hmac_header.lower()] = self.hmac.header(id, timestamp, body)
            if self.timestamp_header:
                found[self.timestamp_header.lower()] = str(timestamp)
            if self.id_header:
                found[self.id_header.lower()] = id
        return found


@frozen(kw_only=True)
class SignedRequests:
    """Sends the requests of one delivery; thread-safe.

    Args:
        client: Of the site.
        method: Such as POST.
        url: Where to.
        headers: Of every request, names in small letters.
        signing: What is added for each.
        run: Asked before each request whether it stops.
        bucket: Keeps the rate; None = there is none.
        hidden: Secrets that an answer may repeat.
        clock: Seconds from 1970.
    """

    client: HttpClient
    method: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    signing: RequestSigner
    run: muxly.Run
    bucket: muxly.RateBucket | None = None
    hidden: Redaction = field(factory=Redaction)
    clock: Callable[[], float] = time.time

    def send(self, id: str, body: bytes) -> HttpResponse:
        """Make the request of that id.

        Raises:
            RetryableError: No answer; the request may have been acted on.
            RouteError: The site must not or cannot be spoken with.
            StoppedError: The run was asked to stop.
        """
        self.run.sleep(0)
        if self.bucket is not None:
            self.bucket.take(self.run.sleep)
        added = self.signing.headers(id, int(self.clock()), body)
        answer = self.client.send(
            HttpRequest(
                method=self.method, url=self.url, headers={**self.headers, **added}, body=body, hidden=self.hidden
            )
        )
        if self.bucket is not None and answer.status == _TOO_MANY:
            # What this route was told holds for all that share its rate.
            self.bucket.pause(answer.retry_after or 0)
        return answer
