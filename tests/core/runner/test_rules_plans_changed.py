"""What happens to plans and generations when options change in between."""

from __future__ import annotations

from pathlib import Path

import pytest

import muxly
from muxly._runner.options import Replay
from muxly_testing import CollectingRouter, FakeConnector, Fault
from tests.core.runner.test_run import pipeline


def test_unfinished_plan_of_other_options_is_discarded_with_a_notice(tmp_path: Path) -> None:
    broken = FakeConnector(records=300, faults=[Fault(method="read", action="QuotaError", at=1)])
    assert muxly.run(pipeline(broken, CollectingRouter()), home=tmp_path).state == "partial"
    changed = FakeConnector(records=300, seed=1)
    result = muxly.run(pipeline(changed, CollectingRouter()), home=tmp_path)
    assert (result.state, result.error) == ("succeeded", None)
    assert "plan_discarded" in [notice.code for notice in result.notices]


def test_part_of_a_generation_cannot_be_replayed_into_replace(tmp_path: Path) -> None:
    chosen = pipeline(FakeConnector(records=30), CollectingRouter(), streams={"numbers": {"read": "full"}})
    assert muxly.run(chosen, home=tmp_path).state == "succeeded"
    with pytest.raises(muxly.ConfigurationError, match="replaces the whole stream 'numbers'"):
        muxly.run(chosen, home=tmp_path, replay=Replay(route="r0", partial=True))
