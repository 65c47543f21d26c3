"""The nearest known word, for errors that name what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["suggest"]


def suggest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that is nearest to another one.

    Args:
        word: The unknown word.
        known: The words that would have been right.
        cutoff: How alike two words have to be: 0 is anything, 1 is the same.

    Returns:
        The nearest of the known words; None = none is near enough.
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, [*known], n=1, cutoff=cutoff)), None)
