"""What Slack's refusals mean for a route, and what a person can do about each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers._http import retry_after
from muxly_routers.slack.client import UnansweredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muxly_routers.slack.client import SlackAnswer

__all__ = ["RateLimitedError", "of_api", "of_webhook"]

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


def of_api(answer: SlackAnswer, what: str, *, channel: str, bot: str) -> tuple[str, muxly.MuxlyError]:
    """The word and the error of an answer of the Web API that is no success.

    Args:
        answer: What came.
        what: What was asked, for the error.
        channel: The channel's id.
        bot: The bot's name, as far as it is known.
    """
    found, shown = _object(answer.body), answer.hidden.shown
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


def of_webhook(answer: SlackAnswer, what: str) -> muxly.MuxlyError:
    """The error of an answer of an incoming webhook that is no success; its body is one word."""
    word = answer.body.strip()
    said = f"{what} answers {answer.status} {answer.hidden.shown(word)[:60]}".rstrip()
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
    seconds = retry_after.seconds(answer.headers.get("retry-after"))
    said = "" if seconds is None else f" for {seconds:g} s"
    return RateLimitedError(f"{what}: Slack asks to wait{said}", retry_after=seconds)


def _details(found: Mapping[str, Any]) -> str:
    """What Slack says about blocks: where, and which limit."""
    metadata = found.get("response_metadata")
    told = (metadata.get("messages") if isinstance(metadata, dict) else None) or found.get("errors")
    return "; ".join(str(one) for one in told[:3]) if isinstance(told, list) else ""


def _object(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
