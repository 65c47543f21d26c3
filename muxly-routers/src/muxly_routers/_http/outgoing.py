"""A request to be made, as a value that shows nothing of what may be secret."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from muxly_routers._http.hidden import Redaction

__all__ = ["HttpRequest"]


@frozen(kw_only=True)
class HttpRequest:
    """A request to be made. Its ``repr`` shows no more than the method: an address may be a secret.

    Args:
        method: Such as POST.
        url: Where to.
        headers: By name.
        body: The content.
        hidden: What the answer may repeat, and no message may show.
    """

    method: str = "POST"
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    hidden: Redaction = field(factory=Redaction)
