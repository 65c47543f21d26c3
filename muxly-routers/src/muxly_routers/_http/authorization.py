"""Headers that say who sends a request."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import muxly

__all__ = ["basic"]


def basic(user: str, password: muxly.Secret) -> str:
    """The value of ``Authorization`` for a name and a password (RFC 7617); as secret as the password."""
    return f"Basic {base64.b64encode(f'{user}:{password.reveal()}'.encode()).decode()}"
