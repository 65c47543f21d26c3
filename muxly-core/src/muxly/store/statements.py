"""Statements that SQLAlchemy has written as SQL, kept for all SQLite stores that a process opens."""

from __future__ import annotations

from typing import Any

__all__ = ["Statements"]

_MOST = 1_000


class Statements(dict[Any, Any]):
    """A cache of compiled statements by what they say, and not by the engine that said it first.

    SQLAlchemy keeps them for each engine, and each run opens one: to write the same hundred statements
    anew took 40 % of a short run. It may be given to engines that are made alike.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        """The statement of that key; the key's first part is the engine's dialect."""
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= _MOST:
            self.clear()
        super().__setitem__(key[1:], compiled)
