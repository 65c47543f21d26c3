"""Requests to Slack, and the meaning of its refusals: whether anything was posted, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import Request

from attrs import define, field

import muxly
from muxly_routers import _failures
from muxly_routers._failures import needs
from muxly_routers._http.egress import Guard
from muxly_routers._http.messages import HttpRequest, HttpResponse, Redaction

if TYPE_CHECKING:
    from muxly_routers._http.client import ExchangeError, HttpClient

__all__ = [
    "RateLimitedError",
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
_PART_BYTES = 1 << 16


class UnansweredError(muxly.RetryableError):
    """The request may have been carried out: no whole answer came, or one that does not say."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=_SETTLE_SECONDS)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


class ThreadGoneError(muxly.RetryableError):
    """The first message of the thread was deleted; nothing was posted."""


@define(eq=False)
class SlackConnection:
    """Makes requests, each over a connection of its own.

    Args:
        timeout_seconds: Within so long the whole answer has to be there.
        guarded: Whether somebody else than the operator wrote the URLs.
        redaction: Replaces the secrets that answers may repeat.
    """

    timeout_seconds: float
    guarded: bool = False
    redaction: Redaction = field(factory=Redaction)
    _clients: dict[tuple[str, float], HttpClient] = field(factory=dict, init=False)

    def send(self, request: Request, *, what: str, size: int = 0) -> HttpResponse:
        """Make a request.

        Args:
            request: Whose URL may be a secret: it is in no error.
            what: The name of the request, for errors.
            size: Bytes of a large body, for which there is more time; 0 = the body is small.

        Raises:
            UnansweredError: It is not known whether the request was carried out.
            RetryableError: It was not.
            RouteError: It was not, and another try changes nothing.
        """
        if request.type not in ("http", "https"):
            raise muxly.RouteError(f"{what}: Slack is asked over http and https only, not {request.type}")
        client, url = self._client(request), urlsplit(request.full_url)
        from muxly_routers._http.client import ExchangeError

        try:
            answer = client.exchange(self._outgoing(request), total_seconds=self.deadline_seconds(size))
        except ExchangeError as error:
            raise _failure(error, what, url) from None
        finally:
            client.close()
        if not answer.whole:
            limit = f"{ANSWER_LIMIT_BYTES >> 20} MiB"
            raise UnansweredError(f"{what}: the answer of {url.hostname} is larger than {limit}, or cannot be decoded")
        return answer

    def _client(self, request: Request) -> HttpClient:
        """The client of the request's site; making one reads the certificates of all authorities."""
        with needs("slack"):
            from muxly_routers._http.client import HttpClient, HttpLimits

        seconds = self.timeout_seconds
        key = (f"{request.type}://{request.host}", seconds)
        if key not in self._clients:
            limits = HttpLimits(connect_seconds=seconds, read_seconds=seconds, answer_bytes=ANSWER_LIMIT_BYTES)
            guard = Guard.of_machine(on=self.guarded)
            self._clients[key] = HttpClient(muxly.Secret(request.full_url), limits=limits, guard=guard)
        return self._clients[key]

    def _outgoing(self, request: Request) -> HttpRequest:
        """A request of the standard library as one of ours; a file is sent in parts."""
        content: Any = request.data or b""
        return HttpRequest(
            method=request.get_method(),
            url=request.full_url,
            headers={**dict(request.header_items()), "connection": "close"},
            body=content if isinstance(content, bytes) else iter(lambda: content.read(_PART_BYTES), b""),
            redaction=self.redaction,
        )

    def deadline_seconds(self, size: int) -> float:
        """The time limit of a request with a body of so many bytes."""
        return self.timeout_seconds + size / _SLOWEST_BYTES_PER_SECOND


def _failure(error: ExchangeError, what: str, url: SplitResult) -> muxly.MuxlyError:
    """The error of a request without an answer; the URL is not in it.

    Everything depends on whether the request was sent: one that was not can be repeated without a
    thought, and one that was may have posted a message.
    """
    import httpcore2

    from muxly_routers._http.network import UntrustedCertificateError

    host, cause = url.hostname or "", error.cause
    if isinstance(cause, UntrustedCertificateError):
        return muxly.RouteError(
            f"{what}: the certificate of {host} is not valid here ({cause.reason}); if it is signed by an "
            "authority of your own, name its file in the environment variable SSL_CERT_FILE"
        )
    late = isinstance(cause, httpcore2.TimeoutException)
    if not error.sent:
        unreachable = f"no connection to {host}, port {url.port or (443 if url.scheme == 'https' else 80)}"
        problem = "not in time" if late else str(cause).removeprefix(f"{unreachable}: ")
        return muxly.RetryableError(f"{what}: {unreachable}: {_failures.with_next_step(problem)}")
    if late:
        return UnansweredError(_failures.with_next_step(f"{what}: no whole answer from {host} in time"))
    # What the protocol's errors say may quote the URL; what the system says of a connection does not.
    problem = str(cause) if isinstance(cause, httpcore2.NetworkError) and str(cause) else type(cause).__name__
    return UnansweredError(f"{what}: the connection to {host} ended before the answer ({problem})")


