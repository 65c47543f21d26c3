"""When a delivery was made: its id is a ULID, whose first ten letters are the time (github.com/ulid/spec)."""

from __future__ import annotations

__all__ = ["made_at_ms"]

_LETTERS = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_LENGTH, _OF_TIME = 26, 10


def made_at_ms(id: str) -> int:
    """Milliseconds since 1970; 0 for an id that is no ULID."""
    if len(id) != _LENGTH or not _LETTERS.keys() >= set(id):
        return 0
    time = 0
    for letter in id[:_OF_TIME]:
        time = time << 5 | _LETTERS[letter]
    return time
