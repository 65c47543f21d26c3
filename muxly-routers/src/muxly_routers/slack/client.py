"""One HTTP request to Slack: no redirects, one deadline for all of it, a capped answer, a checked address."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPErrorProcessor, HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from attrs import define, field, frozen

import muxly
from muxly_routers import _reaching
from muxly_routers._http import egress
from muxly_routers._http.messages import Redaction, parse_retry_after

__all__ = [
    "RateLimitedError",
    "SlackAnswer",
    "SlackConnection",
    "ThreadGoneError",
    "UnansweredError",
    "api_error",
    "webhook_error",
]

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
class SlackAnswer:
    """What came back.

    Args:
        status: The HTTP status.
        headers: The headers, with names in lower case.
        body: The body as text.
        redaction: Replaces the secrets that it may repeat.
    """

    status: int
    headers: Mapping[str, str]
    body: str
    redaction: Redaction = field(factory=Redaction)


class _NotSentError(OSError):
    """No connection: nothing of the request left this machine."""


@define(eq=False)
class SlackConnection:
    """Makes requests.

    Args:
        timeout_seconds: Within so long the whole answer has to be there.
        guarded: Whether somebody else than the operator wrote the URLs.
        redaction: Replaces the secrets that answers may repeat.
    """

    timeout_seconds: float
    guarded: bool = False
    redaction: Redaction = field(factory=Redaction)
    _active: list[socket.socket] = field(factory=list, init=False)
    _late: threading.Event = field(factory=threading.Event, init=False)
    _opener: OpenerDirector | None = field(default=None, init=False)

    def send(self, request: Request, *, what: str, size: int = 0) -> SlackAnswer:
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
        timer = threading.Timer(self.deadline_seconds(size), self._cut)
        timer.daemon = True
        timer.start()
        try:
            with self._opened().open(request, timeout=self.timeout_seconds) as response:
                body = _capped(response)
                if self._late.is_set():  # what was cut off looks like an answer that ended
                    raise TimeoutError
                headers = {name.lower(): value for name, value in response.headers.items()}
                return SlackAnswer(response.status, headers, body.decode("utf-8", "replace"), self.redaction)
        except (OSError, http.client.HTTPException) as error:
            raise _failure(error, what, urlsplit(request.full_url), late=self._late.is_set()) from None
        finally:
            timer.cancel()
            timer.join()  # or it would end the next request
            for handle in self._active:
                handle.close()
            self._active.clear()

    def deadline_seconds(self, size: int) -> float:
        """How long a request with a body of so many bytes may take."""
        return self.timeout_seconds + size / _SLOWEST_BYTES_PER_SECOND

    def _cut(self) -> None:
        """End the connection under the thread that waits for a byte."""
        self._late.set()
        for handle in list(self._active):
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def _opened(self) -> OpenerDirector:
        """Only what a request to Slack needs: no files, no FTP, no redirects."""
        if self._opener is None:
            self._opener = OpenerDirector()
            # A proxy would look the name up again, past the guard.
            proxies = ProxyHandler({}) if self.guarded else ProxyHandler()
            for part in (proxies, _PlainOpener(self._connect), _SecureOpener(self._connect), _EveryStatus()):
                self._opener.add_handler(part)
        return self._opener

    def _connect(self, address: tuple[str, int], timeout: float, *rest: Any) -> socket.socket:
        """Connect to a checked address of the host."""
        host, port = address
        problem: OSError = _NotSentError(f"{host} has no address")
        try:
            found = egress.addresses(host, port, egress.Guard.of_machine(on=self.guarded))
        except OSError as error:
            raise _NotSentError(f"{host} has no address: {error}") from error
        for checked in found:
            if self._late.is_set():
                raise _NotSentError("not in time")
            try:
                connected = socket.create_connection((checked, port), timeout)
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


class _EveryStatus(HTTPErrorProcessor):
    """Answers of every status are answers, redirects too."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


