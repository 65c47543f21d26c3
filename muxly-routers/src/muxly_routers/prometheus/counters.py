"""How far a metric has counted the log of its stream.

A series' values follow from the log alone, so a repeat changes nothing: what is at or before the
place that a metric has counted is left out, whatever delivery brings it.
"""

from __future__ import annotations

from attrs import evolve, frozen

__all__ = ["WHOLE", "CountedLog", "SegmentPart"]

WHOLE = 1 << 62
"""The end of a part of a segment that goes to the segment's end."""


@frozen
class SegmentPart:
    """A part of a segment: a delivery may cut its first segment and its last.

    Args:
        position: The segment's; 0 = that of no log, and always new.
        begin: How many records of the segment lie before it, before the route's filter.
        end: How many lie up to its end, before the filter; ``WHOLE`` = all.
    """

    position: int
    begin: int = 0
    end: int = WHOLE

    @classmethod
    def of(cls, position: int, bounds: tuple[tuple[int, int], tuple[int, int]]) -> SegmentPart:
        """The part at a position of what lies between two bounds; dead letters lie in no log any more."""
        (first, begin), (last, end) = bounds
        if not first <= position <= last:
            return cls(0)
        return cls(position, begin if position == first else 0, end if position == last and position else WHOLE)


@frozen
class CountedLog:
    """How far a metric has counted the log.

    Where parts begin and end is known before the route's filter, and how many records they have behind
    it. A replay may cut a segment elsewhere; then the part in which the place lies is known in half.

    Args:
        position: The greatest position of which records were counted; 0 = none.
        end: How far in that segment, before the filter.
        records: How many records that are, behind the filter.
        passed_end: Where the part of that segment ended that came last.
        passed: How many records lie before that place, behind the filter.
        first: The position where counting began.
        begin: Where in that segment.
    """

    position: int = 0
    end: int = 0
    records: int = 0
    passed_end: int = 0
    passed: int = 0
    first: int = 0
    begin: int = 0

    def follows(self, part: SegmentPart) -> bool:
        """Whether a part lies before all that was counted, so that a replay fills what came before."""
        return part.position > 0 and (part.position, part.begin) < (self.first, self.begin)

    def known(self, part: SegmentPart) -> int | None:
        """How many records of a part were counted already; None = all."""
        if part.position == 0 or part.position > self.position:
            return 0
        if part.position < self.position or part.end <= self.end:
            return None
        return 0 if part.begin >= self.end else self.records - self._before(part.begin)

    def after(self, part: SegmentPart, records: int) -> CountedLog:
        """Behind a part of so many records."""
        if part.position == 0 or part.position < self.position:
            return self
        if self.position == 0:
            return CountedLog(part.position, part.end, records, part.end, records, part.position, part.begin)
        if part.position > self.position:
            return self._at(part, records, records)
        if part.begin >= self.end:
            return self._at(part, self.records + records, self.records + records)
        passed = self._before(part.begin) + records
        if part.end <= self.end:
            return evolve(self, passed_end=part.end, passed=passed)
        return self._at(part, max(passed, self.records), passed)

    def _at(self, part: SegmentPart, records: int, passed: int) -> CountedLog:
        return CountedLog(part.position, part.end, records, part.end, passed, self.first, self.begin)

    def _before(self, begin: int) -> int:
        """How many records of the segment lie before a place, behind the filter."""
        return self.passed if begin and begin >= self.passed_end else 0
