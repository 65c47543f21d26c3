"""Commands that look at the ledger and mend it: state, segments, routes, dead letters, runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.cli.commands import DAILY, answer, muxly, pipeline, project, refusing, route

LISTS = [["state", "show"], ["segments", "list"], ["routes", "list"], ["dead-letters", "list"], ["runs", "list"]]
CHANGES = [
    ["state", "set", "numbers", "5"],
    ["state", "reset", "numbers"],
    ["segments", "drop", "numbers", "1"],
    ["routes", "discard", "lake"],
]


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A project that has run: all of lake's records arrived, none of bad's."""
    file = project(tmp_path, {"daily": pipeline({"lake": route(), "bad": refusing()})})
    assert muxly("run", file).exit_code == 3
    return file


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_before_the_first_run_there_is_nothing_and_nothing_is_made(tmp_path: Path, words: list[str]) -> None:
    file = project(tmp_path)
    result = muxly(*words, file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr
    assert answer(*words, file) == []
    assert not (tmp_path / ".muxly").exists()


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_unknown_pipeline_is_refused(ran: Path, words: list[str]) -> None:
    result = muxly(*words, ran, "dayli")
    assert result.exit_code == 2
    assert 'did you mean "daily"?' in result.stderr


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_changes_are_asked_about(ran: Path, words: list[str]) -> None:
    result = muxly(*words, "-f", ran)
    assert result.exit_code == 2
    assert "add --yes to confirm" in result.stderr
    assert [one["command"] for one in answer("runs", "list", ran)] == ["run"]


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_changes_are_listed_among_the_runs(ran: Path, words: list[str]) -> None:
    assert muxly(*words, "-f", ran, "--yes").exit_code == 0
    newest = answer("runs", "list", ran)[0]
    assert (newest["command"], newest["state"]) == (" ".join(words[:2]), "succeeded")


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_changes_before_the_first_run_are_refused(tmp_path: Path, words: list[str]) -> None:
    result = muxly(*words, "-f", project(tmp_path), "--yes")
    assert result.exit_code == 2
    assert not (tmp_path / ".muxly").exists()


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_changes_are_refused_while_a_run_holds_the_pipeline(ran: Path, words: list[str]) -> None:
    from muxly._runner.session import Home, open_session

    with open_session(Home(folder=ran.parent / ".muxly"), "daily", command="test"):
        result = muxly(*words, "-f", ran, "--yes")
    assert result.exit_code == 75
    assert "is already being run by process" in result.stderr


# State


def test_state_shows_cursors_as_they_are_set(ran: Path) -> None:
    (found,) = answer("state", "show", ran)
    assert (found["stream"], found["cursor"], found["head"], found["unfinished"]) == ("numbers", 30, 1, None)
    assert "numbers" in muxly("state", "show", ran).stdout


def test_set_cursor_is_where_the_next_run_begins(ran: Path) -> None:
    result = muxly("state", "set", "numbers", "20", "-f", ran, "-y")
    assert "the next run reads stream 'numbers' from 20" in result.stderr
    assert json.loads(muxly("run", ran, "--json").stdout)["streams"]["numbers"]["sealed"] == 10


def test_cursor_before_a_position_reads_it_again(ran: Path) -> None:
    assert muxly("state", "set", "numbers", "--before", 1, "-f", ran, "-y").exit_code == 0
    assert json.loads(muxly("run", ran, "--json").stdout)["streams"]["numbers"]["sealed"] == 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["numbers"], "give either a CURSOR or --before POSITION"),
        (["numbers", "5", "--before", "1"], "give either a CURSOR or --before POSITION"),
        (["numbers", "2026-11-01"], "'2026-11-01' is no cursor; write it as JSON"),
        (["numbers", "--before", "7"], "has no position 7 of stream 'numbers'; it keeps 1 to 1"),
        (["numbres", "5"], "has no stream 'numbres'; did you mean \"numbers\"?"),
    ],
)
def test_wrong_cursor_changes_nothing(ran: Path, words: list[str], said: str) -> None:
    result = muxly("state", "set", *words, "-f", ran, "-y")
    assert result.exit_code == 2
    assert said in result.stderr
    assert answer("state", "show", ran)[0]["cursor"] == 30


def test_position_that_began_without_a_cursor_reads_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    file = project(tmp_path, {"daily": {**DAILY, "connector": {"type": "file", "path": "data"}}})
    assert answer("run", file)["streams"]["data"]["sealed"] == 1
    result = muxly("state", "set", "data", "--before", 1, "-f", file, "-y")
    assert "the next run reads stream 'data' from the start" in result.stderr
    assert answer("run", file)["streams"]["data"]["sealed"] == 1


