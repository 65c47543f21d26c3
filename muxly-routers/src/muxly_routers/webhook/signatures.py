"""Signatures of requests: Standard Webhooks, and HMAC as others do it. Functions of values, no clock."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    import muxly

__all__ = ["Algorithm", "HmacSignature", "key_of", "standard"]

# What the specification asks of a key.
_SHORTEST_KEY, _LONGEST_KEY = 24, 64

Algorithm = Literal["sha256", "sha512"]
Digits = Literal["hex", "base64"]
Signed = Literal["body", "timestamp.body", "id.timestamp.body"]


def key_of(secret: muxly.Secret) -> bytes:
    """The key in a Standard Webhooks secret: ``whsec_`` and base64.

    Raises:
        ValueError: It is none; neither the message nor this frame shows it.
    """
    size = len(_decoded(secret.reveal()))
    if not size:
        raise ValueError("a secret of Standard Webhooks is whsec_ and base64")
    if not _SHORTEST_KEY <= size <= _LONGEST_KEY:
        raise ValueError(
            f"a secret of Standard Webhooks holds {_SHORTEST_KEY} to {_LONGEST_KEY} bytes, not {size}; another kind of "
            "secret belongs into hmac"
        )
    return _decoded(secret.reveal())


def _decoded(secret: str) -> bytes:
    """Its bytes; none if it is no base64."""
    try:
        return base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def standard(id: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> str:
    """The header ``webhook-signature``: one signature for each key, so that a receiver may know either.

    Args:
        id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, in seconds from 1970.
        body: The bytes of the body.
        keys: Newest first.
    """
    content = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}" for key in keys)


@frozen(kw_only=True)
class HmacSignature:
    """A signature in one header, as GitHub, Stripe and others have it.

    Args:
        key: Of the newest secret.
        algorithm: Of the digest.
        encoding: How the digest is written.
        signs: What is signed.
        prefix: Stands before the digest, such as ``"sha256="``.
    """

    key: bytes
    algorithm: Algorithm
    encoding: Digits
    signs: Signed
    prefix: str

    def header(self, id: str, timestamp: int, body: bytes) -> str:
        """The value of the header."""
        parts = {"body": body, "timestamp": str(timestamp).encode(), "id": id.encode()}
        content = b".".join(parts[name] for name in self.signs.split("."))
        digest = hmac.digest(self.key, content, getattr(hashlib, self.algorithm))
        return self.prefix + (digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode())
