"""Positions, deliveries, retention and accounts on both databases (rules 6 to 11, 14 and 15)."""

from __future__ import annotations

import pytest
from attrs import evolve
from sqlalchemy import Engine

from muxly.errors import FencedError, StoppedError, StreamError
from muxly.store import accounts, acknowledge, dead_letters, deliveries, positions, retention
from muxly.store.ledger import Ledger
from muxly.store.rows import Letter, RoutePosition
from tests.core.store.ledgers import delivered, following, opened, planned, sealed, written


def filled(store: Engine, *records: int) -> Ledger:
    """A ledger with one group of such segments."""
    ledger = opened(store)
    sealed(ledger, planned(ledger, "a"), *(written(one) for one in records), cursor_after=1)
    return ledger


def position(ledger: Ledger, route: str = "lake") -> RoutePosition:
    """Where the route is."""
    return next(one for one in positions.every(ledger) if one.route == route)


def test_delivery_keeps_its_id_and_bounds_until_it_ends(store: Engine) -> None:
    ledger = filled(store, 5, 5)
    first = following(ledger)
    sealed(ledger, planned(ledger, "b"), written(7))
    assert first is not None
    assert following(ledger, records=1) == first
    acknowledge.acknowledge(ledger, first, delivered=10, filtered=0)
    assert position(ledger).position == 2
    with pytest.raises(FencedError, match="was ended by another run"):
        acknowledge.acknowledge(ledger, first, delivered=10, filtered=0)


def test_routes_have_their_own_positions(store: Engine) -> None:
    ledger = filled(store, 5)
    assert delivered(ledger) == 5
    assert accounts.pending(ledger) == {("lake", "s"): 0, ("warehouse", "s"): 5}
    assert accounts.pending_bytes(ledger) == 50


def test_cut_segment_is_acknowledged_piece_by_piece(store: Engine) -> None:
    ledger = filled(store, 5, 5)
    seen = []
    for _ in range(4):
        one = following(ledger, records=3)
        assert one is not None
        acknowledge.acknowledge(ledger, one, delivered=one.records, filtered=0)
        here = position(ledger)
        seen.append((one.records, here.position, here.offset, accounts.pending(ledger)["lake", "s"]))
    assert seen == [(3, 0, 3, 7), (2, 1, 0, 5), (3, 1, 3, 2), (2, 2, 0, 0)]


def test_numbers_that_do_not_add_up_are_refused(store: Engine) -> None:
    ledger = filled(store, 5)
    one = following(ledger)
    assert one is not None
    with pytest.raises(ValueError, match="do not add up to its 5 records"):
        acknowledge.acknowledge(ledger, one, delivered=4, filtered=0)
    with pytest.raises(ValueError, match="the limit is 1 MiB"):
        acknowledge.acknowledge(ledger, one, delivered=5, filtered=0, state="x" * (1 << 20))
    assert position(ledger).position == 0


def test_acknowledgement_keeps_rejected_records_state_and_sums_together(store: Engine) -> None:
    ledger = filled(store, 5)
    one = following(ledger)
    assert one is not None
    letter = Letter(stream="s", reason="bad", position=1, number=3)
    acknowledge.acknowledge(ledger, one, delivered=3, filtered=1, rejected=[letter], state={"page": 7})
    sums = accounts.of_run(ledger)["lake", "s"]
    assert (sums["delivered"], sums["filtered"], sums["rejected"]) == (3, 1, 1)
    assert position(ledger).state == {"page": 7}
    assert dead_letters.count(ledger) == {("lake", "s"): 1}


def test_split_is_stored_before_a_part_is_tried(store: Engine) -> None:
    ledger = filled(store, 4)
    one = following(ledger)
    assert one is not None
    head = evolve(one, last_offset=1, records=1)
    rest = evolve(one, first_offset=1, records=3)
    parts = deliveries.split(ledger, one, [head, rest])
    assert len({one.id, *(part.id for part in parts)}) == 3
    assert following(ledger) == parts[0]
    assert delivered(ledger) == 4


def test_quarantined_segment_is_counted_and_blocks_until_it_is_dropped(store: Engine) -> None:
    ledger = filled(store, 5, 6, 7)
    delivered(ledger, "warehouse")
    retention.quarantine(ledger, retention.log(ledger)[0])
    retention.quarantine(ledger, retention.log(ledger)[0])
    with pytest.raises(StreamError, match="the segment 1 of stream 's' is quarantined"):
        following(ledger)
    assert accounts.of_run(ledger)["lake", "s"]["quarantined"] == 5
    assert retention.drop(ledger, "s", [1, 1])[0] == 5
    sums = accounts.of_run(ledger)["lake", "s"]
    assert (sums["quarantined"], sums["dropped"]) == (0, 5)
    assert delivered(ledger) == 13


def test_damaged_part_of_a_group_is_named_where_groups_are_whole(store: Engine) -> None:
    ledger = filled(store, 5, 6)
    retention.quarantine(ledger, retention.log(ledger)[1])
    with pytest.raises(StreamError, match="the segment 2 of stream 's' is quarantined"):
        following(ledger, whole_groups=True)


