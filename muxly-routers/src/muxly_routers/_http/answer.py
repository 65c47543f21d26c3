"""What a server answered, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from muxly_routers._http import retry_after
from muxly_routers._http.hidden import Redaction

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpResponse"]


@frozen
class HttpResponse:
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
    hidden: Redaction = field(factory=Redaction)

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
