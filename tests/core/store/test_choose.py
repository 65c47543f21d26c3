"""What the next delivery takes, as a pure function of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muxly.store.deliveries import choose
from muxly.store.rows import LogRange, StoredSegment


def segment(position: int, records: int = 10, **options: object) -> StoredSegment:
    """A segment of 10 bytes a record."""
    given = {"bytes": records * 10, "group": position, "generation": 0, "schema_version": 1, **options}
    return StoredSegment(
        stream="s", position=position, key=str(position), records=records, file="f", offset=0, length=1, digest="d",
        **given,  # type: ignore[arg-type]
    )  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[StoredSegment]:
    """Logs with groups, generations, schema versions and damage."""
    found: list[StoredSegment] = []
    group = generation = version = 1
    for position in range(1, draw(st.integers(1, 12)) + 1):
        if draw(st.booleans()):
            group = position
            generation += draw(st.integers(0, 1))
        version += draw(st.integers(0, 1)) if draw(st.booleans()) else 0
        state = draw(st.sampled_from(["sealed"] * 6 + ["quarantined", "dropped"])) if position > 1 else "sealed"
        records = draw(st.integers(0, 30))
        found.append(
            segment(position, records, group=group, generation=generation, schema_version=version, state=state)
        )
    return found


LIMITS = st.one_of(st.none(), st.integers(1, 60))


def taken(log: list[StoredSegment], chosen: LogRange, offset: int) -> list[tuple[StoredSegment, int, int]]:
    """Each segment of a range with its first and last record."""
    return [
        (
            one,
            chosen.first_offset if one.position == chosen.first_position else 0,
            chosen.last_offset if one.position == chosen.last_position else one.records,
        )
        for one in log
        if chosen.first_position <= one.position <= chosen.last_position and one.state != "dropped"
    ]


@given(logs(), LIMITS, st.integers(1, 700), st.data())
def test_range_begins_where_the_route_is_and_keeps_the_limits(
    log: list[StoredSegment], records: int | None, size: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, max(0, log[0].records - 1)))
    chosen = choose(log, offset, records=records, bytes=size, whole_groups=False)
    assert chosen is not None
    parts = taken(log, chosen, offset)
    assert (chosen.first_position, chosen.first_offset) == (1, offset)
    assert chosen.records == sum(end - begin for _one, begin, end in parts)
    assert records is None or chosen.records <= records
    assert all(one.state == "sealed" for one, _begin, _end in parts)
    assert len({(one.generation, one.schema_version) for one, _begin, _end in parts}) == 1
    assert len(parts) == 1 or sum(one.bytes for one, _begin, _end in parts) <= size
    assert all(end == one.records for one, _begin, end in parts[:-1])


@given(logs(), LIMITS, st.integers(1, 700))
def test_ranges_one_after_the_other_cover_the_log_once(
    log: list[StoredSegment], records: int | None, size: int
) -> None:
    log = [one for one in log if one.state == "sealed"]
    covered: dict[int, int] = {}
    waiting, offset = log, 0
    for _ in range(10_000):
        if not waiting:
            break
        chosen = choose(waiting, offset, records=records, bytes=size, whole_groups=False)
        assert chosen is not None
        for one, begin, end in taken(waiting, chosen, offset):
            assert covered.get(one.position, 0) == begin
            covered[one.position] = end
        last = next(one for one in waiting if one.position == chosen.last_position)
        whole = chosen.last_offset == last.records
        offset = 0 if whole else chosen.last_offset
        waiting = [one for one in waiting if one.position > last.position or (one is last and not whole)]
    assert not waiting
    assert covered == {one.position: one.records for one in log}


@given(logs(), LIMITS, st.integers(1, 700))
def test_whole_group_is_taken_whatever_its_size(log: list[StoredSegment], records: int | None, size: int) -> None:
    group = [one for one in log if one.group == log[0].group]
    chosen = choose(log, 0, records=records, bytes=size, whole_groups=True)
    if any(one.state == "quarantined" for one in group):
        assert chosen is None
        return
    assert chosen is not None
    kept = [one for one in group if one.state == "sealed"]
    assert (chosen.first_position, chosen.last_position) == (kept[0].position, kept[-1].position)
    assert chosen.records == sum(one.records for one in kept)


def test_nothing_waits_or_the_next_one_is_damaged() -> None:
    damaged = [segment(1, state="quarantined")]
    assert choose([], 0, records=None, bytes=1, whole_groups=False) is None
    assert choose(damaged, 0, records=None, bytes=1, whole_groups=False) is None
    assert choose(damaged, 0, records=None, bytes=1, whole_groups=True) is None


def test_one_record_larger_than_the_limit_is_still_taken() -> None:
    chosen = choose([segment(1, 1, bytes=10**9)], 0, records=None, bytes=10, whole_groups=False)
    assert chosen is not None
    assert chosen.records == 1
