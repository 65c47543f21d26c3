"""What a status means for what was sent: accepted, worth another try, a bad record, or a wrong set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import muxly

if TYPE_CHECKING:
    from muxly_routers._http.answer import HttpResponse

__all__ = ["Meaning", "error_of", "meaning"]

Meaning = Literal["accepted", "refused", "too_large", "again", "stop"]

# 409: a request with the same Idempotency-Key is still worked on (draft-ietf-httpapi-idempotency-key-header).
_AGAIN = frozenset({408, 409, 425, 429})
_NEXT_STEP = {
    401: "the credentials are missing or wrong; look at bearer, basic, secret_headers and signing",
    403: "the credentials do not allow it; ask whoever runs the receiver",
    404: "nothing is at that URL; look at its path",
    405: "the method is not allowed there; look at the URL and at method",
    410: "the receiver is gone for good; remove the route or give it another URL",
    415: "the receiver does not take that content type; look at body and content_type",
}


def meaning(status: int) -> Meaning:
    """What to do after an answer with that status."""
    if 200 <= status < 300:
        return "accepted"
    if status in _AGAIN or status >= 500:
        return "again"
    if status == 413:
        return "too_large"
    return "refused" if status in (400, 422) else "stop"


def error_of(place: str, answer: HttpResponse) -> muxly.MuxlyError:
    """The error of an answer that was not 2xx.

    Args:
        place: The site, as it may be shown.
        answer: What it said; the beginning of its text goes into the message.
    """
    said = f": {answer.excerpt}" if answer.excerpt else ""
    found = meaning(answer.status)
    if found == "again":
        return muxly.RetryableError(f"{place} answered {answer.status}{said}", retry_after=answer.retry_after)
    if found in ("refused", "too_large"):
        return muxly.RejectedError(f"{place} answered {answer.status}{said}")
    if 300 <= answer.status < 400:
        return muxly.RouteError(
            f"{place} answered {answer.status} and wants the request at {_location(answer)}; redirects are not "
            "followed: if that is right, name it in url"
        )
    step = _NEXT_STEP.get(answer.status, "look at the URL and at what it expects")
    return muxly.RouteError(f"{place} answered {answer.status}: {step}{said}")


def _location(answer: HttpResponse) -> str:
    """Where a redirect leads, without path and query, which may hold secrets."""
    try:
        parts = urlsplit(answer.headers.get("location", ""))
        host, port = parts.hostname, parts.port
    except ValueError:
        return "a place that is no URL"
    if not host or not host.isprintable():
        return "its own host"
    return f"{parts.scheme or 'http(s)'}://{host[:100]}{'' if port is None else f':{port}'}"
