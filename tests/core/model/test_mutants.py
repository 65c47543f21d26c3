"""The checker is worth something: it finds every rule that is left out, and nothing when all hold."""

from __future__ import annotations

import pytest

from tests.core.model.events import KINDS, explore
from tests.core.model.rules import ALL_RULES, MUTANTS, rule_number, without
from tests.core.model.verdict import Violation

EXAMPLES = 1500
ABOUT_LOGS = {"split_is_recorded", "seal_knows_its_group", "seal_checks_cursor", "unsorted_is_one_group"}


@pytest.mark.parametrize("name", MUTANTS)
def test_leaving_a_rule_out_is_noticed(name: str) -> None:
    rules, number = without(name), rule_number(name)
    kinds = {10: ("days", "log"), 11: ("full",)}.get(number, ("log",) if name in ABOUT_LOGS else KINDS)
    found = None
    for seed in range(EXAMPLES):
        try:
            explore(seed, rules, kinds)
        except (Violation, KeyError) as violation:
            found = violation
            break
    assert found is not None, f"{EXAMPLES} random lives without the rule {name!r} broke nothing"


@pytest.mark.parametrize("block", range(4))
def test_all_rules_together_lose_and_double_nothing(block: int) -> None:
    for seed in range(block * 50, (block + 1) * 50):
        explore(seed, ALL_RULES)