def test_cursor_of_another_kind_than_the_streams_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "mapped_plugin.py").write_text(
        "import attrs\n"
        "from muxly_testing import FakeConnector\n"
        "class Mapped(FakeConnector):\n"
        "    def plan(self, stream, cursor):\n"
        "        found = super().plan(stream, (cursor or {}).get('at'))\n"
        "        return attrs.evolve(found, cursor={'at': found.cursor})\n"
    )
    daily = {**DAILY, "connector": {"type": "mapped_plugin:Mapped", "records": 30}}
    file = project(tmp_path, {"daily": daily})
    muxly("run", file)
    result = muxly("state", "set", "numbers", "--before", 1, "-f", file, "-y")
    assert result.exit_code == 2
    assert "`muxly state reset numbers` reads the whole stream again" in result.stderr
    assert answer("state", "show", file)[0]["cursor"] == {"at": 30}


def test_reset_takes_globs_and_reads_from_the_start(ran: Path) -> None:
    assert "the next run reads numbers from the start" in muxly("state", "reset", "num*", "-f", ran, "-y").stderr
    assert answer("state", "show", ran)[0]["cursor"] is None


def test_reset_of_an_unknown_stream_names_the_nearest(ran: Path) -> None:
    result = muxly("state", "reset", "number", "-f", ran, "-y")
    assert result.exit_code == 2
    assert 'did you mean "numbers"?' in result.stderr


# Segments


def test_segments_are_listed_by_stream_and_state(ran: Path) -> None:
    (found,) = answer("segments", "list", ran)
    assert (found["position"], found["records"], found["state"]) == (1, 30, "sealed")
    assert answer("segments", "list", ran, "--stream", "deals") == []
    assert answer("segments", "list", ran, "--state", "quarantined") == []


def test_dropped_segment_counts_on_the_routes_that_did_not_have_it(ran: Path) -> None:
    (found,) = answer("segments", "list", ran)
    result = muxly("segments", "drop", "numbers", 1, "-f", ran, "-y")
    assert "30 records of stream 'numbers' were dropped" in result.stderr
    assert answer("segments", "list", ran)[0]["state"] == "dropped"
    assert not (ran.parent / ".muxly" / "spool" / "daily" / found["file"]).exists()
    assert muxly("run", ran).exit_code == 0


def test_quarantined_segment_is_found_and_given_up(ran: Path) -> None:
    (spooled,) = (ran.parent / ".muxly" / "spool" / "daily").glob("*.arrow")
    content = bytearray(spooled.read_bytes())
    content[len(content) // 2] ^= 1
    spooled.write_bytes(content)
    mended = project(ran.parent, {"daily": pipeline({"lake": route(), "bad": route()})})
    assert muxly("run", mended).exit_code == 3
    assert [one["position"] for one in answer("segments", "list", mended, "--state", "quarantined")] == [1]
    assert muxly("segments", "drop", "numbers", 1, "-f", mended, "-y").exit_code == 0
    assert muxly("run", mended).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["numbers", "9"], "has no position 9"), (["number", "1"], 'did you mean "numbers"?'), (["numbers"], "Missing")],
)
def test_wrong_segment_is_refused(ran: Path, words: list[str], said: str) -> None:
    result = muxly("segments", "drop", *words, "-f", ran, "-y")
    assert result.exit_code == 2
    assert said in result.stderr


# Routes


def test_routes_show_positions_and_what_waits(ran: Path) -> None:
    found = {one["route"]: (one["position"], one["head"], one["waits"]) for one in answer("routes", "list", ran)}
    assert found == {"lake": (1, 1, 0), "bad": (0, 1, 30)}


def test_renamed_route_keeps_its_backlog(ran: Path) -> None:
    renamed = project(ran.parent, {"daily": pipeline({"lake": route(), "better": route()})})
    assert [one["state"] for one in answer("routes", "list", renamed)] == ["not in the file", "attached"]
    assert muxly("routes", "rename", "bad", "better", "-f", renamed).exit_code == 0
    assert answer("run", renamed)["routes"]["better"]["delivered"] == 30


def test_discard_gives_up_one_stream_of_a_route(ran: Path) -> None:
    wrong = muxly("routes", "discard", "bad", "--stream", "nosuch", "-f", ran, "-y")
    assert wrong.exit_code == 2
    assert "the ledger has no stream 'nosuch'" in wrong.stderr
    streams = [one["stream"] for one in answer("routes", "list", ran) if one["route"] == "bad"]
    assert muxly("routes", "discard", "bad", "--stream", streams[0], "-f", ran, "-y").exit_code == 0
    assert [one["stream"] for one in answer("routes", "list", ran) if one["route"] == "bad"] == streams[1:]


