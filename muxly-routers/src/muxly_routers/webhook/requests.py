"""Requests of the router ``webhook``: credentials, signatures and the rate limit.

Signatures are functions of values without a clock: Standard Webhooks (https://www.standardwebhooks.com), and
HMAC in a header of its own, as GitHub, Stripe and others do it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

import muxly
from muxly_routers._http.credentials import Basic, basic_authorization
from muxly_routers._http.messages import HttpRequest, HttpResponse, Redaction
from muxly_routers.webhook.options import Hmac, revealed

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient

__all__ = [
    "Algorithm",
    "HmacSignature",
    "RequestSigner",
    "SignedRequests",
    "WebhookCredentials",
    "key_of",
    "standard_signature",
]

_TOO_MANY = 429


@frozen(kw_only=True)
class RequestSigner:
    """Signs requests.

    Args:
        keys: Of Standard Webhooks, newest first; none = not so.
        hmac: A signature of another kind.
        hmac_header: Its header.
        timestamp_header: Where that kind has the time.
        id_header: Where that kind has the id.
    """

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    hmac: HmacSignature | None = field(default=None, repr=False)
    hmac_header: str = ""
    timestamp_header: str | None = None
    id_header: str | None = None

    def headers(self, id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The headers of a request that belong to its identity and its signatures."""
        found = {"webhook-id": id, "webhook-timestamp": str(timestamp), "idempotency-key": id}
        if self.keys:
            found["webhook-signature"] = standard_signature(id, timestamp, body, self.keys)
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
        headers: Of every request, names in lower case.
        signer: Adds headers to each.
        run: Asked before each request whether it stops.
        bucket: Keeps the rate; None = there is none.
        redaction: Secrets that an answer may repeat.
        clock: Seconds from 1970.
    """

    client: HttpClient
    method: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    signer: RequestSigner
    run: muxly.Run
    bucket: muxly.RateBucket | None = None
    redaction: Redaction = field(factory=Redaction)
    clock: Callable[[], float] = time.time

    def send(self, id: str, body: bytes) -> HttpResponse:
        """Make the request of that id.

        Raises:
            RetryableError: No answer; the request may have been acted on.
            RouteError: The site must not or cannot be talked to.
            StoppedError: The run was asked to stop.
        """
        self.run.sleep(0)
        if self.bucket is not None:
            self.bucket.take(self.run.sleep)
        added = self.signer.headers(id, int(self.clock()), body)
        answer = self.client.send(
            HttpRequest(
                method=self.method, url=self.url, headers={**self.headers, **added}, body=body, redaction=self.redaction
            )
        )
        if self.bucket is not None and answer.status == _TOO_MANY:
            # What this route was told holds for all that share its rate.
            self.bucket.pause(answer.retry_after or 0)
        return answer


# What the specification asks of a key.
_SHORTEST_KEY, _LONGEST_KEY = 24, 64

Algorithm = Literal["sha256", "sha512"]
Digits = Literal["hex", "base64"]
Signed = Literal["body", "timestamp.body", "id.timestamp.body"]


def key_of(secret: muxly.Secret) -> bytes:
    """The key in a Standard Webhooks secret: ``whsec_`` and base64.

    Raises:
        ValueError: It is none; neither the message nor this frame shows it.
    """
    size = len(_decoded(secret.reveal()))
    if not size:
        raise ValueError("a secret of Standard Webhooks is whsec_ and base64")
    if not _SHORTEST_KEY <= size <= _LONGEST_KEY:
        raise ValueError(
            f"a secret of Standard Webhooks holds {_SHORTEST_KEY} to {_LONGEST_KEY} bytes, not {size}; another kind of "
            "secret belongs in hmac"
        )
    return _decoded(secret.reveal())


def _decoded(secret: str) -> bytes:
    """Its bytes; none if it is no base64."""
    try:
        return base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def standard_signature(id: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> str:
    """The header ``webhook-signature``: one signature for each key, so that a receiver may know either.

    Args:
        id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, in seconds from 1970.
        body: The bytes of the body.
        keys: Newest first.
    """
    content = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}" for key in keys)


@frozen(kw_only=True)
class HmacSignature:
    """A signature in one header, as GitHub, Stripe and others have it.

    Args:
        key: Of the newest secret.
        algorithm: Of the digest.
        encoding: How the digest is written.
        signs: What is signed.
        prefix: Stands before the digest, such as ``"sha256="``.
    """

    key: bytes
    algorithm: Algorithm
    encoding: Digits
    signs: Signed
    prefix: str

    def header(self, id: str, timestamp: int, body: bytes) -> str:
        """The value of the header."""
        parts = {"body": body, "timestamp": str(timestamp).encode(), "id": id.encode()}
        content = b".".join(parts[name] for name in self.signs.split("."))
        digest = hmac.digest(self.key, content, getattr(hashlib, self.algorithm))
        return self.prefix + (digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode())


@frozen(kw_only=True)
class WebhookCredentials:
    """Everything that proves to a receiver who sends.

    Args:
        signing_secrets: Of Standard Webhooks, newest first.
        hmac: A signature of another kind.
        secret_headers: Headers whose values are secrets, by name.
        bearer: The token of ``Authorization: Bearer``.
        basic: The user and password of ``Authorization: Basic``.
    """

    signing_secrets: Sequence[muxly.Secret] = ()
    hmac: Hmac | None = None
    secret_headers: Mapping[str, muxly.Secret] = field(factory=dict)
    bearer: muxly.Secret | None = None
    basic: Basic | None = None

    def signer(self) -> RequestSigner:
        """Sign requests with these secrets.

        Raises:
            ConfigurationError: A secret is not of the kind that it should be.
        """
        try:
            keys = tuple(key_of(secret) for secret in self.signing_secrets)
        except ValueError as error:
            raise muxly.ConfigurationError(str(error), path=("signing_secrets",)) from None
        if self.hmac is None:
            return RequestSigner(keys=keys)
        signature = HmacSignature(
            key=self.hmac.secret.reveal().encode(),
            algorithm=self.hmac.algorithm,
            encoding=self.hmac.encoding,
            signs=self.hmac.signs,
            prefix=self.hmac.prefix,
        )
        return RequestSigner(
            keys=keys,
            hmac=signature,
            hmac_header=self.hmac.header,
            timestamp_header=self.hmac.timestamp_header,
            id_header=self.hmac.id_header,
        )

    def headers(self) -> dict[str, str]:
        """The secret headers, by names in lower case.

        Raises:
            ConfigurationError: A secret cannot be the value of a header.
        """
        secrets = self.secret_headers.items()
        return {name.lower(): revealed(secret, "secret_headers", name) for name, secret in secrets} | (
            self._authorization()
        )

    def _authorization(self) -> dict[str, str]:
        if self.bearer is not None:
            return {"authorization": f"Bearer {revealed(self.bearer, 'bearer')}"}
        if self.basic is not None:
            return {"authorization": basic_authorization(self.basic.user, self.basic.password)}
        return {}

    def redaction(self, url: str, template: muxly.Secret) -> Redaction:
        """Everything secret that an answer may repeat.

        Args:
            url: Where a request goes.
            template: The URL as it was configured, with fields in its path or query.
        """
        secrets = [*self.signing_secrets, *self.secret_headers.values(), self.bearer]
        secrets += [None if self.basic is None else self.basic.password]
        secrets += [None if self.hmac is None else self.hmac.secret]
        texts = [secret.reveal().strip() for secret in secrets if secret is not None]
        texts += [value.partition(" ")[2] for value in self._authorization().values()]
        return Redaction.of_request(url, template, texts)
