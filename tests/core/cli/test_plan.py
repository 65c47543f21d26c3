"""``muxly plan``: what a run would do, without doing it."""

from __future__ import annotations

from pathlib import Path

from tests.core.cli.commands import answer, muxly, pipeline, project, refusing, route


def test_first_plan_shows_partitions_and_modes_and_writes_nothing(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"lake": route()}, partitions=3)})
    (found,) = answer("plan", file)
    (stream,) = found["streams"]
    assert (stream["partitions"], stream["records"], stream["cursor"]) == (3, 30, None)
    assert stream["routes"] == {"lake": "append"}
    assert found["routes"][0]["pending"] == 0
    assert not (tmp_path / ".muxly").exists()


def test_plan_after_a_run_begins_at_the_cursor(tmp_path: Path) -> None:
    file = project(tmp_path, {"daily": pipeline({"lake": route(), "bad": refusing()})})
    muxly("run", file)
    (found,) = answer("plan", file)
    assert (found["streams"][0]["partitions"], found["streams"][0]["cursor"]) == (0, 30)
    assert [one["pending"] for one in found["routes"]] == [0, 30]


def test_new_routes_and_streams_are_changes(tmp_path: Path) -> None:
    muxly("run", project(tmp_path, {"daily": pipeline({"lake": route()})}))
    changed = pipeline({"lake": route(), "late": route()}, names=["numbers", "deals"])
    (found,) = answer("plan", project(tmp_path, {"daily": changed}))
    assert [one["changes"] for one in found["streams"]] == [[], ["new"]]
    assert "muxly replay --route late" in found["routes"][1]["changes"][0]


def test_unfinished_plan_is_finished_first(tmp_path: Path) -> None:
    faults = [{"method": "read", "action": "StreamError", "at": 0, "partition": "from-15", "times": 0}]
    file = project(tmp_path, {"daily": pipeline({"lake": route()}, partitions=2, faults=faults)})
    assert muxly("run", file).exit_code == 3
    (found,) = answer("plan", file)
    assert found["streams"][0]["changes"] == ["finishes a plan first: 1 of 2 partitions are left"]
    (found,) = answer("plan", file, "--set", "pipelines.daily.connector.seed=9")
    assert found["streams"][0]["changes"] == ["an unfinished plan was made with other options, and is discarded"]


def test_children_come_with_their_parents(tmp_path: Path) -> None:
    (found,) = answer("plan", project(tmp_path, {"daily": pipeline({"lake": route()}, children=True)}))
    assert [one["read"] for one in found["streams"]] == ["incremental", "with numbers"]


def test_run_that_would_be_refused_is_refused_here(tmp_path: Path) -> None:
    muxly("run", project(tmp_path, {"daily": pipeline({"lake": route(), "bad": refusing()})}))
    result = muxly("plan", project(tmp_path, {"daily": pipeline({"lake": route()})}))
    assert result.exit_code == 2
    assert "muxly routes discard bad" in result.stderr


def test_stream_that_cannot_be_planned_is_an_error_and_the_others_are_shown(tmp_path: Path) -> None:
    source = {"names": ["deals", "gone"], "missing": ["gone"]}
    result = muxly("plan", project(tmp_path, {"daily": pipeline({"lake": route()}, **source)}))
    assert result.exit_code == 1
    assert "stream 'gone': the stream gone is not there" in result.stderr
    assert "deals" in result.stdout
    assert "cannot be planned" in result.stdout


def test_tables_name_stream_route_and_promise(tmp_path: Path) -> None:
    result = muxly("plan", project(tmp_path))
    assert result.exit_code == 0
    assert "daily: would read" in result.stdout
    assert "lake (append)" in result.stdout
    assert "effectively once" in result.stdout


def test_unknown_stream_names_the_nearest(tmp_path: Path) -> None:
    result = muxly("plan", project(tmp_path), "--select", "numbrs")
    assert result.exit_code == 2
    assert 'did you mean "numbers"?' in result.stderr