class _CheckedConnection(http.client.HTTPConnection):
    """A connection to a checked address; before it is whole, with TLS and a proxy's tunnel, nothing is sent."""

    def connect(self) -> None:
        try:
            super().connect()
        except (_NotSentError, ssl.SSLCertVerificationError):
            raise
        except OSError as error:
            raise _NotSentError(error.strerror or type(error).__name__) from error


class _CheckedSecureConnection(_CheckedConnection, http.client.HTTPSConnection):
    """The same, over TLS."""


def _connecting(kind: type[_CheckedConnection], connect: Callable[..., socket.socket]) -> Callable[..., Any]:
    def make(host: str, **options: Any) -> http.client.HTTPConnection:
        made = kind(host, **options)
        made._create_connection = connect  # type: ignore[attr-defined]
        return made

    return make


class _PlainOpener(HTTPHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._make = _connecting(_CheckedConnection, connect)

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req)


class _SecureOpener(HTTPSHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__(context=ssl.create_default_context())
        self._make = _connecting(_CheckedSecureConnection, connect)

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req, context=self._context)  # type: ignore[attr-defined]


def _capped(response: IO[bytes]) -> bytes:
    body = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(body) > ANSWER_LIMIT_BYTES:
        raise OSError(errno.EMSGSIZE, f"the answer is larger than {ANSWER_LIMIT_BYTES >> 20} MiB")
    return body


def _failure(error: Exception, what: str, url: SplitResult, *, late: bool) -> muxly.MuxlyError:
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
        return muxly.RetryableError(f"{what}: no connection to {place}: {_reaching.advised(str(cause))}")
    if late or isinstance(cause, TimeoutError):
        return UnansweredError(_reaching.advised(f"{what}: no whole answer from {host} in time"))
    reason = getattr(cause, "strerror", None) or type(cause).__name__  # its text may hold a part of the URL
    return UnansweredError(f"{what}: the connection to {host} ended before the answer ({reason})")


# docs.slack.dev/reference/methods/chat.postMessage, "Errors"
_STEPS = {
    "invalid_auth": "the token is not valid; copy the Bot User OAuth Token (xoxb-...) under OAuth & Permissions",
    "not_authed": "no token arrived; set token to the Bot User OAuth Token (xoxb-...) of the app",
    "token_revoked": "the token was revoked; install the app to the workspace again and use its new token",
    "token_expired": "the token has expired; turn token rotation off for the app, or use a new token",
    "account_inactive": "the app was uninstalled or its owner deactivated; install the app to the workspace again",
    "not_in_channel": "the bot is not a member of {channel}; write /invite @{bot} there, or give the app the scope "
    "chat:write.public",
    "channel_not_found": "{channel} is no channel that the bot can see; copy the id at the bottom of the channel's "
    "details, and for a private channel write /invite @{bot} there first",
    "is_archived": "{channel} is archived; unarchive it, or name another channel",
    "channel_is_archived": "the channel is archived; unarchive it, or make a webhook for another one",
    "missing_scope": "the app lacks the scope {needed}; add it under OAuth & Permissions and install the app again",
    "not_allowed_token_type": "this kind of token cannot do that; use the Bot User OAuth Token (xoxb-...)",
    "restricted_action": "a setting of the workspace keeps the bot from posting to {channel}; ask its administrator",
    "restricted_action_read_only_channel": "{channel} is read-only; let the app post in the channel's settings",
    "ekm_access_denied": "an administrator suspended posting; ask the workspace's administrator",
    "access_denied": "the app has no access; ask the workspace's administrator",
    "team_access_not_granted": "the app has no access to this workspace; ask the organisation's administrator",
    "file_upload_size_restricted": "the file is larger than this workspace allows; set attach: none, or make the "
    "route's batch smaller",
    "file_uploads_disabled": "the workspace does not allow files; set attach: none",
    "storage_limit_reached": "the workspace has no room for files; remove some, or set attach: none",
    "no_service": "the webhook is gone; make a new one for the channel under Incoming Webhooks",
    "no_service_id": "the webhook's URL is not whole; copy it again from Incoming Webhooks",
    "no_team": "the webhook's URL names no workspace; copy it again from Incoming Webhooks",
    "no_active_hooks": "the webhook is switched off; switch Incoming Webhooks on for the app, and make a new one",
    "invalid_token": "the webhook's URL is not whole; copy it again from Incoming Webhooks",
    "action_prohibited": "a setting of the workspace keeps the webhook from posting; ask its administrator",
    "team_disabled": "the workspace is switched off",
}
_OF_RECORDS = {
    "msg_too_long",
    "msg_blocks_too_long",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
    "invalid_payload",
    "no_text",
    "too_many_attachments",
    "markdown_text_conflict",
}
# Slack itself does not know whether anything was done.
_UNCERTAIN = {
    "internal_error",
    "fatal_error",
    "request_timeout",
    "service_unavailable",
    "rollup_error",
    "team_added_to_org",
}
_RATE_LIMITS = {"ratelimited", "rate_limited", "message_limit_exceeded"}