# docs.slack.dev/reference/methods/chat.postMessage, "Errors"
_STEPS = {
    "invalid_auth": "the token is not valid; copy the Bot User OAuth Token (xoxb-...) under OAuth & Permissions",
    "not_authed": "no token arrived; set token to the Bot User OAuth Token (xoxb-...) of the app",
    "token_revoked": "the token was revoked; install the app to the workspace again and use its new token",
    "token_expired": "the token has expired; turn token rotation off for the app, or use a new token",
    "account_inactive": "the app was uninstalled or its owner deactivated; install the app to the workspace again",
    "not_in_channel": "the bot is not a member of {channel}; write /invite @{bot} there, or give the app the scope "
    "chat:write.public",
    "channel_not_found": "{channel} is not a channel that the bot can see; copy the id at the bottom of the channel's "
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
    "no_service_id": "the webhook's URL is incomplete; copy it again from Incoming Webhooks",
    "no_team": "the webhook's URL names no workspace; copy it again from Incoming Webhooks",
    "no_active_hooks": "the webhook is switched off; switch Incoming Webhooks on for the app, and make a new one",
    "invalid_token": "the webhook's URL is incomplete; copy it again from Incoming Webhooks",
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


def api_error(answer: HttpResponse, what: str, *, channel: str, bot: str) -> tuple[str, muxly.MuxlyError]:
    """The code and the error of an answer of the Web API that is not a success.

    Args:
        answer: What came.
        what: What was asked, for the error.
        channel: The channel's id.
        bot: The bot's name, as far as it is known.
    """
    found, shown = _object(answer.text), answer.redaction.shown
    code = str(found.get("error") or "")
    if answer.status == 429 or code in _RATE_LIMITS:
        return "ratelimited", _rate_limited(answer, what)
    if not code and 300 <= answer.status < 500 and answer.status != 408:
        return code, muxly.RouteError(
            f"{what}: the answer is {answer.status} and not Slack's; see whether base_url is right"
        )
    if answer.status >= 500 or not code or code in _UNCERTAIN:
        return code, UnansweredError(f"{what}: Slack answers {answer.status} {shown(code)}".rstrip())
    facts = {"channel": channel, "bot": shown(bot), "needed": shown(str(found.get("needed") or "that it asks for"))}
    details = shown(_details(found))
    return code, _refused(code, what, facts, shown(code), f" ({details})" if details else "")


def webhook_error(answer: HttpResponse, what: str) -> muxly.MuxlyError:
    """The error of an answer of an incoming webhook that is not a success; its body is one code."""
    code = answer.text.strip()
    message = f"{what} answers {answer.status} {answer.redaction.shown(code)[:60]}".rstrip()
    if answer.status == 429 or code in _RATE_LIMITS:
        return _rate_limited(answer, what)
    if answer.status >= 500 or 200 <= answer.status < 300 or answer.status == 408 or code in _UNCERTAIN:
        return UnansweredError(message)
    if code in _STEPS or code in _OF_RECORDS:
        return _refused(code, what, {"channel": "the channel", "bot": "the app", "needed": ""}, code, "")
    return muxly.RouteError(
        f"{message}; see whether its URL is right, and whether it is still listed under Incoming Webhooks"
    )


def _refused(code: str, what: str, facts: Mapping[str, str], shown: str, details: str) -> muxly.MuxlyError:
    if code in _OF_RECORDS:
        return muxly.RejectedError(f"{what}: Slack refuses the message: {code}{details}")
    if code in _STEPS:
        return muxly.RouteError(f"{what}: {code}: {_STEPS[code].format(**facts)}")
    return muxly.RouteError(
        f"{what}: Slack refuses: {shown}{details}; the word is explained at "
        "docs.slack.dev/reference/methods/chat.postMessage"
    )


def _rate_limited(answer: HttpResponse, what: str) -> RateLimitedError:
    seconds = answer.retry_after
    message = "" if seconds is None else f" for {seconds:g} s"
    return RateLimitedError(f"{what}: Slack asks to wait{message}", retry_after=seconds)


def _details(found: Mapping[str, Any]) -> str:
    """The part of a refusal about blocks: the place and the limit."""
    metadata = found.get("response_metadata")
    told = (metadata.get("messages") if isinstance(metadata, dict) else None) or found.get("errors")
    return "; ".join(str(text) for text in told[:3]) if isinstance(told, list) else ""


def _object(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
