"""The exception tree is the one that is drawn, and every error travels between processes whole."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import pytest

import muxly
from muxly import errors
from muxly.pipeline import RunFailedError, RunResult

WITH_FACTS: list[muxly.MuxlyError] = [
    muxly.ConfigurationError("wrong", path=("routes", 0, "router")),
    muxly.LeaseHeldError("held", holder="host 1"),
    muxly.RetryableError("busy", retry_after=2.5),
    muxly.QuotaError("spent", resume_at=datetime(2026, 1, 1, tzinfo=UTC)),
]


def classes() -> list[type[muxly.MuxlyError]]:
    return [one for name in errors.__all__ if issubclass(one := getattr(errors, name), muxly.MuxlyError)]


def drawn() -> dict[str, str]:
    """Each error and its parent, as the drawing in the docstring shows them."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"(    [\s│├└─]*)([A-Z]\w+Error)\b", line):
            depth, name = len(found[1]), found[2]
            path = [one for one in path if one[0] < depth]
            if path:
                parents[name] = path[-1][1]
            path.append((depth, name))
    return parents


def test_tree_is_the_one_that_is_drawn() -> None:
    assert drawn() == {one.__name__: one.__bases__[0].__name__ for one in classes() if one is not muxly.MuxlyError}


def test_every_error_is_listed() -> None:
    defined = {name for name, one in vars(errors).items() if inspect.isclass(one) and one.__module__ == errors.__name__}
    assert defined == set(errors.__all__)


def made(kind: type[muxly.MuxlyError]) -> muxly.MuxlyError:
    return kind("what and where", holder="host 1") if issubclass(kind, muxly.LeaseHeldError) else kind("what and where")


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_pickles_and_copies(kind: type[muxly.MuxlyError]) -> None:
    error = made(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == again.message == "what and where"
        assert again.args == ("what and where",)


@pytest.mark.parametrize("error", WITH_FACTS, ids=lambda error: type(error).__name__)
def test_facts_travel_too(error: muxly.MuxlyError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)


class ThrottledError(muxly.RetryableError):
    """A plugin's own error, made in its own way."""

    def __init__(self, status: int, *, body: str) -> None:
        super().__init__(f"status {status}", retry_after=1.0)
        self.status, self.body = status, body


def test_errors_of_plugins_travel_whatever_their_arguments() -> None:
    again = pickle.loads(pickle.dumps(ThrottledError(429, body="slow down")))
    assert (again.status, again.body, again.retry_after, str(again)) == (429, "slow down", 1.0, "status 429")


def test_notes_travel_too() -> None:
    error = muxly.RouteError("no permission")
    error.add_note("ask the owner of the bucket")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["ask the owner of the bucket"]


def test_failed_run_travels_with_its_result() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    result = RunResult(id="1", pipeline="p", state="failed", started_at=now, finished_at=now, error="because")
    with pytest.raises(RunFailedError, match="the run of p is failed: because") as caught:
        result.raise_for_status()
    assert pickle.loads(pickle.dumps(caught.value)).result == result


def test_reading_and_delivering_errors_are_kept_apart() -> None:
    """A router's ``except ReadError`` must not swallow what concerns a delivery."""
    both: Any = [one for one in classes() if issubclass(one, muxly.ReadError) and issubclass(one, muxly.DeliveryError)]
    assert both == []
    assert not issubclass(muxly.RetryableError, muxly.ReadError | muxly.DeliveryError)
