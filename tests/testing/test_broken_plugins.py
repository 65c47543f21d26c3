"""Each way of breaking a contract fails the test that names it, and says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "broken_plugins.py"
ROOT = Path(__file__).parents[2]

CAUGHT = {
    "TestForgetsIds": ("test_repeat_of_a_delivery", "effectively_once means at most 1 of each record"),
    "TestLoses": ("test_every_record_arrives", "every record is there when deliver has returned"),
    "TestTears": ("test_killed_delivery_is_whole_after_its_repeat", "killed before step"),
    "TestHangs": ("test_stopping_run_ends_delivering_in_time", "after the run was stopped"),
    "TestIgnoresMarks": ("test_what_is_delivered_already_is_left_out", "only records that were delivered are there"),
    "TestMarksEarly": ("test_marked_records_are_durable", "n records are durable at the destination"),
    "TestTakesAllIntoMemory": ("test_memory_of_a_big_delivery_is_bounded", "takes at most 96 MiB of memory"),
    "TestChatty": ("test_component_prints_nothing", "prints nothing"),
    "TestLeavesThingsOpen": ("test_close_lets_go_of_threads_and_files", "close ends the threads"),
    "TestImpatient": ("test_destination_that_asks_to_wait_is_waited_for", "passed on as RetryableError"),
    "TestGivesUp": ("test_destination_that_asks_to_wait_is_waited_for", "being asked to wait is a RetryableError"),
    "TestWaitsOn": ("test_stopping_run_ends_waiting_for_the_destination", "when the run is stopped"),
    "TestHasNoDeadline": ("test_system_that_never_answers_is_given_up", "given up after 1.0 s"),
    "TestTakesSilenceForSuccess": ("test_system_that_never_answers_is_given_up", "and no success"),
    "TestLogsItsHeaders": ("test_secrets_are_shown_nowhere", "one is in log, in base64"),
    "TestWarnsWithItsAddress": ("test_secrets_are_shown_nowhere", "one is in a warning, percent-encoded"),
    "TestKeepsItsPassword": ("test_secrets_are_shown_nowhere", "one is in what it gives to keep, as it is"),
    "TestNoticesItsPassword": ("test_secrets_are_shown_nowhere", "one is in notices, as it is"),
    "TestCarriesItsPassword": (
        "test_broken_setup_gives_a_typed_error_without_secrets",
        "one is in local variables, as it is",
    ),
    "TestBringsOldGenerationsBack": (
        "test_replace_refuses_a_generation_older_than_the_visible_one",
        "DID NOT RAISE",
    ),
    "TestShowsHalves": (
        "test_killed_replace_shows_the_old_or_the_new_generation",
        "what was delivered before is still there",
    ),
    "TestClosesOnce": ("test_close_may_come_twice_and_without_open", "failed open, so it works without one"),
    "TestShowsGenerationsEarly": ("test_replace_shows_a_generation_when_it_is_complete", "visible before `complete`"),
    "TestGoesByArrival": ("test_upsert_of_equals_goes_by_the_place_in_the_log", "the later in the log wins"),
    "TestTrustsWhatIsNotAcknowledged": (
        "test_killed_delivery_is_whole_after_its_repeat",
        "idempotent means at most 1 of each record",
    ),
    "TestUpsertsByArrival": ("test_upsert_does_not_go_back", "the greater cursor field wins"),
    "TestCursorsAhead": ("test_reading_resumes_from_every_cursor_with_exactly_the_rest", "gives all that follows"),
    "TestCursorsBehind": ("test_reading_resumes_from_every_cursor_with_exactly_the_rest", "nothing that came before"),
    "TestTupleCursors": ("test_cursors_can_be_stored", "JSON values, dates, datetimes or Decimals"),
    "TestDifferentEachTime": ("test_reading_twice_gives_the_same", "twice gives the same records"),
    "TestRemembersThePlan": ("test_plan_can_be_finished_by_another_process", "another process reads the same"),
    "TestSleepsInItsOwnWay": ("test_component_prints_nothing", "waits with run.sleep"),
    "TestSameNames": ("test_streams_have_unique_names_and_known_parents", "names of streams are unique"),
    "TestSameKeys": ("test_primary_key_names_one_record", "names one record"),
    "TestHidesChildren": ("test_children_are_shown", "is shown by streams"),
    "TestTornDays": ("test_one_value_of_the_overwrite_key_lies_in_one_group", "come in one group"),
    "TestRaisesAnything": ("test_broken_setup_gives_a_typed_error_without_secrets", "is a MuxlyError"),
    "TestTellsSecrets": ("test_broken_setup_gives_a_typed_error_without_secrets", "a secret is shown nowhere"),
    "TestCloseNeedsOpen": ("test_close_may_come_twice_and_without_open", "failed open, so it works without one"),
    "TestDoesNotPickle": ("test_unopened_component_pickles_and_comes_back_equal", "pickle"),
}


@pytest.fixture(scope="module")
def report() -> str:
    """What pytest says about all of them; a single process, since most of its time is its start."""
    names = [f"{PLUGINS}::{name}::{test}" for name, (test, _) in CAUGHT.items()]
    names.append(f"{PLUGINS}::TestChatty::test_secrets_are_shown_nowhere")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts=", "-rf"]
    command += ["--import-mode=importlib", "--rootdir", str(ROOT), "-o", "python_files=broken_plugins.py", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", CAUGHT)
def test_broken_plugin_is_caught_with_a_clear_message(report: str, name: str) -> None:
    test, message = CAUGHT[name]
    assert message in failure_of(report, f"{name}.{test}")


def test_every_broken_plugin_is_listed() -> None:
    classes = re.findall(r"^class (Test\w+)", PLUGINS.read_text("utf-8"), re.MULTILINE)
    assert sorted(classes) == sorted(CAUGHT)


def test_secret_in_a_log_is_caught(report: str) -> None:
    failure = failure_of(report, "TestChatty.test_secrets_are_shown_nowhere")
    assert "one is in log" in failure or "one is in output" in failure, failure


def failure_of(report: str, test: str) -> str:
    """The part of the report about a test that failed."""
    failure = re.search(rf"_+ {test} _+\n(.*?)(?=\n_{{5}}|\n={{5}})", report, re.DOTALL)
    assert failure, report[-3000:]
    return failure[1]
