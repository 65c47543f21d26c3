"""Requests and responses as values.

A response keeps the secrets of its request, because servers repeat what they were asked: a page that says
that nothing is there names the URL. Every text from outside goes through its redaction before it is shown.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

import muxly

__all__ = [
    "HttpRequest",
    "HttpResponse",
    "LONGEST_SECONDS",
    "StatusMeaning",
    "Redaction",
    "response_error",
    "status_meaning",
    "parse_retry_after",
]

# Shorter texts are in others by chance.
_SHORTEST = 8
_LOOKED_AT_CHARACTERS, _SHOWN_CHARACTERS = 2000, 200
_BETWEEN_PARTS = re.compile(r"[/?&=;#]|\{[^{}]*\}")


@frozen
class Redaction:
    """Texts that no message may show, longest first."""

    _texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redaction:
        """Hide these, in each form in which a page or a JSON document spells them; not what is very short."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
        return cls(tuple(sorted(forms, key=lambda text: (-len(text), text))))

    def shown(self, text: str) -> str:
        """The beginning of a text from outside, in one printable line, with stars in place of the secrets."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        printable = "".join(letter if letter.isprintable() else " " for letter in text[:_LOOKED_AT_CHARACTERS])
        return " ".join(printable.split())[:_SHOWN_CHARACTERS]

    @classmethod
    def of_request(cls, url: str, template: muxly.Secret, secrets: Iterable[str] = ()) -> Redaction:
        """Hide everything of a URL that follows its host, and these secrets.

        Args:
            url: Where the request goes.
            template: The URL as it was configured; its parts are hidden one by one, without its fields.
            secrets: More texts, such as tokens.
        """
        return cls.of([*secrets, *_paths_of(url), *_parts_of(template.reveal())])


def _paths_of(url: str) -> list[str]:
    """The path of a URL, with its query and without."""
    path = "/" + url.partition("://")[2].partition("/")[2]
    return [path, path.partition("?")[0]]


def _parts_of(url: str) -> list[str]:
    """The parts of a URL's path and query, without the fields of a template."""
    return _BETWEEN_PARTS.split(_paths_of(url)[0])


def _forms(text: str) -> set[str]:
    return {text, unquote(text), html.escape(text), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


@frozen(kw_only=True)
class HttpRequest:
    """A request to be made. Its ``repr`` shows no more than the method: an address may be a secret.

    Args:
        method: Such as POST.
        url: Where to.
        headers: By name.
        body: The content; in parts only with a header ``Content-Length``.
        redaction: Replaces the secrets that the response may repeat.
    """

    method: str = "POST"
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | Iterable[bytes] = field(repr=False)
    redaction: Redaction = field(factory=Redaction)


@frozen
class HttpResponse:
    """A response, read to its end or to a limit.

    Args:
        status: The HTTP status.
        headers: By name in lower case.
        body: The content without its coding, at most ``answer_bytes``.
        whole: Whether the body is all of it, and could be decoded.
        redaction: Replaces the secrets that it may repeat.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True
    redaction: Redaction = field(factory=Redaction)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks us to wait, 0 to 3600; None = it does not say."""
        return parse_retry_after(self.headers.get("retry-after"))

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    @property
    def excerpt(self) -> str:
        """The beginning of the body in one line, for an error's message."""
        return self.shown(self.text)

    def shown(self, text: str) -> str:
        """A text out of the body in one line, for an error's message."""
        return self.redaction.shown(text)


LONGEST_SECONDS = 3600.0
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_retry_after(header: str | None, *, now: datetime | None = None) -> float | None:
    """The wait that a ``Retry-After`` asks for.

    Args:
        header: Its value, if there is one.
        now: For dates; default the present.

    Returns:
        Seconds from 0 to one hour; None where there is no header, or nothing to be made of it.
    """
    text = (header or "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_SECONDS)
    if not text or len(text) > 100:
        return None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()), LONGEST_SECONDS)


StatusMeaning = Literal["accepted", "refused", "too_large", "again", "stop"]

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


def status_meaning(status: int) -> StatusMeaning:
    """Tell what a status means for the records that were sent."""
    if 200 <= status < 300:
        return "accepted"
    if status in _AGAIN or status >= 500:
        return "again"
    if status == 413:
        return "too_large"
    return "refused" if status in (400, 422) else "stop"


def response_error(site: str, answer: HttpResponse) -> muxly.MuxlyError:
    """The error of an answer that was not 2xx.

    Args:
        site: Scheme, host and port.
        answer: The response; the beginning of its text goes into the message.
    """
    excerpt = f": {answer.excerpt}" if answer.excerpt else ""
    outcome = status_meaning(answer.status)
    if outcome == "again":
        return muxly.RetryableError(f"{site} answered {answer.status}{excerpt}", retry_after=answer.retry_after)
    if outcome in ("refused", "too_large"):
        return muxly.RejectedError(f"{site} answered {answer.status}{excerpt}")
    if 300 <= answer.status < 400:
        return muxly.RouteError(
            f"{site} answered {answer.status} and wants the request at {_location(answer)}; redirects are not "
            "followed: if that is right, name it in url"
        )
    step = _NEXT_STEP.get(answer.status, "look at the URL and at what it expects")
    return muxly.RouteError(f"{site} answered {answer.status}: {step}{excerpt}")


def _location(answer: HttpResponse) -> str:
    """The target of a redirect, without path and query, which may hold secrets."""
    try:
        parts = urlsplit(answer.headers.get("location", ""))
        host, port = parts.hostname, parts.port
    except ValueError:
        return "something that is not a URL"
    if not host or not host.isprintable():
        return "its own host"
    return f"{parts.scheme or 'http(s)'}://{host[:100]}{'' if port is None else f':{port}'}"