class RateLimitedError(muxly.RetryableError):
    """Slack took nothing, and says when it may."""


def api_error(answer: SlackAnswer, what: str, *, channel: str, bot: str) -> tuple[str, muxly.MuxlyError]:
    """The word and the error of an answer of the Web API that is no success.

    Args:
        answer: What came.
        what: What was asked, for the error.
        channel: The channel's id.
        bot: The bot's name, as far as it is known.
    """
    found, shown = _object(answer.body), answer.redaction.shown
    word = str(found.get("error") or "")
    if answer.status == 429 or word in _RATE_LIMITS:
        return "ratelimited", _limited(answer, what)
    if not word and 300 <= answer.status < 500 and answer.status != 408:
        return word, muxly.RouteError(
            f"{what}: the answer is {answer.status} and not Slack's; see whether base_url is right"
        )
    if answer.status >= 500 or not word or word in _UNCERTAIN:
        return word, UnansweredError(f"{what}: Slack answers {answer.status} {shown(word)}".rstrip())
    facts = {"channel": channel, "bot": shown(bot), "needed": shown(str(found.get("needed") or "that it asks for"))}
    details = shown(_details(found))
    return word, _refused(word, what, facts, shown(word), f" ({details})" if details else "")


def webhook_error(answer: SlackAnswer, what: str) -> muxly.MuxlyError:
    """The error of an answer of an incoming webhook that is no success; its body is one word."""
    word = answer.body.strip()
    said = f"{what} answers {answer.status} {answer.redaction.shown(word)[:60]}".rstrip()
    if answer.status == 429 or word in _RATE_LIMITS:
        return _limited(answer, what)
    if answer.status >= 500 or 200 <= answer.status < 300 or answer.status == 408 or word in _UNCERTAIN:
        return UnansweredError(said)
    if word in _STEPS or word in _OF_RECORDS:
        return _refused(word, what, {"channel": "the channel", "bot": "the app", "needed": ""}, word, "")
    return muxly.RouteError(
        f"{said}; see whether its URL is right, and whether it is still listed under Incoming Webhooks"
    )


def _refused(word: str, what: str, facts: Mapping[str, str], shown: str, details: str) -> muxly.MuxlyError:
    if word in _OF_RECORDS:
        return muxly.RejectedError(f"{what}: Slack refuses the message: {word}{details}")
    if word in _STEPS:
        return muxly.RouteError(f"{what}: {word}: {_STEPS[word].format(**facts)}")
    return muxly.RouteError(
        f"{what}: Slack refuses: {shown}{details}; the word is explained at "
        "docs.slack.dev/reference/methods/chat.postMessage"
    )


def _limited(answer: SlackAnswer, what: str) -> RateLimitedError:
    seconds = parse_retry_after(answer.headers.get("retry-after"))
    said = "" if seconds is None else f" for {seconds:g} s"
    return RateLimitedError(f"{what}: Slack asks to wait{said}", retry_after=seconds)


def _details(found: Mapping[str, Any]) -> str:
    """What Slack says about blocks: where, and which limit."""
    metadata = found.get("response_metadata")
    told = (metadata.get("messages") if isinstance(metadata, dict) else None) or found.get("errors")
    return "; ".join(str(text) for text in told[:3]) if isinstance(told, list) else ""


def _object(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