def test_whole_group_of_more_segments_than_are_looked_at_is_one_delivery(store: Engine) -> None:
    ledger = filled(store, *([1] * 700))
    one = following(ledger, whole_groups=True)
    assert one is not None
    assert (one.first_position, one.last_position, one.records) == (1, 700, 700)


def test_file_goes_with_its_last_segment_and_only_when_every_route_has_it(store: Engine) -> None:
    ledger = opened(store)
    sealed(ledger, planned(ledger, "a"), written(1, file="x"), written(1, file="x"), written(1, file="y"))
    delivered(ledger)
    assert retention.prune(ledger, keep_seconds=0, keep_bytes=0) == []
    one = following(ledger, "warehouse", records=1)
    assert one is not None
    acknowledge.acknowledge(ledger, one, delivered=1, filtered=0)
    assert retention.prune(ledger, keep_seconds=0, keep_bytes=0) == []
    delivered(ledger, "warehouse")
    assert retention.prune(ledger, keep_seconds=0, keep_bytes=0) == ["x", "y"]
    assert retention.files(ledger) == set()


def test_retention_keeps_the_newest_bytes(store: Engine) -> None:
    ledger = filled(store, 1, 1, 1)
    delivered(ledger)
    delivered(ledger, "warehouse")
    assert retention.prune(ledger, keep_seconds=3600, keep_bytes=30) == []
    assert len(retention.prune(ledger, keep_seconds=3600, keep_bytes=20)) == 1
    assert [one.position for one in retention.log(ledger)] == [2, 3]


def test_detached_route_needs_nothing_and_goes_on_where_it_was(store: Engine) -> None:
    ledger = filled(store, 5)
    following(ledger)
    positions.detach(ledger, "lake", ["s"])
    sealed(ledger, planned(ledger, "b"), written(2))
    assert following(ledger) is None
    assert positions.supersede(ledger, "lake", "s", generation=9) == 0
    assert accounts.pending(ledger)["lake", "s"] == 0
    assert accounts.of_run(ledger)["lake", "s"]["dropped"] == 7
    assert positions.replay(ledger, "lake", "s", 0) == 7
    assert delivered(ledger) == 7


def test_delivery_that_ends_after_its_route_was_detached_is_not_counted_twice(store: Engine) -> None:
    """A worker that was left behind as stalled wakes up late: its records count as dropped already."""
    ledger = filled(store, 5)
    late = following(ledger)
    assert late is not None
    positions.detach(ledger, "lake", ["s"])
    with pytest.raises(StoppedError, match="route 'lake' was detached while it delivered stream 's'"):
        acknowledge.acknowledge(ledger, late, delivered=5, filtered=0)
    sums = accounts.of_run(ledger)["lake", "s"]
    assert (sums["delivered"], sums["dropped"]) == (0, 5)
    assert positions.replay(ledger, "lake", "s", 0) == 5
    assert following(ledger) == late


def test_newer_whole_generation_supersedes_what_waits_of_older_ones(store: Engine) -> None:
    ledger = opened(store)
    sealed(ledger, planned(ledger, "a", from_start=True), written(5), done=True)
    sealed(ledger, planned(ledger, "a", from_start=True), written(3), done=True)
    assert positions.supersede(ledger, "lake", "s", generation=2) == 5
    assert delivered(ledger) == 3
    assert accounts.of_run(ledger)["lake", "s"]["superseded"] == 5


def test_late_route_begins_at_the_head_and_renamed_one_keeps_its_place(store: Engine) -> None:
    ledger = filled(store, 5)
    late = positions.register(ledger, {"s": ["late"]}, {})
    assert [(one.route, one.position) for one in late] == [("late", 1)]
    positions.rename(ledger, "lake", "pond")
    assert accounts.pending(ledger)["pond", "s"] == 5
    assert positions.forget(ledger, "pond") == 5
    assert ("pond", "s") not in accounts.pending(ledger)


def test_dead_letters_are_delivered_again_in_the_order_of_the_log(store: Engine) -> None:
    ledger = filled(store, 5)
    one = following(ledger)
    assert one is not None
    refused = [Letter(stream="s", reason="bad", position=1, number=number) for number in (4, 0, 2)]
    acknowledge.acknowledge(ledger, one, delivered=2, filtered=0, rejected=refused)
    ids = dead_letters.waiting_ids(ledger, "lake")["s"]
    numbers = {kept.id: kept.letter.number for kept in dead_letters.waiting(ledger, ids=ids)}
    assert [numbers[name] for name in ids] == [0, 2, 4]
    again = deliveries.store_letters_delivery(ledger, "lake", "s", ids, {"mode": "append"})
    assert accounts.pending(ledger)["lake", "s"] == 3
    acknowledge.acknowledge(ledger, again, delivered=3, filtered=0)
    assert dead_letters.waiting(ledger) == []
    assert deliveries.open_letters(ledger, "lake", "s") == []
