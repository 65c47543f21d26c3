"""A run tells, waits and stops; a component without code of its own does no harm."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, timedelta
from typing import Any

import pytest

import muxly
from muxly_testing import delivery


def test_run_knows_what_it_is_for() -> None:
    run = muxly.Run("01J", "daily", params={"day": "2026-01-01"})
    assert (run.id, run.pipeline, run.params["day"], run.stopping) == ("01J", "daily", "2026-01-01", False)
    assert run.started_at.tzinfo is UTC


def test_params_are_the_runs_own() -> None:
    given = {"a": 1}
    run = muxly.Run("01J", "daily", params=given)
    given["a"] = 2
    assert run.params == {"a": 1}


@pytest.mark.parametrize("seconds", [0, -1, 0.001, math.nan])
def test_sleep_returns_after_its_time(seconds: float) -> None:
    muxly.Run("01J", "daily").sleep(seconds)


@pytest.mark.parametrize("seconds", [0, 60, 1e12, math.inf])
def test_sleep_ends_at_once_when_the_run_stops(seconds: float) -> None:
    stop = threading.Event()
    run = muxly.Run("01J", "daily", stop=stop)
    threading.Timer(0.05, stop.set).start()
    begun = time.monotonic()
    while seconds == 0 and not run.stopping:
        time.sleep(0.001)
    with pytest.raises(muxly.StoppedError, match="the run was asked to stop"):
        run.sleep(seconds)
    assert time.monotonic() - begun < 5
    assert run.stopping


def test_notices_and_measures_reach_whoever_listens() -> None:
    told: list[Any] = []
    run = muxly.Run(
        "01J",
        "daily",
        on_notice=told.append,
        on_measure=lambda name, value, stream: told.append((name, value, stream)),
    )
    notice = muxly.Notice("lookback_too_short", "Records came late.", stream="deals", facts={"late": 3})
    run.notice(notice)
    run.measure("api_calls", 2, stream="deals")
    run.measure("api_calls", 1)
    assert told == [notice, ("api_calls", 2, "deals"), ("api_calls", 1, None)]


def test_run_without_listeners_takes_notices_too() -> None:
    run = muxly.Run("01J", "daily")
    run.notice(muxly.Notice("a", "b"))
    run.measure("c", 1)


def test_component_needs_none_of_its_methods() -> None:
    class Silent(muxly.Component):
        """Nothing."""

    component = Silent()
    component.open(muxly.Run("01J", "daily"))
    assert list(component.check()) == []
    component.close()


def test_contracts_without_code_say_so() -> None:
    class Empty(muxly.Connector):
        """Nothing."""

    class Nowhere(muxly.Router):
        """Nothing."""

    stream = muxly.Stream("a")
    with pytest.raises(NotImplementedError, match=r"Empty needs a method streams\(self\)"):
        Empty().streams()
    with pytest.raises(NotImplementedError, match=r"Empty needs a method read\(self, stream, partition, cursor\)"):
        next(Empty().read(stream, muxly.Partition(), None))
    with pytest.raises(NotImplementedError, match=r"Nowhere needs a method deliver\(self, delivery\)"):
        Nowhere().deliver(delivery([{"id": 1}]))
    with pytest.raises(NotImplementedError, match="Nowhere has no mode replace"):
        Nowhere().begin(stream, 1)
    with pytest.raises(NotImplementedError, match="Nowhere has no mode replace"):
        Nowhere().complete(stream, 1)
    assert Empty().plan(stream, 5) == muxly.Plan([muxly.Partition(cursor=5)])


def test_stream_takes_keys_and_lookback_as_people_write_them() -> None:
    stream = muxly.Stream("deals", "id", overwrite_key=["day", "site"], lookback=3600)
    assert (stream.primary_key, stream.overwrite_key) == (("id",), ("day", "site"))
    assert stream.lookback == timedelta(hours=1)
    assert hash(stream) == hash(muxly.Stream("deals", "id", overwrite_key=["day", "site"], lookback=3600))
    with pytest.raises(TypeError, match="positional argument"):
        muxly.Stream("deals", (), ())  # type: ignore[call-arg]


def test_plan_and_partitions_are_values() -> None:
    plan = muxly.Plan((muxly.Partition(str(number)) for number in range(2)), cursor={"at": 1})
    assert plan == muxly.Plan([muxly.Partition("0"), muxly.Partition("1")], {"at": 1})
    with pytest.raises(AttributeError, match="set attribute"):
        plan.cursor = 5  # type: ignore[misc]
