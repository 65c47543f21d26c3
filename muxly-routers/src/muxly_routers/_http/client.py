"""A client whose requests have a deadline, go to checked addresses, and read answers up to a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpcore2
import httpx2
from attrs import frozen

import muxly
from muxly_routers import _failures
from muxly_routers._http.credentials import Tls, tls_context
from muxly_routers._http.egress import Guard, Lookup
from muxly_routers._http.messages import HttpRequest, HttpResponse, Redaction
from muxly_routers._http.network import Deadline, GuardedNetwork, TlsRefusedError, checked_url, proxy_of, site

__all__ = ["ExchangeError", "HttpClient", "HttpLimits", "UnreadableContentError", "decoded"]

# Many servers end idle connections after a minute; one that they end just as we use it costs a repeat.
_IDLE_SECONDS = 30.0
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, httpcore2.TimeoutException)


@frozen(kw_only=True)
class HttpLimits:
    """Limits of a request.

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


class ExchangeError(Exception):
    """A request to which no whole answer came.

    Args:
        cause: The error of the library; its text may quote what the server sent.
        sent: Whether anything of the request may have reached the server, beyond a proxy's CONNECT.
    """

    def __init__(self, cause: Exception, *, sent: bool) -> None:
        super().__init__(str(cause))
        self.cause, self.sent = cause, sent


