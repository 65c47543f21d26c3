"""Quiet hours: a part of each day, by the clock on the wall of some time zone."""

from __future__ import annotations

from datetime import datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attrs import frozen

__all__ = ["QuietPeriod", "clock_time", "zone"]


@frozen
class QuietPeriod:
    """From ``start`` up to, not including, ``end``; over midnight where ``end`` is the earlier one.

    Only the reading of the wall clock counts, so that a night on which the clock is moved is as
    quiet as any other, though shorter or longer.
    """

    start: time
    end: time
    zone: ZoneInfo

    def holds(self, now: datetime) -> bool:
        """Whether it is quiet at a moment, which has a time zone."""
        shown = now.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end


def clock_time(text: str) -> time:
    """A time such as 22:00.

    Raises:
        ValueError: It is none.
    """
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - a reading of the wall clock has no zone
    except ValueError:
        raise ValueError(f"{text!r} is no time of day such as 22:00") from None


def zone(name: str) -> ZoneInfo:
    """A time zone such as Europe/Berlin.

    Raises:
        ValueError: There is no such zone on this machine.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone such as Europe/Berlin or UTC") from None