def test_discarded_route_lets_runs_begin_again(ran: Path) -> None:
    without = project(ran.parent, {"daily": pipeline({"lake": route()})})
    result = muxly("routes", "discard", "bad", "-f", without, "-y")
    assert "30 records were dropped" in result.stderr
    assert muxly("run", without).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rename", "bad", "new"], "has no route 'new'; it has lake, bad; rename it there first"),
        (["rename", "bad", "lake"], "route 'lake' already has positions"),
        (["rename", "bed", "lake"], "has no route 'bed'; did you mean \"bad\"?"),
        (["rename", "bad"], "Missing argument 'NEW'"),
        (["discard", "bed", "-y"], 'did you mean "bad"?'),
    ],
)
def test_wrong_route_is_refused(ran: Path, words: list[str], said: str) -> None:
    result = muxly("routes", *words, "-f", ran)
    assert result.exit_code == 2
    assert said in result.stderr


# Dead letters


@pytest.fixture
def rejected(tmp_path: Path) -> Path:
    """A project whose route refused record 7, and whose source had a bad record 3."""
    strict = {**route(reject=[7]), "max_rejected": 5}
    file = project(tmp_path, {"daily": pipeline({"strict": strict}, bad=[3])})
    muxly("run", file)
    return file


def test_dead_letters_say_where_and_why(rejected: Path) -> None:
    found = {one["route"]: (one["place"], one["reason"]) for one in answer("dead-letters", "list", rejected)}
    assert found[""] == ("numbers:3", "a scripted bad record")
    assert found["strict"] == ("position 1, record 6", "id 7 is on the script's list")
    assert "(reading)" in muxly("dead-letters", "list", rejected).stdout


def test_dead_letters_are_chosen_by_route_stream_and_number(rejected: Path) -> None:
    assert [one["route"] for one in answer("dead-letters", "list", rejected, "--route", "")] == [""]
    assert answer("dead-letters", "list", rejected, "--stream", "deals") == []
    assert len(answer("dead-letters", "list", rejected, "--limit", 1)) == 1


def test_dead_letter_is_shown_with_its_record(rejected: Path) -> None:
    for one in answer("dead-letters", "list", rejected):
        shown = answer("dead-letters", "show", one["id"], "-f", rejected)
        assert shown["record"]["id"] == (7 if one["route"] else 3)
        assert "  id: " in muxly("dead-letters", "show", one["id"].lower(), "-f", rejected).stdout


@pytest.mark.parametrize(("word", "said"), [("nosuch", "there is no dead letter 'nosuch'"), ("0", "2 dead letters")])
def test_dead_letter_must_be_clear(rejected: Path, word: str, said: str) -> None:
    result = muxly("dead-letters", "show", word, "-f", rejected)
    assert result.exit_code == 2
    assert said in result.stderr


# Runs


def test_runs_are_listed_the_newest_first(ran: Path) -> None:
    muxly("run", ran)
    found = answer("runs", "list", ran)
    assert [one["state"] for one in found] == ["partial", "partial"]
    assert [one["delivered"] for one in found] == [0, 30]
    assert found[0]["started_at"] > found[1]["started_at"]
    assert len(answer("runs", "list", ran, "--limit", 1)) == 1


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_group_without_a_command_lists(ran: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(ran.parent)
    assert answer(words[0]) == answer(*words)


def test_answer_of_no_changes_nothing(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muxly.cli import _project

    monkeypatch.setattr(_project, "is_interactive", lambda: True)
    result = muxly("state", "reset", "numbers", "-f", ran, stdin="n\n")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
    assert "Read numbers of 'daily' from the start again? [y/N]" in result.stderr
    assert answer("state", "show", ran)[0]["cursor"] == 30
    assert muxly("state", "reset", "numbers", "-f", ran, stdin="y\n").exit_code == 0
    assert answer("state", "show", ran)[0]["cursor"] is None


# Events


def test_ledger_of_events_is_listed_with_the_pipelines(tmp_path: Path) -> None:
    events = {"routes": {"alerts": {"router": {"type": "file", "path": "events", "format": "jsonl"}}}}
    file = project(tmp_path, {"daily": DAILY}, events=events)
    muxly("run", file)
    found = {(one["pipeline"], one["route"]): one["state"] for one in answer("routes", "list", file)}
    assert found == {("daily", "lake"): "attached", ("daily.events", "alerts"): "attached"}
    assert [one["pipeline"] for one in answer("routes", "list", file, "daily.events")] == ["daily.events"]
