"""Where test components keep what they know, found again by all copies of one component."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

from muxly_testing.calls import Calls
from muxly_testing.destination import Destination, FileDestination, MemoryDestination

if TYPE_CHECKING:
    from pathlib import Path

# Of the whole process on purpose: the copy that a run opens, and the value that the test holds, meet here.
_places: dict[str, Place] = {}
_lock = threading.Lock()


class Place:
    """The calls of test components that share a token or a folder, and what was delivered to them."""

    def __init__(self, folder: Path | None = None) -> None:
        self.calls = Calls(None if folder is None else folder / "calls.jsonl")
        self.destination: Destination = (
            MemoryDestination() if folder is None else FileDestination(folder / "delivered.sqlite")
        )

    @classmethod
    def of(cls, token: str, folder: Path | None) -> Place:
        """The place of that token in this process, or of that folder for all processes."""
        if folder is not None:
            return cls(folder)
        with _lock:
            return _places.setdefault(token, cls())


def new_token() -> str:
    """A token that no other component has."""
    return uuid.uuid4().hex
