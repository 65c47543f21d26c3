"""Names of segments: percent-encoded, and never used twice."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

_KEY_BYTES = 100


def segment_key(stream: str, partition: str, reading: str, sequence: int) -> str:
    """Names a segment for ever: a reading's ULID and number are never used twice."""
    return f"{_safe(stream)}/{_safe(partition)}/{reading}/{sequence}"


def _safe(name: str) -> str:
    """A percent-encoded name of at most 100 bytes; a longer one ends with its hash."""
    text = quote(name, safe="", errors="surrogatepass")
    if len(text) <= _KEY_BYTES:
        return text
    digest = hashlib.sha256(text.encode(), usedforsecurity=False).hexdigest()[:16]
    return f"{text[: _KEY_BYTES - 17]}-{digest}"
