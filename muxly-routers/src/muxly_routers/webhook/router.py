"""The router ``webhook``: records as signed HTTP requests.

A request's ``webhook-id`` follows from the delivery and the place of its records in it, so that it is
the same in every try, also after a crash; a receiver that drops an id it has seen has each record once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

import muxly
from muxly_routers._deliveries import NonfiniteNotices
from muxly_routers._failures import needs
from muxly_routers._http.credentials import Basic, Tls
from muxly_routers._http.egress import Guard
from muxly_routers._templates import Template
from muxly_routers.webhook import options
from muxly_routers.webhook.options import Hmac
from muxly_routers.webhook.requests import SignedRequests, WebhookCredentials
from muxly_routers.webhook.sending import RecordResults

if TYPE_CHECKING:
    from muxly_routers._http.client import HttpClient
    from muxly_routers.webhook.bodies import BodyFormat, RecordEncoder, TemplateEncoder

__all__ = ["Basic", "Hmac", "Webhook"]

_THIS_MACHINE = re.compile(r"http://(localhost|127\.[0-9.]+|\[?::1\]?)(:[0-9]+)?")
# The host has no fields, so these lead to the same site as any others.
_SAMPLE_NAMES = {"stream": "s", "pipeline": "p", "route": "r"}
_positive = attrs.validators.gt(0)


class Webhook(muxly.Router):
    """Sends records to a URL, in signed requests."""

    promise: ClassVar[muxly.Promise] = "at_least_once"
    concurrency: ClassVar[int] = 4

    url: muxly.Secret = muxly.option(
        "Where to; {stream}, {pipeline} and {route} in its path or query become these names. Messages show no more "
        "than scheme, host and port."
    )
    method: Literal["POST", "PUT", "PATCH"] = muxly.option("HTTP method.", default="POST")
    body: Literal["array", "record", "ndjson"] = muxly.option(
        "A JSON array of records, one record, or a line of JSON for each.", default="array"
    )
    envelope: str | None = muxly.option(
        'Key of an object that holds the array: with items, the body is {"items": [...]}.',
        default=None,
        validator=options.check_envelope,
    )
    template: Any = muxly.option(
        "What is sent for each record instead of all its columns: a text or a JSON document with {column} in it.",
        default=None,
        validator=options.check_template,
    )
    decimals: Literal["string", "number"] = muxly.option(
        "Decimals as exact text, or as exact JSON numbers, which many receivers round.", default="string"
    )
    content_type: str | None = muxly.option(
        "Content-Type of the requests; default that of the body.",
        default=None,
        validator=attrs.validators.optional(options.check_text),
    )
    headers: dict[str, str] = muxly.option(
        "More headers; {stream}, {pipeline}, {route} and {delivery} in their values become these names.",
        factory=dict,
        validator=options.check_headers,
    )
    secret_headers: dict[str, muxly.Secret] = muxly.option(
        "More headers whose values are secrets, such as an API key.",
        factory=dict,
        validator=options.check_names,
    )
    bearer: muxly.Secret | None = muxly.option("Token for the header Authorization: Bearer.", default=None)
    basic: Basic | None = muxly.option(
        "User and password for the header Authorization: Basic.", default=None, validator=options.check_one_credential
    )
    signing_secrets: list[muxly.Secret] = muxly.option(
        "Secrets of Standard Webhooks, whsec_ and base64, newest first; while they are being changed, both: each "
        "request then has a signature of each.",
        factory=list,
    )
    hmac: Hmac | None = muxly.option("A signature of another kind.", default=None)
    tls: Tls = muxly.option("Certificates.", factory=Tls)
    max_records: int = muxly.option("Most records in a request.", default=500, validator=attrs.validators.ge(1))
    max_bytes: int = muxly.option(
        "Most bytes of a body; one record that is larger goes alone.", default=1024 * 1024, validator=_positive
    )
    max_in_flight: int = muxly.option(
        "Requests of a stream at the same time; 1 keeps the records in order.",
        default=1,
        validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(64)),
    )
    requests_per_second: float | None = muxly.option(
        "Most requests a second to this site, together with all routes of this process that have the same limit.",
        default=None,
        validator=attrs.validators.optional(_positive),
    )
    rejected_at: str | None = muxly.option(
        "JSON pointer to a list of rejected records in an answer 2xx: their numbers in the request from 0, or objects "
        "with index and reason.",
        default=None,
        validator=options.check_pointer,
    )
    results_at: str = muxly.option(
        "JSON pointer to the list of results in an answer 207, one with a status for each record.",
        default="",
        validator=options.check_pointer,
    )
    give_up_after: int = muxly.option(
        "Records refused one by one with 400, 413 or 422, with none accepted before them in the delivery, that stop "
        "the route, because then the set-up is wrong and not the records; 0 = never.",
        default=25,
        validator=attrs.validators.ge(0),
    )
    guard: bool = muxly.option(
        "Whether to connect to public addresses only, and without a proxy; always so where an API user wrote the "
        "configuration.",
        default=False,
    )
    connect_seconds: float = muxly.option("Limit for a connection.", default=10.0, validator=_positive)
    read_seconds: float = muxly.option(
        "Limit for silence while a request or an answer is on its way.", default=20.0, validator=_positive
    )
    total_seconds: float = muxly.option("Limit for a request and its whole answer.", default=30.0, validator=_positive)
    answer_bytes: int = muxly.option(
        "Most bytes of an answer that are read, also after decompression.", default=1024 * 1024, validator=_positive
    )

    _client: HttpClient | None = None

    def open(self, run: muxly.Run) -> None:
        """Look at the URL, the certificates and the secrets; nothing is connected to yet."""
        with needs("webhook"):
            from muxly_routers._http.client import HttpClient, HttpLimits
        self._run = run
        self._url = options.url_template(self.url)
        self._credentials = WebhookCredentials(
            signing_secrets=self.signing_secrets,
            hmac=self.hmac,
            secret_headers=self.secret_headers,
            bearer=self.bearer,
            basic=self.basic,
        )
        self._signer, self._secret_headers = self._credentials.signer(), self._credentials.headers()
        self._nonfinite = NonfiniteNotices(run, hint="")
        self._client = HttpClient(
            muxly.Secret(options.filled_url(self._url, _SAMPLE_NAMES)),
            limits=HttpLimits(
                connect_seconds=self.connect_seconds,
                read_seconds=self.read_seconds,
                total_seconds=self.total_seconds,
                answer_bytes=self.answer_bytes,
                connections=self.max_in_flight,
            ),
            tls=self.tls,
            guard=Guard.of_machine(on=self.guard or run.guarded),
            stopping=lambda: run.stopping,
        )
        self._site = self._client.site
        self._bucket = self._shared_bucket(run)

    def check(self) -> Iterable[muxly.Notice]:
        """Check that the host has an address, takes a connection, and shows a valid certificate; nothing is sent."""
        assert self._client is not None
        try:
            self._client.probe()
        except (muxly.RetryableError, muxly.RouteError) as error:
            yield muxly.Notice("unreachable", f"url: {error}", level="error")
        plain = self._site.startswith("http://") and not _THIS_MACHINE.fullmatch(self._site)
        if plain and self._secret_headers:
            yield muxly.Notice(
                "not_encrypted", f"url: credentials go to {self._site} for everyone on the way to read; use https"
            )

    def deliver(self, delivery: muxly.Delivery) -> muxly.Receipt:
        """Send the records; see the module for what a repeat looks like."""
        # Both load pyarrow, which a pipeline with another router does not need.
        from muxly_routers.webhook.bodies import after, spans
        from muxly_routers.webhook.sending import DeliverySender

        encoder, body_format = self._encoder(delivery), self._body_format()
        # Always cut from the first record on: cutting from the middle would give other requests, with other ids.
        cut = spans(
            (record for batch in delivery.all_batches() for record in encoder.encode(batch)),
            most_records=1 if self.body == "record" else self.max_records,
            most_bytes=self.max_bytes,
            overhead=body_format.overhead,
        )
        sender = DeliverySender(
            delivery,
            send=self._requests(delivery).send,
            body_format=body_format,
            results=RecordResults(self._site, self.rejected_at, self.results_at),
            give_up_after=self.give_up_after,
            in_flight=self.max_in_flight,
        )
        rejected = sender.send_all(part for span in cut for part in after(span, delivery.delivered))
        self._nonfinite.report(delivery.stream.name, encoder.nonfinite)
        return muxly.Receipt(rejected)

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _shared_bucket(self, run: muxly.Run) -> muxly.RateBucket | None:
        rate = self.requests_per_second
        if rate is None:
            return None
        return run.shared(f"webhook {self._site} {rate}", lambda: muxly.RateBucket(rate))

    def _encoder(self, delivery: muxly.Delivery) -> RecordEncoder | TemplateEncoder:
        from muxly_routers._templates import check_fields
        from muxly_routers.webhook.bodies import RecordEncoder, TemplateEncoder

        if self.template is None:
            return RecordEncoder(self.decimals)
        template = Template.parse(self.template)
        check_fields(template, delivery.schema, delivery.stream.name)
        return TemplateEncoder(template, self.decimals, as_text=self._is_text)

    @property
    def _is_text(self) -> bool:
        """Whether a body is the rendered template itself rather than JSON."""
        return self.body == "record" and isinstance(self.template, str)

    def _body_format(self) -> BodyFormat:
        import json

        from muxly_routers.webhook.bodies import BodyFormat

        if self.envelope is None:
            return BodyFormat(self.body)
        return BodyFormat("array", f"{{{json.dumps(self.envelope)}:".encode(), b"}")

    def _requests(self, delivery: muxly.Delivery) -> SignedRequests:
        assert self._client is not None
        facts = {"stream": delivery.stream.name, "pipeline": self._run.pipeline, "route": self._run.route or ""}
        headers = {
            "content-type": self._content_type(),
            **self._secret_headers,
            **options.filled_headers(self.headers, {**facts, "delivery": delivery.id}),
        }
        url = options.filled_url(self._url, facts)
        return SignedRequests(
            client=self._client,
            method=self.method,
            url=url,
            headers=headers,
            signer=self._signer,
            run=self._run,
            bucket=self._bucket,
            redaction=self._credentials.redaction(url, self.url),
        )

    def _content_type(self) -> str:
        if self.content_type is not None:
            return self.content_type
        if self._is_text:
            return "text/plain; charset=utf-8"
        return "application/x-ndjson" if self.body == "ndjson" else "application/json"


@muxly.hookimpl
def muxly_router() -> type[Webhook]:
    """The router of this module."""
    return Webhook
