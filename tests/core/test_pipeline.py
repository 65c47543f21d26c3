"""Pipelines are checked when they are made, and results add up."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import muxly
from muxly_testing import CollectingRouter, FakeConnector


def route(name: str = "lake", **facts: Any) -> muxly.Route:
    return muxly.Route(name, CollectingRouter(token="pipeline-tests"), **facts)


def pipeline(**facts: Any) -> muxly.Pipeline:
    return muxly.Pipeline("daily", FakeConnector(), **{"routes": [route()], **facts})


def test_mappings_become_rules_columns_and_limits() -> None:
    made = pipeline(
        routes=[route(columns={"exclude": "email"}, batch={"records": 10}, streams="deals")],
        streams={"deals": {"read": "full", "primary_key": "id"}, "*": None},
    )
    assert made.routes[0].columns == muxly.Columns(exclude=("email",))
    assert made.routes[0].batch == muxly.BatchLimits(records=10)
    assert made.routes[0].streams == ("deals",)
    assert made.streams == {"deals": muxly.StreamRules(read="full", primary_key=("id",)), "*": muxly.StreamRules()}


def test_single_route_needs_no_list() -> None:
    assert [one.name for one in pipeline(routes=route()).routes] == ["lake"]


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "ä", "x" * 64, "../x", 5, None])
def test_names_that_could_be_paths_or_mistaken_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="cannot be a name: 1 to 63 letters, digits"):
        route(name)
    with pytest.raises(ValueError, match="cannot be a name"):
        muxly.Pipeline(name, FakeConnector(), routes=[route()])


@pytest.mark.parametrize("name", ["a", "A.b-c_1", "9", "x" * 63])
def test_other_names_are_taken(name: str) -> None:
    assert route(name).name == name


def test_route_is_its_name() -> None:
    with pytest.raises(ValueError, match="two routes are named 'lake'; route names must be unique"):
        pipeline(routes=[route(), route("other"), route()])


def test_pipeline_without_routes_is_refused() -> None:
    with pytest.raises(ValueError, match="a pipeline needs at least one route"):
        pipeline(routes=[])


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"mode": "upsrt"}, muxly.ConfigurationError, r'^Route.mode: expected one of .*; did you mean "upsert"\?$'),
        ({"backlog": "drop"}, muxly.ConfigurationError, r'^Route.backlog: expected one of stop, detach, got "drop"$'),
        ({"max_rejected": -1}, ValueError, "'max_rejected' must be >= 0"),
        ({"batch": {"records": 0}}, ValueError, "'records' must be >= 1"),
        ({"batch": {"bytes": 0}}, ValueError, "'bytes' must be > 0"),
        ({"batch": 5}, TypeError, r"^Route.batch: expected a muxly.BatchLimits, got a value of type int$"),
        ({"columns": "email"}, TypeError, r"^Route.columns: expected a muxly.Columns, got a value of type str$"),
        ({"retry": 5}, TypeError, r"^Route.retry: expected a muxly.Backoff, got a value of type int$"),
        ({"columns": {"drop": ["a"]}}, TypeError, "unexpected keyword argument 'drop'"),
    ],
)
def test_route_refuses_what_it_does_not_know(facts: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        route(**facts)


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"parallel": 0}, ValueError, "'parallel' must be >= 1"),
        ({"memory_bytes": 1000}, ValueError, "'memory_bytes' must be >= 1048576"),
        ({"segment_bytes": 0}, ValueError, "'segment_bytes' must be >= 1"),
        ({"spool_bytes": 0}, ValueError, "'spool_bytes' must be >= 1"),
        ({"retention_seconds": -1}, ValueError, "'retention_seconds' must be >= 0"),
        ({"stall_seconds": float("nan")}, ValueError, "'stall_seconds' must be > 0"),
        ({"new_streams": "ignore"}, muxly.ConfigurationError, "Pipeline.new_streams: expected one of evolve, freeze, "),
        ({"streams": {"a": {"read": "ful"}}}, muxly.ConfigurationError, r'StreamRules.read: .*; did you mean "full"\?'),
        ({"streams": {"a": {"new_columns": "drop"}}}, muxly.ConfigurationError, "StreamRules.new_columns: expected"),
        ({"streams": {"a": {"new_types": "drop"}}}, muxly.ConfigurationError, "StreamRules.new_types: expected one"),
        ({"streams": {"a": {"on_stale_cursor": "go"}}}, muxly.ConfigurationError, "StreamRules.on_stale_cursor: exp"),
        ({"retry": 5}, TypeError, "Pipeline.retry: expected a muxly.Backoff, got a value of type int"),
        ({"streams": {"a": {"reed": "full"}}}, TypeError, "unexpected keyword argument 'reed'"),
        (
            {"streams": {"a": "full"}},
            TypeError,
            "the rules of 'a' must be a muxly.StreamRules or a mapping .* not 'full'",
        ),
        ({"routes": ["lake"]}, TypeError, r"^Pipeline.routes\[0\]: expected a muxly.Route, got a value of type str$"),
        ({"routes": "lake"}, TypeError, r"^Pipeline.routes\[0\]: expected a muxly.Route, got a value of type str$"),
        ({"routes": None}, TypeError, r"^Pipeline.routes\[0\]: expected a muxly.Route, got a value of type NoneType$"),
    ],
)
def test_pipeline_refuses_what_it_does_not_know(facts: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pipeline(**facts)


ROUTER = r'got the router CollectingRouter; a router belongs in a route: muxly.Route\("NAME", CollectingRouter\('
CONNECTOR = r'got the connector FakeConnector; a connector belongs in muxly.Pipeline\("NAME", FakeConnector\('


def test_what_stands_in_a_wrong_place_is_told_where_it_belongs() -> None:
    router: Any = CollectingRouter(token="pipeline-tests")
    connector: Any = FakeConnector()
    kind: Any = CollectingRouter
    with pytest.raises(TypeError, match=rf"^Route.router: expected a muxly.Router, {CONNECTOR}"):
        muxly.Route("lake", connector)
    with pytest.raises(TypeError, match=r"^Route.router: .* got the class CollectingRouter; write CollectingRouter\("):
        muxly.Route("lake", kind)
    with pytest.raises(TypeError, match=r"^Route.router: .* got a route; a route belongs in the list routes="):
        muxly.Route("lake", route())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"^Pipeline.connector: expected a muxly.Connector, {ROUTER}"):
        muxly.Pipeline("daily", router, routes=[route()])
    with pytest.raises(TypeError, match=rf"^Pipeline.routes\[1\]: expected a muxly.Route, {ROUTER}"):
        pipeline(routes=[route(), router])
    with pytest.raises(TypeError, match=rf"^Pipeline.routes\[0\]: expected a muxly.Route, {ROUTER}"):
        pipeline(routes=router)
    with pytest.raises(TypeError, match=rf"^Pipeline.routes\[0\]: expected a muxly.Route, {CONNECTOR}"):
        pipeline(routes=[connector])


def test_wrong_choice_names_its_option() -> None:
    with pytest.raises(muxly.ConfigurationError, match="one of append, upsert, overwrite, replace") as caught:
        route(mode="merge")
    assert caught.value.path == ("mode",)


def test_pipelines_and_results_pickle() -> None:
    made = pipeline(streams={"*": {}})
    assert pickle.loads(pickle.dumps(made)) == made
    result = _result()
    assert pickle.loads(pickle.dumps(result)) == result


def _result(state: Any = "succeeded") -> muxly.RunResult:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lake = muxly.pipeline.RouteResult(sealed=5, delivered=4, rejected=1)
    return muxly.RunResult(
        id="01J", pipeline="daily", state=state, started_at=now, finished_at=now, routes={"lake": lake}, error="why"
    )


def test_only_success_passes() -> None:
    assert _result().raise_for_status() == _result()
    for state in ("partial", "failed", "stopped"):
        with pytest.raises(muxly.RunFailedError, match=f"the run of daily is {state}: why") as caught:
            _result(state).raise_for_status()
        assert caught.value.result.routes["lake"].delivered == 4


CAME = ("pending_before", "sealed", "replayed")
WENT = ("delivered", "rejected", "filtered", "dropped", "superseded", "quarantined", "pending")


@given(st.lists(st.integers(0, 5), min_size=10, max_size=10))
def test_account_balances_when_all_that_came_went(numbers: list[int]) -> None:
    facts: dict[str, Any] = dict(zip((*CAME, *WENT), numbers, strict=True))
    came, went = (sum(facts[name] for name in names) for names in (CAME, WENT))
    assert muxly.pipeline.RouteResult(**facts).balanced == (came == went)
    assert muxly.pipeline.RouteResult(**{**facts, "pending": facts["pending"] + came - went}).balanced