class HttpClient:
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
        limits: HttpLimits | None = None,
        tls: Tls | None = None,
        guard: Guard | None = None,
        lookup: Lookup | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits, guard = limits or HttpLimits(), guard or Guard()
        self._url = checked_url(url)
        # Reading all authorities takes longer than a request: only where there is TLS, or a mistake to find.
        self._context = tls_context(tls or Tls()) if self._url.scheme == "https" or tls not in (None, Tls()) else None
        self.site = site(self._url)
        self._deadline = Deadline(stopping, self._limits.grace_seconds)
        self._network = GuardedNetwork(guard, self._deadline, lookup)
        self._proxy = None if guard.on else proxy_of(self._url)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=self._context,
            proxy=self._proxy,
            max_connections=self._limits.connections,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._network,
        )

    def send(self, request: HttpRequest) -> HttpResponse:
        """Make a request and read the answer. Redirects are not followed, cookies are not kept.

        Raises:
            RetryableError: No answer, or not in time; whether the request was acted on is not known.
            RouteError: The site must not or cannot be talked to: its address or its certificate.
        """
        try:
            return self.exchange(request)
        except ExchangeError as error:
            failure = _failure(self.site, error.cause, request.redaction)
        raise failure  # without what the library said, which may quote what a server sends back

    def exchange(self, request: HttpRequest, *, total_seconds: float | None = None) -> HttpResponse:
        """The same as ``send``, for callers with an error of their own for a missing answer.

        Args:
            request: The request.
            total_seconds: Its time limit, in place of the client's.

        Raises:
            ExchangeError: No answer, or not in time.
            RouteError: The address must not be connected to.
        """
        sent = False

        def trace(event: str, facts: dict[str, Any]) -> None:
            nonlocal sent
            sent = sent or (event.endswith(".send_request_headers.started") and facts["request"].method != b"CONNECT")

        self._deadline.start(self._limits.total_seconds if total_seconds is None else total_seconds)
        try:
            response = self._pool.handle_request(self._request(request, trace))
            try:
                return self._answer(response, request.redaction)
            finally:
                response.close()
        except _FAILURES as error:
            raise ExchangeError(error, sent=sent) from None

    def _request(self, request: HttpRequest, trace: Callable[[str, dict[str, Any]], None]) -> httpcore2.Request:
        """The request as the pool takes it; httpx2's own client would write the whole URL into the log."""
        # White space around a value is no part of it (RFC 9110, section 5.5).
        given = {name.lower(): value.strip(" \t") for name, value in request.headers.items()}
        # Answers are read for their status and a few numbers: not worth a decompressor's risk.
        headers = {"user-agent": "muxly", "accept-encoding": "identity", **given}
        built = httpx2.Request(request.method, request.url, headers=headers, content=request.body)
        url, limits = built.url, self._limits
        return httpcore2.Request(
            built.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=built.headers.raw,
            content=request.body,
            extensions={
                "trace": trace,
                "timeout": {
                    "connect": limits.connect_seconds,
                    "read": limits.read_seconds,
                    "write": limits.read_seconds,
                    "pool": limits.total_seconds,
                },
            },
        )

    def _answer(self, response: httpcore2.Response, redaction: Redaction) -> HttpResponse:
        limit = self._limits.answer_bytes
        raw, cut = _read_up_to(response.iter_stream(), limit)
        headers = dict(httpx2.Headers(response.headers).items())
        try:
            body, more = decoded(raw, headers.get("content-encoding", ""), limit)
        except UnreadableContentError:
            body, more = b"", True
        return HttpResponse(response.status, headers, body, whole=not (cut or more), redaction=redaction)

    def probe(self) -> None:
        """Connect, and go through the TLS handshake, without any request; through a proxy, only to it.

        Raises:
            RetryableError: Nobody answers there now.
            RouteError: The site must not or cannot be talked to.
        """
        url = self._url if self._proxy is None else httpx2.URL(str(self._proxy_url()))
        port = url.port or (443 if url.scheme == "https" else 80)
        self._deadline.start(self._limits.total_seconds)
        try:
            stream = self._network.connect_tcp(url.host, port, self._limits.connect_seconds)
            try:
                if url.scheme == "https":
                    known = self._context or tls_context(Tls())
                    stream = stream.start_tls(known, url.host, self._limits.connect_seconds)
            finally:
                stream.close()
        except _FAILURES as error:
            raise _failure(site(url), error, Redaction()) from error

    def _proxy_url(self) -> httpx2.URL:
        assert self._proxy is not None
        target = self._proxy.url
        return httpx2.URL(scheme=target.scheme.decode(), host=target.host.decode(), port=target.port)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _read_up_to(chunks: Iterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Read up to the limit, and tell whether there was more; the rest is never read."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > limit:
            return bytes(found[:limit]), True
    return bytes(found), False


def _failure(server: str, error: Exception, redaction: Redaction) -> muxly.MuxlyError:
    """The error of a failed request."""
    if isinstance(error, TlsRefusedError):
        return muxly.RouteError(f"{server}: {error}")
    reason = redaction.shown(str(error)) or type(error).__name__
    if isinstance(error, httpcore2.LocalProtocolError):
        return muxly.RouteError(f"{server}: the request cannot be sent: {reason}")
    return muxly.RetryableError(f"{server}: {_failures.with_next_step(reason)}")


_PIECE = 64 * 1024
# Nobody compresses more than twice; each layer multiplies what a bomb can do.
_MOST_LAYERS = 2


class UnreadableContentError(Exception):
    """The content is not in the coding that its header names, or in one that is not known."""


def decoded(raw: bytes, codings: str, limit: int) -> tuple[bytes, bool]:
    """The content before it was compressed.

    Args:
        raw: The content as it came.
        codings: The header ``Content-Encoding``; empty = none.
        limit: Most bytes to return, and to hold at any time beside a small piece.

    Returns:
        The content, and whether it was cut, at the limit or by whoever sent it.

    Raises:
        UnreadableAnswerError: It cannot be decoded.
    """
    names = [name for part in codings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > _MOST_LAYERS:
        raise UnreadableContentError(f"it is compressed {len(names)} times")
    cut = len(raw) > limit and not names
    content = raw[:limit] if cut else raw
    for name in reversed(names):
        content, more = _without_coding(content, name, limit)
        cut = cut or more
    return content, cut


def _without_coding(content: bytes, name: str, limit: int) -> tuple[bytes, bool]:
    if name in ("gzip", "x-gzip"):
        return _inflated(content, limit, zlib.MAX_WBITS | 16)
    if name == "deflate":
        # Some servers leave the zlib header away; a zlib header's first two bytes are a multiple of 31.
        has_header = len(content) > 1 and content[0] & 15 == 8 and (content[0] << 8 | content[1]) % 31 == 0
        return _inflated(content, limit, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
    if name in ("br", "zstd"):
        return _by_arrow(content, {"br": "brotli"}.get(name, name), limit)
    raise UnreadableContentError(f"its coding {name[:40]!r} is not known")


def _inflated(content: bytes, limit: int, window: int) -> tuple[bytes, bool]:
    inflating = zlib.decompressobj(window)
    try:
        found = inflating.decompress(content, limit + 1)
    except zlib.error as error:
        raise UnreadableContentError(f"it is not compressed as it says: {error}") from error
    return found[:limit], len(found) > limit or not inflating.eof


def _by_arrow(content: bytes, codec: str, limit: int) -> tuple[bytes, bool]:
    import pyarrow as pa

    chunks, size = [], 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
            while size <= limit and (chunk := stream.read(min(_PIECE, limit + 1 - size))):
                chunks.append(chunk)
                size += len(chunk)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableContentError(f"it is not compressed as it says: {error}") from error
    return b"".join(chunks)[:limit], size > limit
