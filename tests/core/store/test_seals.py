"""Seals, plans and leases on both databases (rules 4, 5 and 13)."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine

from muxly.errors import FencedError, LeaseHeldError
from muxly.store import accounts, dead_letters, plans, positions, retention, runs
from muxly.store import ledger as leases
from muxly.store.rows import Letter
from tests.core.store.ledgers import opened, planned, sealed, written


def test_segments_get_consecutive_positions_and_groups_stay_together(store: Engine) -> None:
    ledger = opened(store)
    plan = planned(ledger, "a")
    first = sealed(ledger, plan, written(1), written(2), cursor_after=1)
    second = sealed(ledger, plan, written(3), cursor_before=1, cursor_after=2)
    assert [(one.position, one.group) for one in [*first, *second]] == [(1, 1), (2, 1), (3, 3)]
    assert retention.log(ledger) == [*first, *second]
    assert accounts.of_run(ledger)["", "s"]["sealed"] == 6


def test_group_that_does_not_continue_its_partition_is_refused_with_all_of_its_transaction(store: Engine) -> None:
    ledger = opened(store)
    plan = planned(ledger, "a")
    sealed(ledger, plan, written(1), cursor_after=1)
    with pytest.raises(FencedError, match="'a' was continued by another run"):
        sealed(ledger, plan, written(9), cursor_before=None, cursor_after=5)
    assert [one.records for one in retention.log(ledger)] == [1]


def test_partition_that_is_done_or_whose_plan_is_discarded_takes_no_more(store: Engine) -> None:
    ledger = opened(store)
    plan = planned(ledger, "a", "b")
    sealed(ledger, plan, done=True)
    with pytest.raises(FencedError, match="continued by another run"):
        sealed(ledger, plan, written(1))
    plans.discard(ledger, "s")
    with pytest.raises(FencedError, match="continued by another run"):
        sealed(ledger, plan, written(1), ordinal=1, partition="b")


def test_cursor_of_the_stream_moves_only_with_the_last_partition(store: Engine) -> None:
    ledger = opened(store)
    plan = planned(ledger, "a", "b", cursor=9)
    sealed(ledger, plan, written(1), done=True, cursor_after=1)
    assert plans.stream_cursor(ledger, "s") is None
    sealed(ledger, plan, ordinal=1, partition="b", done=True)
    assert plans.stream_cursor(ledger, "s") == 9
    assert plans.unfinished(ledger, "s") is None


@pytest.mark.parametrize(("names", "cursor"), [(("a",), 1), (("a", "b"), {"a": 1, "b": 2}), (('"', "\0"), None)])
def test_cursor_without_one_of_the_plan_comes_from_its_partitions(
    store: Engine, names: tuple[str, ...], cursor: object
) -> None:
    ledger = opened(store)
    plan = planned(ledger, *names)
    for number, name in enumerate(names):
        sealed(ledger, plan, ordinal=number, partition=name, done=True, cursor_after=number + 1)
    expected = cursor if cursor is not None else {name: number + 1 for number, name in enumerate(names)}
    assert plans.stream_cursor(ledger, "s") == expected


def test_empty_cursor_replaces_none(store: Engine) -> None:
    ledger = opened(store)
    sealed(ledger, planned(ledger, "a", cursor=5), done=True)
    sealed(ledger, planned(ledger, "a"), done=True)
    assert plans.stream_cursor(ledger, "s") == 5


def test_empty_plan_is_done_at_once_and_moves_the_cursor(store: Engine) -> None:
    ledger = opened(store)
    planned(ledger, cursor="there")
    assert plans.stream_cursor(ledger, "s") == "there"
    assert plans.unfinished(ledger, "s") is None


def test_unfinished_plan_goes_on_where_it_was_sealed_under_the_same_options_only(store: Engine) -> None:
    ledger = opened(store)
    plan = planned(ledger, "a", "b")
    sealed(ledger, plan, written(1), cursor_after="here")
    found = plans.unfinished(ledger, "s", "o")
    assert found is not None
    assert [(one.cursor, one.done) for one in found.partitions] == [("here", False), (None, False)]
    assert plans.unfinished(ledger, "s", "other") is None


def test_dead_letters_of_reading_keep_the_order_in_which_they_were_read(store: Engine) -> None:
    ledger = opened(store)
    places = [f"a.csv:{line}" for line in range(100)]
    found = tuple(Letter(stream="s", reason="bad", place=place) for place in places)
    sealed(ledger, planned(ledger, "a"), written(1), letters=found)
    assert [one.letter.place for one in dead_letters.waiting(ledger)] == places


def test_dead_letters_of_reading_are_sealed_with_their_group(store: Engine) -> None:
    ledger = opened(store)
    letter = Letter(stream="s", reason="nul \0", place="\udcff:1", record=b"x", format="bytes")
    sealed(ledger, planned(ledger, "a"), written(1), letters=(letter,))
    (kept,) = dead_letters.waiting(ledger)
    assert (kept.route, kept.letter.reason, kept.letter.place) == ("", "nul \\0", "\\udcff:1")
    assert accounts.of_run(ledger)["", "s"]["rejected"] == 1


def test_plan_from_the_start_begins_a_generation_for_its_children_too(store: Engine) -> None:
    ledger = opened(store)
    first = planned(ledger, "a", from_start=True)
    sealed(ledger, first, written(1), written(1, stream="s.parts", parent="s"), done=True)
    second = planned(ledger, "a", from_start=True)
    sealed(ledger, second, done=True)

    found = positions.generations_of(ledger, "s.parts")
    assert (first.generation, second.generation, found.newest, found.sealed) == (1, 2, 2, 2)


def test_lease_has_one_holder_who_is_named_and_a_greater_token_each_time(store: Engine) -> None:
    first = leases.acquire_lease(store, "daily", "r1", holder="the first", spool="")
    with pytest.raises(LeaseHeldError, match="is already being run by the first"):
        leases.acquire_lease(store, "daily", "r2", holder="the second", spool="")
    leases.release_lease(first)
    second = leases.acquire_lease(store, "daily", "r2", holder="the second", spool="")
    assert second.token > first.token
    with pytest.raises(FencedError, match="has taken over"), first.write():
        pass
    with pytest.raises(FencedError, match="has taken over"):
        leases.renew_lease(first)
    leases.release_lease(first)
    leases.renew_lease(second)


def test_lease_that_ran_out_and_one_whose_lock_is_free_are_taken_over(store: Engine) -> None:
    leases.acquire_lease(store, "daily", "r1", holder="dead", spool="here", ttl_seconds=3600)
    leases.acquire_lease(store, "daily", "r2", holder="same spool", spool="here", ttl_seconds=-1)
    assert leases.acquire_lease(store, "daily", "r3", holder="any", spool="").token == 3


def test_first_runs_of_two_machines_at_once_give_one_the_lease(store: Engine) -> None:
    together = threading.Barrier(4)
    found: list[object] = []

    def begin(number: int) -> None:
        together.wait()
        try:
            found.append(leases.acquire_lease(store, "new", f"r{number}", holder=str(number), spool=f"spool {number}"))
        except LeaseHeldError as error:
            found.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(one).__name__ for one in found) == ["LeaseHeldError"] * 3 + ["Ledger"]


def test_run_that_a_dead_holder_left_is_marked_as_crashed(store: Engine) -> None:
    opened(store)
    ledger = opened(store)
    runs.finish(ledger, state="failed", error="nul \0 and \ud800", result={})
    states = {row["state"]: row["error"] for row in runs.recent(ledger)}
    assert states == {"crashed": None, "failed": "nul \\0 and \\ud800"}
