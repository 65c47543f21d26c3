"""What people are told when NaN and infinity became null, because a format has no text for them."""

from __future__ import annotations

import muxly

__all__ = ["NonfiniteNotices"]


class NonfiniteNotices:
    """Counts them in the run, and tells once a stream.

    Args:
        run: The run.
        hint: What can be done about it.
    """

    def __init__(self, run: muxly.Run, *, hint: str = "; format parquet or arrow keeps them") -> None:
        self._run, self._hint = run, hint
        self._told: set[str] = set()

    def tell(self, stream: str, count: int) -> None:
        """So many values of the stream became null."""
        if not count:
            return
        self._run.measure("nonfinite_as_null", count, stream=stream)
        if stream in self._told:
            return
        self._told.add(stream)
        self._run.notice(
            muxly.Notice(
                "nonfinite_as_null",
                f"{stream}: {count} values NaN or infinite were written as null, for JSON has no text for "
                f"them{self._hint}",
                stream=stream,
                facts={"count": count},
            )
        )
