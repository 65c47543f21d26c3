"""A request to be made, as a value that shows nothing of what may be secret."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from muxly_routers._http.hidden import Hidden

__all__ = ["Outgoing"]


@frozen(kw_only=True)
class Outgoing:
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
    hidden: Hidden = field(factory=Hidden)
