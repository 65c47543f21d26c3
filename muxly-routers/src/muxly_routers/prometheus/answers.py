"""What a server's answer, or its silence, means for the route."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._http.hidden import Redaction, parts_of, paths_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_routers._http.answer import HttpResponse
    from muxly_routers._http.client import HttpClient

__all__ = ["failure", "hidden", "reachable"]

_LATER = {408, 425, 429}


def failure(answer: HttpResponse, place: str) -> muxly.MuxlyError:
    """The error that an answer which is no success comes to.

    Args:
        answer: What the server said.
        place: What was asked, in words that hold no secret.
    """
    said = f"{place} answered {answer.status}"
    if answer.excerpt:
        said = f"{said}: {answer.excerpt}"
    if answer.status in _LATER or answer.status >= 500:
        return muxly.RetryableError(said, retry_after=answer.retry_after)
    if answer.status in (401, 403):
        return muxly.RouteError(f"{said}; see basic and bearer of this route")
    if 300 <= answer.status < 400:
        return muxly.RouteError(f"{said}; redirects are not followed: write the URL that it leads to")
    return muxly.RouteError(f"{said}; see the URL of this route and what the server wants")


def hidden(asked: str, url: muxly.Secret, authorization: muxly.Secret | None) -> Redaction:
    """What an answer may repeat and no message may show.

    Args:
        asked: The URL of the request.
        url: The user's, which it begins with.
        authorization: The header that says who we are.
    """
    words = [] if authorization is None else authorization.reveal().split(" ", 1)
    return Redaction.of([*paths_of(asked), *parts_of(url.reveal()), *words])


def reachable(client: HttpClient, option: str) -> Iterator[muxly.Notice]:
    """Whether somebody listens at the URL; asks for nothing."""
    try:
        client.probe()
    except (muxly.RetryableError, muxly.RouteError) as error:
        yield muxly.Notice("not_reachable", f"{option}: {error}", level="error")
