"""Which records the next delivery takes: a pure choice from the log behind a route's position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muxly.store.rows import StoredSegment


@frozen(kw_only=True)
class Range:
    """Consecutive records of a log: from one place up to before another.

    Args:
        first_position: The first segment,
        first_offset: and the first record in it.
        last_position: The last segment,
        last_offset: and the number of its records that belong to the range.
        records: How many records that are.
        generation: The full read they belong to.
    """

    first_position: int
    first_offset: int
    last_position: int
    last_offset: int
    records: int
    generation: int


def choose(
    waiting: Sequence[StoredSegment],
    offset: int,
    *,
    records: int | None,
    bytes: int,
    whole_groups: bool,
) -> Range | None:
    """The next range, or None if the next segment cannot be delivered.

    Args:
        waiting: Segments behind the position, in order and without dropped ones at the start.
        offset: Records of the first one that are delivered already.
        records: At most so many records; None = no limit.
        bytes: At most so many bytes in memory; a first segment that is larger is cut.
        whole_groups: Whether groups must stay whole, whatever their size.
    """
    if not waiting or waiting[0].state == "quarantined":
        return None
    if whole_groups:
        return _whole_group(waiting, offset)
    first = waiting[0]
    taken = [_cut(first, offset, records, bytes)]
    room_records = None if records is None else records - taken[0].records
    room_bytes = bytes - first.bytes
    if taken[0].last_offset == first.records:
        for one in waiting[1:]:
            if not _joins(first, one) or not _fits(one, room_records, room_bytes):
                break
            room_records = None if room_records is None else room_records - one.records
            room_bytes -= one.bytes
            taken.append(_cut(one, 0, None, one.bytes))
    return _joined(taken)


def _whole_group(waiting: Sequence[StoredSegment], offset: int) -> Range | None:
    """What is left of the first group, without what was dropped; None while a part of it is quarantined.

    Half a group would replace values by half of their records, and the other half would replace those.
    """
    group = [one for one in waiting if one.group == waiting[0].group]
    if any(one.state == "quarantined" for one in group):
        return None
    return _joined(
        [_cut(one, offset if one is group[0] else 0, None, one.bytes) for one in group if one.state == "sealed"]
    )


def _joined(taken: Sequence[Range]) -> Range:
    return Range(
        first_position=taken[0].first_position,
        first_offset=taken[0].first_offset,
        last_position=taken[-1].last_position,
        last_offset=taken[-1].last_offset,
        records=sum(one.records for one in taken),
        generation=taken[0].generation,
    )


def _joins(first: StoredSegment, one: StoredSegment) -> bool:
    """Whether one more segment may follow; a delivery has one schema."""
    same_schema = one.schema_version == first.schema_version
    return one.state == "sealed" and one.generation == first.generation and same_schema


def _fits(one: StoredSegment, room_records: int | None, room_bytes: int) -> bool:
    return one.bytes <= room_bytes and (room_records is None or one.records <= room_records)


def _cut(one: StoredSegment, offset: int, records: int | None, bytes: int) -> Range:
    """As much of one segment as fits; at least one record."""
    left = one.records - offset
    if records is not None:
        left = min(left, records)
    if one.bytes > bytes:
        left = min(left, max(1, one.records * bytes // one.bytes))
    return Range(
        first_position=one.position,
        first_offset=offset,
        last_position=one.position,
        last_offset=offset + left,
        records=left,
        generation=one.generation,
    )
