"""Which settings replace which place in a run: two routes there would undo each other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["ReplacementClaims"]


class ReplacementClaims:
    """Places and who has claimed them; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, Hashable] = {}

    def take(self, place: str, settings: Hashable) -> bool:
        """Whether the place is free, or has these settings already."""
        with self._lock:
            return self._owners.setdefault(place, settings) == settings
