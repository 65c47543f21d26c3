"""One HTTP request to Slack: no redirects, one deadline for all of it, a capped answer, a checked address."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
from typing import IO, TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPErrorProcessor, HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from attrs import define, field, frozen

import muxly
from muxly_routers import _failures
from muxly_routers._http import egress
from muxly_routers._http.hidden import Hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

__all__ = ["Answer", "ThreadGoneError", "UnansweredError", "Wire"]

ANSWER_LIMIT_BYTES = 8 << 20
# Slack needs a moment before a message that it took without saying so is in the history.
_SETTLE_SECONDS = 2.0
_SLOWEST_BYTES_PER_SECOND = 1 << 17


class UnansweredError(muxly.RetryableError):
    """The request may have been carried out: no whole answer came, or one that does not say."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=_SETTLE_SECONDS)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


class ThreadGoneError(muxly.RetryableError):
    """The first message of the thread was deleted; nothing was posted."""


@frozen
class Answer:
    """What came back.

    Args:
        status: The HTTP status.
        headers: The headers, with names in lower case.
        body: The body as text.
        hidden: What of it no message may show.
    """

    status: int
    headers: Mapping[str, str]
    body: str
    hidden: Hidden = field(factory=Hidden)


class _NotSentError(OSError):
    """No connection: nothing of the request left this machine."""


@define(eq=False)
class Wire:
    """Makes requests.

    Args:
        timeout_seconds: Within so long the whole answer has to be there.
        guarded: Whether somebody else than the operator wrote the URLs.
        hidden: What answers may repeat, and no message may show.
    """

    timeout_seconds: float
    guarded: bool = False
    hidden: Hidden = field(factory=Hidden)
    _active: list[socket.socket] = field(factory=list, init=False)
    _late: threading.Event = field(factory=threading.Event, init=False)
    _opener: OpenerDirector | None = field(default=None, init=False)

    def send(self, request: Request, *, what: str, size: int = 0) -> Answer:
        """Make a request.

        Args:
            request: Whose URL may be a secret: it is in no error.
            what: What is asked, for errors.
            size: Bytes of a large body, for which there is more time.

        Raises:
            UnansweredError: It is not known whether the request was carried out.
            RetryableError: It was not.
            RouteError: It was not, and another try changes nothing.
        """
        if request.type not in ("http", "https"):
            raise muxly.RouteError(f"{what}: Slack is asked over http and https only, not {request.type}")
        self._late.clear()
        timer = threading.Timer(self.deadline_seconds(size), self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            with self._opened().open(request, timeout=self.timeout_seconds) as response:
                body = _capped(response)
                if self._late.is_set():  # what was cut off looks like an answer that ended
                    raise TimeoutError
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body.decode("utf-8", "replace"), self.hidden)
        except (OSError, http.client.HTTPException) as error:
            raise _told(error, what, urlsplit(request.full_url), late=self._late.is_set()) from None
        finally:
            timer.cancel()
            timer.join()  # or it would end the next request
            for one in self._active:
                one.close()
            self._active.clear()

    def deadline_seconds(self, size: int) -> float:
        """How long a request with a body of so many bytes may take."""
        return self.timeout_seconds + size / _SLOWEST_BYTES_PER_SECOND

    def _hang_up(self) -> None:
        """End the connection under the thread that waits for a byte."""
        self._late.set()
        for one in list(self._active):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _opened(self) -> OpenerDirector:
        """Only what a request to Slack needs: no files, no FTP, no redirects."""
        if self._opener is None:
            self._opener = OpenerDirector()
            # A proxy would look the name up again, past the guard.
            proxies = ProxyHandler({}) if self.guarded else ProxyHandler()
            for one in (proxies, _Plain(self._connect), _Secure(self._connect), _AsItIs()):
                self._opener.add_handler(one)
        return self._opener

    def _connect(self, address: tuple[str, int], timeout: float, *rest: Any) -> socket.socket:
        """Connect to a checked address of the host."""
        host, port = address
        problem: OSError = _NotSentError(f"{host} has no address")
        try:
            found = egress.addresses(host, port, egress.Guard.of_machine(on=self.guarded))
        except OSError as error:
            raise _NotSentError(f"{host} has no address: {error}") from error
        for one in found:
            if self._late.is_set():
                raise _NotSentError("not in time")
            try:
                connected = socket.create_connection((one, port), timeout)
            except OSError as error:
                problem = _NotSentError(error.strerror or str(error))
                continue
            # A second handle of the same connection: TLS takes the first one over.
            self._active.append(connected.dup())
            if self._late.is_set():  # it came too late to be ended
                connected.close()
                raise _NotSentError("not in time")
            return connected
        raise problem


class _AsItIs(HTTPErrorProcessor):
    """Answers of every status are answers, redirects too."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


class _Checked(http.client.HTTPConnection):
    """A connection to a checked address; before it is whole, with TLS and a proxy's tunnel, nothing is sent."""

    def connect(self) -> None:
        try:
            super().connect()
        except (_NotSentError, ssl.SSLCertVerificationError):
            raise
        except OSError as error:
            raise _NotSentError(error.strerror or type(error).__name__) from error


class _CheckedSecure(_Checked, http.client.HTTPSConnection):
    """The same, over TLS."""


def _connecting(kind: type[_Checked], connect: Callable[..., socket.socket]) -> Callable[..., Any]:
    def make(host: str, **options: Any) -> http.client.HTTPConnection:
        made = kind(host, **options)
        made._create_connection = connect  # type: ignore[attr-defined]
        return made

    return make


class _Plain(HTTPHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._make = _connecting(_Checked, connect)

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req)


class _Secure(HTTPSHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__(context=ssl.create_default_context())
        self._make = _connecting(_CheckedSecure, connect)

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req, context=self._context)  # type: ignore[attr-defined]


def _capped(response: IO[bytes]) -> bytes:
    body = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(body) > ANSWER_LIMIT_BYTES:
        raise OSError(errno.EMSGSIZE, f"the answer is larger than {ANSWER_LIMIT_BYTES >> 20} MiB")
    return body


def _told(error: Exception, what: str, url: SplitResult, *, late: bool) -> muxly.MuxlyError:
    """What went wrong, without the URL."""
    host = url.hostname or ""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message
        return muxly.RouteError(
            f"{what}: the certificate of {host} is not valid here ({why}); if it is signed by an authority of "
            "your own, name its file in the environment variable SSL_CERT_FILE"
        )
    if isinstance(cause, _NotSentError):
        place = f"{host}, port {url.port or (443 if url.scheme == 'https' else 80)}"
        return muxly.RetryableError(f"{what}: no connection to {place}: {_failures.with_next_step(str(cause))}")
    if late or isinstance(cause, TimeoutError):
        return UnansweredError(_failures.with_next_step(f"{what}: no whole answer from {host} in time"))
    reason = getattr(cause, "strerror", None) or type(cause).__name__  # its text may hold a part of the URL
    return UnansweredError(f"{what}: the connection to {host} ended before the answer ({reason})")
