"""How long a server asked us to wait, in any form it may say so (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["LONGEST_SECONDS", "seconds"]

LONGEST_SECONDS = 3600.0
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def seconds(header: str | None, *, now: datetime | None = None) -> float | None:
    """The wait that a ``Retry-After`` asks for.

    Args:
        header: Its value, if there is one.
        now: For dates; default the present.

    Returns:
        Seconds from 0 to one hour; None where there is no header, or nothing to be made of it.
    """
    text = (header or "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_SECONDS)
    if not text or len(text) > 100:
        return None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()), LONGEST_SECONDS)
