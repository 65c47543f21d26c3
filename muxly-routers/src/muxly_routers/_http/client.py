"""Requests with a deadline, to checked addresses, whose answers are read up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2
from attrs import evolve, field, frozen

import muxly
from muxly_routers._http import content, retry_after
from muxly_routers._http.egress import Guard, Lookup
from muxly_routers._http.hidden import Hidden
from muxly_routers._http.network import Deadline, Network, TlsRefusedError
from muxly_routers._http.tls import Tls, context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from muxly_routers._http.outgoing import Outgoing

__all__ = ["Answer", "Client", "Limits", "checked_url", "site"]

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


@frozen
class Answer:
    """What a server answered.

    Args:
        status: The HTTP status.
        headers: By name in small letters.
        body: The content without its coding, at most ``answer_bytes``.
        whole: Whether the body is all of it, and could be decoded.
        hidden: What of it no message may show.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True
    hidden: Hidden = field(factory=Hidden)

    @property
    def retry_after(self) -> float | None:
        """How many seconds the server asks us to wait, 0 to one hour; None = it does not say."""
        return retry_after.seconds(self.headers.get("retry-after"))

    @property
    def excerpt(self) -> str:
        """The beginning of the body in one line, for an error's message."""
        return self.shown(self.body.decode("utf-8", "replace"))

    def shown(self, said: str) -> str:
        """A text out of the body in one line, for an error's message."""
        return self.hidden.shown(said)


def site(url: str | httpx2.URL) -> str:
    """Scheme, host and port of a URL: what may be shown of one whose path may be a secret."""
    parts = httpx2.URL(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.host}{port}"


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
        self._proxy = None if guard.on else _proxy(self._url)
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
                return evolve(self._answer(response), hidden=outgoing.hidden)
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

    def _answer(self, response: httpcore2.Response) -> Answer:
        limit = self._limits.answer_bytes
        raw, cut = _up_to(response.iter_stream(), limit)
        headers = dict(httpx2.Headers(response.headers).items())
        try:
            body, more = content.decoded(raw, headers.get("content-encoding", ""), limit)
        except content.UnreadableAnswerError:
            body, more = b"", True
        return Answer(response.status, headers, body, whole=not (cut or more))

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


def checked_url(url: str | muxly.Secret) -> httpx2.URL:
    """A URL that requests can be made to.

    Raises:
        ConfigurationError: It is none; neither the message nor this frame shows it, for it may be a secret.
    """
    problem = _problem(_text(url))
    if problem is not None:
        raise muxly.ConfigurationError(problem, path=("url",))
    return httpx2.URL(_text(url))


def _text(url: str | muxly.Secret) -> str:
    return url if isinstance(url, str) else url.reveal()


def _problem(url: str) -> str | None:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        return f"this is no URL: {error}"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return "this is no URL that begins with http:// or https:// and names a host"
    if parsed.userinfo:
        return "a user or password in the URL is sent nowhere and shows in logs; use basic or bearer"
    return None


def _proxy(url: httpx2.URL) -> httpcore2.Proxy | None:
    """The proxy that the environment names for that URL, as curl and most programs take it."""
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    if not found or proxy_bypass(f"{url.host}:{url.port or ''}".rstrip(":")):
        return None
    proxy = httpx2.URL(found if "://" in found else f"http://{found}")
    if proxy.scheme not in ("http", "https"):
        raise muxly.ConfigurationError(
            f"the environment names a proxy with {proxy.scheme}://, which is not supported; use one with http:// or "
            f"https://, or put {url.host} into NO_PROXY",
            path=("url",),
        )
    auth = (proxy.username, proxy.password) if proxy.userinfo else None
    return httpcore2.Proxy(str(proxy.copy_with(userinfo=b"")), auth=auth)


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
    return muxly.RetryableError(f"{place}: {said}")
