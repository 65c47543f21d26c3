"""``muxly replay``: what is delivered again, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.commands import answer, muxly, pipeline, project, refusing, route


def test_route_that_came_later_is_filled_from_the_spool(tmp_path: Path) -> None:
    muxly("run", project(tmp_path, {"daily": pipeline({"first": route()})}))
    file = project(tmp_path, {"daily": pipeline({"first": route(), "late": route()}, records=0)})
    found = answer("run", file)
    assert found["routes"]["late"]["delivered"] == 0
    assert any("muxly replay --route late" in one["message"] for one in found["notices"])
    found = answer("replay", file, "--route", "late")
    assert found["routes"]["late"]["delivered"] == found["routes"]["late"]["replayed"] == 30
    assert found["routes"]["first"]["delivered"] == 0
    assert found["streams"] == {}


def test_dead_letters_are_delivered_when_their_cause_is_mended(tmp_path: Path) -> None:
    strict = {**route(reject=[7, 9]), "max_rejected": 5}
    muxly("run", project(tmp_path, {"daily": pipeline({"strict": strict})}))
    file = project(tmp_path, {"daily": pipeline({"strict": {**strict, "router": route()["router"]}})})
    assert answer("replay", file, "--route", "strict", "--dead-letters")["routes"]["strict"]["delivered"] == 2
    assert answer("dead-letters", "list", file) == []


def test_missing_positions_are_named_unless_a_part_will_do(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"one": route()})})
    muxly("run", file)
    muxly("segments", "drop", "numbers", 1, "-f", file, "--yes")
    result = muxly("replay", file, "--route", "one")
    assert result.exit_code == 2
    assert "no longer holds position 1" in result.stderr
    assert muxly("replay", file, "--route", "one", "--partial").exit_code == 0


def test_replay_of_a_failing_route_is_partial(tmp_path: Path) -> None:
    muxly("run", project(tmp_path, {"daily": pipeline({"one": route()})}))
    file = project(tmp_path, {"daily": pipeline({"one": refusing()})})
    assert muxly("replay", file, "--route", "one").exit_code == 3


def test_replay_is_listed_as_what_it_is(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"one": route()})})
    muxly("run", file)
    muxly("replay", file, "--route", "one")
    assert [one["command"] for one in answer("runs", "list", file)] == ["replay", "run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing option '--route'"),
        (["--route", "oen"], "has no route 'oen'; did you mean \"one\"?"),
        (["--route", "one", "--dead-letters", "--after", "3"], "remove --after and --partial"),
        (["--route", "one", "--after", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_option_is_a_usage_error(tmp_path: Path, words: list[str], said: str) -> None:
    file = project(tmp_path, {"daily": pipeline({"one": route()})})
    result = muxly("replay", file, *words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ("number", "the ledger has no stream 'number'; did you mean \"numbers\"?"),
        ("nope", "the ledger has no stream 'nope'; known: numbers"),
        ("x*", "route 'one' delivers no stream named x*; it delivers numbers"),
    ],
)
@pytest.mark.parametrize("letters", [[], ["--dead-letters"]])
def test_a_stream_that_is_not_there_is_refused(tmp_path: Path, stream: str, said: str, letters: list[str]) -> None:
    other = {**route(), "streams": ["other*"]}
    file = project(tmp_path, {"daily": pipeline({"one": route(), "two": other})})
    assert muxly("run", file).exit_code == 0
    result = muxly("replay", file, "--route", "one", "--stream", stream, *letters)
    assert result.exit_code == 2
    assert said in result.stderr
    result = muxly("replay", file, "--route", "two", "--stream", "numbers", *letters)
    assert result.exit_code == 2
    assert "route 'two' delivers no stream named numbers; it delivers none" in result.stderr
    assert muxly("replay", file, "--route", "one", "--stream", "num*", *letters).exit_code == 0


def test_pipeline_must_be_clear(tmp_path: Path) -> None:
    file = project(tmp_path, {"one": pipeline({"x": route()}), "two": pipeline({"x": route()})})
    result = muxly("replay", file, "--route", "x")
    assert result.exit_code == 2
    assert "say which pipeline with --pipeline: one, two" in result.stderr
