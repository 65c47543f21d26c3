"""Requests with a deadline, to checked addresses, whose answers are read up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpcore2
import httpx2
from attrs import frozen

import muxly
from muxly_routers import _failures
from muxly_routers._http import content
from muxly_routers._http.answer import Answer
from muxly_routers._http.egress import Guard, Lookup
from muxly_routers._http.hidden import Hidden
from muxly_routers._http.network import Deadline, Network, TlsRefusedError
from muxly_routers._http.tls import Tls, context
from muxly_routers._http.urls import checked_url, proxy_of, site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muxly_routers._http.outgoing import Outgoing

__all__ = ["Client", "Limits"]

# Many servers end idle connections after a minute; one that they end just as we use it costs a repeat.
_IDLE_SECONDS = 30.0
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, httpcore2.TimeoutException)


@frozen(kw_only=True)
class Limits:
    """What a request may take.

    Args:
        connect_seconds: For a connection and its TLS handshake, each.
        read_seconds: Between two pieces of the answer, or of the request.
        total_seconds: For the whole request, from its beginning to the end of the answer.
        answer_bytes: Most bytes of an answer's content, also after decompression.
        connections: Most requests at the same time.
        grace_seconds: How long an answer is waited for when the run is stopping.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    total_seconds: float = 60.0
    answer_bytes: int = 1024 * 1024
    connections: int = 1
    grace_seconds: float = 5.0


class Client:
    """Speaks with one site; connections are kept and used again. Thread-safe.

    Attributes:
        site: Scheme, host and port, which may be shown.

    Args:
        url: Any URL of the site; a ``Secret`` where it may not be shown.
        limits: What a request may take.
        tls: Certificates.
        guard: What may be connected to. A guarded client uses no proxy of the environment.
        lookup: Resolves names; default the system's resolver.
        stopping: Whether the run is stopping.

    Raises:
        ConfigurationError: The URL or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str | muxly.Secret,
        *,
        limits: Limits | None = None,
        tls: Tls | None = None,
        guard: Guard | None = None,
        lookup: Lookup | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits, guard = limits or Limits(), guard or Guard()
        self._url = checked_url(url)
        # Reading all authorities takes longer than a request: only where there is TLS, or a mistake to find.
        self._context = context(tls or Tls()) if self._url.scheme == "https" or tls not in (None, Tls()) else None
        self.site = site(self._url)
        self._deadline = Deadline(stopping, self._limits.grace_seconds)
        self._network = Network(guard, self._deadline, lookup)
        self._proxy = None if guard.on else proxy_of(self._url)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=self._context,
            proxy=self._proxy,
            max_connections=self._limits.connections,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._network,
        )

    def send(self, outgoing: Outgoing) -> Answer:
        """Make a request and read the answer. Redirects are not followed, cookies are not kept.

        Raises:
            RetryableError: No answer, or not in time; whether the request was acted on is not known.
            RouteError: The site must not or cannot be spoken with: its address or its certificate.
        """
        self._deadline.start(self._limits.total_seconds)
        try:
            response = self._pool.handle_request(self._request(outgoing))
            try:
                return self._answer(response, outgoing.hidden)
            finally:
                response.close()
        except _FAILURES as error:
            failure = _failure(self.site, error, outgoing.hidden)
        raise failure  # without what the library said, which may quote what a server sends back

    def _request(self, outgoing: Outgoing) -> httpcore2.Request:
        """The request as the pool takes it; httpx2's own client would write the whole URL into the log."""
        # White space around a value is no part of it (RFC 9110, section 5.5).
        given = {name.lower(): value.strip(" \t") for name, value in outgoing.headers.items()}
        # Answers are read for their status and a few numbers: not worth a decompressor's risk.
        headers = {"user-agent": "muxly", "accept-encoding": "identity", **given}
        built = httpx2.Request(outgoing.method, outgoing.url, headers=headers, content=outgoing.body)
        url, limits = built.url, self._limits
        return httpcore2.Request(
            built.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=built.headers.raw,
            content=outgoing.body,
            extensions={
                "timeout": {
                    "connect": limits.connect_seconds,
                    "read": limits.read_seconds,
                    "write": limits.read_seconds,
                    "pool": limits.total_seconds,
                }
            },
        )

    def _answer(self, response: httpcore2.Response, hidden: Hidden) -> Answer:
        limit = self._limits.answer_bytes
        raw, cut = _up_to(response.iter_stream(), limit)
        headers = dict(httpx2.Headers(response.headers).items())
        try:
            body, more = content.decoded(raw, headers.get("content-encoding", ""), limit)
        except content.UnreadableAnswerError:
            body, more = b"", True
        return Answer(response.status, headers, body, whole=not (cut or more), hidden=hidden)

    def probe(self) -> None:
        """Connect, and go through the TLS handshake, without any request; through a proxy, only to it.

        Raises:
            RetryableError: Nobody answers there now.
            RouteError: The site must not or cannot be spoken with.
        """
        url = self._url if self._proxy is None else httpx2.URL(str(self._proxy_url()))
        port = url.port or (443 if url.scheme == "https" else 80)
        self._deadline.start(self._limits.total_seconds)
        try:
            stream = self._network.connect_tcp(url.host, port, self._limits.connect_seconds)
            try:
                if url.scheme == "https":
                    known = self._context or context(Tls())
                    stream = stream.start_tls(known, url.host, self._limits.connect_seconds)
            finally:
                stream.close()
        except _FAILURES as error:
            raise _failure(site(url), error, Hidden()) from error

    def _proxy_url(self) -> httpx2.URL:
        assert self._proxy is not None
        target = self._proxy.url
        return httpx2.URL(scheme=target.scheme.decode(), host=target.host.decode(), port=target.port)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _up_to(pieces: Iterator[bytes], limit: int) -> tuple[bytes, bool]:
    """What came, up to the limit, and whether there was more; the rest is never read."""
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > limit:
            return bytes(found[:limit]), True
    return bytes(found), False


def _failure(place: str, error: Exception, hidden: Hidden) -> muxly.MuxlyError:
    """What a failed request means for the delivery."""
    if isinstance(error, TlsRefusedError):
        return muxly.RouteError(f"{place}: {error}")
    said = hidden.shown(str(error)) or type(error).__name__
    if isinstance(error, httpcore2.LocalProtocolError):
        return muxly.RouteError(f"{place}: the request cannot be sent: {said}")
    return muxly.RetryableError(f"{place}: {_failures.with_next_step(said)}")
