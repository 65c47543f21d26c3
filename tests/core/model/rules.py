"""The rules of spool and ledger as switches, so that a test can leave one out and see what breaks."""

from __future__ import annotations

from attrs import evolve, field, fields, frozen

__all__ = ["ALL_RULES", "MUTANTS", "Rules", "rule_number", "without"]


def rule(text: str) -> bool:
    """One rule; on unless a mutant leaves it out. The number is the one of the design."""
    value: bool = field(default=True, kw_only=True, metadata={"text": text})
    return value


@frozen
class Rules:
    """Each rule of the design that a model without it visibly breaks."""

    readings_have_own_keys: bool = rule("1: no reading ever uses a segment key of another one")
    schema_merges: bool = rule("2: the stream's schema only widens")
    groups_end_at_cursors: bool = rule("3: a group ends only where reading can resume")
    unsorted_is_one_group: bool = rule("3: a partition without cursors is one group")
    seal_checks_token: bool = rule("4: a seal under an old lease token is refused")
    seal_checks_cursor: bool = rule("4: a seal that does not continue the partition is refused")
    seal_knows_its_group: bool = rule("4: ties make cursors equal, so a group names the one it follows")
    seal_is_one_transaction: bool = rule("4: segments and cursor move together")
    seal_follows_fsync: bool = rule("4: the bytes are fsynced before the rows exist")
    seal_follows_folder_fsync: bool = rule("4: the name is fsynced before the rows exist")
    empty_cursor_keeps: bool = rule("4: an empty cursor never replaces one")
    empty_reading_commits: bool = rule("4: a reading without records commits its cursor")
    orphans_are_swept: bool = rule("4: a spool file without rows is swept by the next lease holder")
    sweep_spares_the_living: bool = rule("4: only what older tokens left is swept")
    extraction_rejects_are_sealed: bool = rule("4: the extraction's own dead letters are sealed with the group")
    plan_is_stored: bool = rule("5: an unfinished plan is finished in its own window")
    plan_of_other_options_is_dropped: bool = rule("5: a plan made under other options is discarded")
    cursor_waits_for_plan: bool = rule("5: the stream's cursor moves when the plan's last group is sealed")
    cursor_never_goes_back: bool = rule("5: the followed cursor never goes back")
    ties_are_read_again: bool = rule("5: reading is inclusive, so late ties are seen")
    ties_are_remembered: bool = rule("5: unchanged repeats at the boundary are dropped")
    delivery_is_stored_first: bool = rule("6: the delivery is stored before its first attempt")
    delivery_is_frozen: bool = rule("6: its bounds never change")
    delivery_ids_are_new: bool = rule("6: ids are ULIDs, never segment keys")
    split_is_recorded: bool = rule("6: a split is recorded before either half is tried")
    digest_is_checked: bool = rule("6: the bytes that are handed over are the ones that were sealed")
    durable_before_acknowledge: bool = rule("7: acknowledged only after the destination is durable")
    acknowledge_checks_token: bool = rule("7: an acknowledgement under an old token is refused")
    acknowledge_is_one_transaction: bool = rule("7: position, account and dead letters move together")
    rejects_are_kept: bool = rule("7: every rejected record becomes a dead letter")
    mark_is_kept: bool = rule("7: a position inside a delivery is durable")
    repeat_answers_alike: bool = rule("7: a repeat of a delivery returns the same receipt")
    max_rejected_holds: bool = rule("7: more rejects than allowed fail the route")
    route_errors_reject_nothing: bool = rule("7: an error of the route never makes dead letters")
    routes_are_independent: bool = rule("8: a dead route does not stop the others")
    budget_counts_pending: bool = rule("8: only pending segments count against the budget")
    full_spool_ends_reading: bool = rule("8: reading ends when a dead route fills the spool")
    detach_keeps_position: bool = rule("8: a detached route keeps its position")
    prune_waits_for_all: bool = rule("9: only what every route has acknowledged is pruned")
    prune_row_first: bool = rule("9: the row goes first, then the file")
    prune_counts_references: bool = rule("9: a file goes with its last segment")
    drop_is_counted: bool = rule("9: dropped segments are counted")
    corrupt_blocks_only_itself: bool = rule("9: a corrupt segment blocks its own stream only")
    upsert_keeps_the_greater: bool = rule("10: the greater cursor value wins, whatever arrives last")
    overwrite_whole_groups: bool = rule("10: an overwrite delivery carries whole groups")
    overwrite_once_per_delivery: bool = rule("10: one delivery replaces one value once")
    overwrite_empties: bool = rule("10: a value without records is emptied")
    overwrite_before_filter: bool = rule("10: the values to replace are those before filters")
    generation_continues: bool = rule("11: an unfinished generation is continued")
    complete_after_all_partitions: bool = rule("11: complete only when every partition is sealed")
    complete_after_all_deliveries: bool = rule("11: complete only when every delivery is acknowledged")
    complete_without_records: bool = rule("11: a generation of zero records is completed too")
    begin_keeps_its_own: bool = rule("11: a repeated begin keeps what the generation delivered")
    old_generation_is_refused: bool = rule("11: an older generation than the visible one is refused")
    join_waits_for_a_whole_generation: bool = rule("11: a route added inside a generation begins with the next")
    superseded_is_counted: bool = rule("11: superseded records are counted")
    filtered_is_counted: bool = rule("12: filtered records are counted")
    null_is_filtered: bool = rule("12: where = null means filtered")
    one_run_at_a_time: bool = rule("13: one run holds the lease")
    takeover_raises_token: bool = rule("13: every lease has a greater token")
    prune_keeps_sums: bool = rule("14: pruning never changes the account")
    removed_routes_refuse: bool = rule("15: a removed route with pending records refuses the run")
    added_routes_start_at_head: bool = rule("15: an added route starts at the head")
    replay_names_what_is_missing: bool = rule("15: a replay fails where the spool has a gap")
    replay_has_new_ids: bool = rule("15: a replay is delivered under new ids")
    replay_from_here_keeps_the_delivery: bool = rule("15: a replay that skips nothing back keeps the open delivery")
    limit_moves_nothing: bool = rule("16: --limit moves no cursor")
    commits_survive_power: bool = rule("17: an acknowledged commit survives a power cut")


ALL_RULES = Rules()
MUTANTS = tuple(attribute.name for attribute in fields(Rules))


def rule_number(name: str) -> int:
    """Which rule of the design it is part of."""
    return int(getattr(fields(Rules), name).metadata["text"].split(":")[0])


def without(name: str) -> Rules:
    """All rules but one."""
    return evolve(ALL_RULES, **{name: False})
