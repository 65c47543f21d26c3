"""Which messages are posted about runs: once for each trouble, not at night, and all of them in the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from muxly_routers.slack.delivery import held_message, notification_message
from muxly_routers.slack.options import QuietHours, ReportKind, RunEvents
from muxly_routers.slack.run_reports import (
    QuietPeriod,
    ReportDecision,
    ReportRules,
    RunReport,
    clock_time,
    columns_problem,
    decide,
    fingerprint,
    reports,
    zone,
)
from tests.routers.slack.test_text import HOSTILE, mentions
from tests.slack_server import problems

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ALL = RunEvents().rules()


def event(event: str, run: int = 1, **facts: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"at": NOON, "event": event, "pipeline": "weather", "run": f"01RUN{run:021}"}
    empty = dict.fromkeys(("route", "stream", "message", "records"))
    return {**base, **empty, "level": "info", **facts}


def ended(outcome: str, run: int = 1, message: str = "", **facts: Any) -> list[dict[str, Any]]:
    return [event("started", run, **facts), event(outcome, run, message=message or None, records=12, **facts)]


def failed(run: int = 1, message: str = "the lease was lost", **facts: Any) -> list[RunReport]:
    return reports(ended("failed", run, message, **facts))


def kinds(decision: ReportDecision) -> list[str]:
    return [one.kind for one in decision.notifications]


class Story:
    """Decisions one after the other, as deliveries make them."""

    def __init__(self, rules: ReportRules = ALL) -> None:
        self.rules, self.state, self.now = rules, dict[str, Any](), NOON

    def after(self, **passed: float) -> Story:
        self.now += timedelta(**passed)
        return self

    def tell(self, found: list[RunReport], told: int = 0) -> ReportDecision:
        decision = decide(found, self.state, self.rules, self.now, told=told)
        self.state = json.loads(json.dumps(decision.state))  # as the ledger keeps it
        return decision


def test_reports_are_one_for_each_run() -> None:
    records = [
        *ended("succeeded"),
        event("recovered", message="the run before was partial"),
        event("delivery_failed", 2, route="lake", stream="weather", message="disk full", level="error"),
        *ended("partial", 2, "1 route is behind"),
    ]
    first, second = reports(records)
    assert (first.outcome, first.recovered, first.upto, first.trouble) == (
        "succeeded",
        "the run before was partial",
        3,
        None,
    )
    assert (second.outcome, second.message, second.upto, second.trouble) == (
        "partial",
        "1 route is behind",
        6,
        "partial",
    )
    assert second.of("delivery_failed")[0].route == "lake"


def test_success_is_no_news() -> None:
    story = Story()
    assert kinds(story.tell(reports(ended("succeeded")))) == []
    assert kinds(story.tell(reports(ended("stopped")))) == []


def test_failure_is_told_and_recovery_after_it() -> None:
    story = Story()
    assert kinds(story.tell(failed())) == ["failed"]
    good = [*ended("succeeded", 2), event("recovered", 2, message="the run before was failed")]
    (notification,) = story.after(hours=1).tell(reports(good)).notifications
    assert (notification.kind, notification.failures, notification.since) == ("recovered", 1, NOON)
    assert kinds(story.tell(reports(ended("succeeded", 3)))) == []


def test_recovery_is_known_from_the_state_too() -> None:
    story = Story()
    story.tell(failed())
    assert kinds(story.tell(reports(ended("succeeded", 2)))) == ["recovered"]


@pytest.mark.parametrize(("before", "wanted"), [("partial", ["recovered"]), ("stopped", [])])
def test_recovery_without_a_known_failure_is_told_unless_the_run_was_only_stopped(
    before: str, wanted: list[str]
) -> None:
    good = [*ended("succeeded"), event("recovered", message=f"the run before was {before}")]
    assert kinds(Story().tell(reports(good))) == wanted


def test_same_failure_is_told_again_only_after_a_while_with_how_often_it_came() -> None:
    story = Story(ReportRules(kinds=ALL.kinds, repeat=timedelta(hours=2)))
    assert kinds(story.tell(failed(1))) == ["failed"]
    for run in (2, 3, 4):
        assert kinds(story.after(minutes=30).tell(failed(run))) == []
    (notification,) = story.after(minutes=30).tell(failed(5)).notifications
    assert (notification.unsaid, notification.failures, notification.since) == (3, 5, NOON)


def test_another_failure_is_told_at_once() -> None:
    story = Story()
    story.tell(failed(1, "cannot connect to 10.0.0.7"))
    assert kinds(story.tell(failed(2, "cannot connect to 10.0.0.8"))) == []
    assert kinds(story.tell(failed(3, "password authentication failed"))) == ["failed"]
    assert kinds(story.tell(failed(4, pipeline="crm"))) == ["failed"]


def test_failures_that_take_turns_are_each_told_once_in_a_while() -> None:
    story = Story()
    words = ["connection refused", "timed out"]
    assert [kinds(story.after(minutes=5).tell(failed(run, words[run % 2]))) for run in range(1, 7)] == [
        ["failed"],
        ["failed"],
        [],
        [],
        [],
        [],
    ]
    (notification,) = story.after(hours=6).tell(failed(7, words[0])).notifications
    assert (notification.failures, notification.unsaid) == (7, 4)


def test_failure_that_comes_to_a_long_one_is_another() -> None:
    def behind(run: int, *routes: str) -> list[RunReport]:
        bad = [event("delivery_failed", run, route=one, message=f"{one}: {'long ' * 200}") for one in routes]
        return reports([*bad, *ended("partial", run)])

    story = Story()
    assert kinds(story.tell(behind(1, "a"))) == ["partial"]
    assert kinds(story.tell(behind(2, "a", "b"))) == ["partial"]
    assert kinds(story.tell(behind(3, "a", "b"))) == []


def test_what_is_remembered_is_small_whatever_is_said() -> None:
    story = Story()
    letters = [chr(0x4E00 + number) for number in range(1000)]
    notices = [event("notice", level="warning", message=f"{one}{'警' * 900}") for one in letters]
    story.tell(reports([*notices, *ended("failed", 1, "警" * 9000)]))
    assert len(json.dumps(story.state)) < 100_000


def test_failures_are_the_same_whatever_ids_and_numbers_they_name() -> None:
    first, second = (
        fingerprint(*failed(run, f"delivery 01M84H56N00TVV5H4RD6DG0J{run:02} has {run} of 7 records at 0x7f{run}"))
        for run in (11, 12)
    )
    assert first == second


def test_failed_route_of_a_run_that_succeeded_is_told() -> None:
    bad = event("delivery_failed", route="chat", stream="weather", message="no connection", level="error")
    (notification,) = Story().tell(reports([bad, *ended("succeeded")])).notifications
    assert (notification.kind, notification.level) == ("delivery_failed", "warning")


def test_kinds_that_are_not_wanted_are_not_told() -> None:
    story = Story(ReportRules(kinds=frozenset({"recovered"})))
    assert kinds(story.tell(failed())) == []
    assert kinds(story.tell(reports(ended("succeeded", 2)))) == ["recovered"]


def test_changed_schemas_and_notices_are_told_in_one_message_with_the_rest_of_the_run() -> None:
    records = [
        event("schema_changed", stream="weather", message="humidity double", level="warning"),
        event("notice", message="the token expires in 3 days", level="warning"),
        event("notice", message="nothing to worry about", level="info"),
        *ended("partial", message="1 route is behind"),
    ]
    (notification,) = Story().tell(reports(records)).notifications
    assert notification.kind == "partial"
    assert [one.event for one in notification.events] == ["schema_changed", "notice"]
    (alone,) = Story().tell(reports([*records[:1], *ended("succeeded")])).notifications
    assert (alone.kind, alone.level) == ("schema_changed", "warning")


def test_same_notice_is_told_once_in_a_while() -> None:
    story = Story()
    for run, wanted in ((1, ["notice"]), (2, []), (3, [])):
        notice = event("notice", run, message=f"the token expires in {9 - run} days", level="warning")
        assert kinds(story.after(hours=1).tell(reports([notice, *ended("succeeded", run)]))) == wanted
    notice = event("notice", 4, message="the token expires in 5 days", level="warning")
    assert kinds(story.after(hours=6).tell(reports([notice]))) == ["notice"]


NIGHT = RunEvents(quiet_hours=QuietHours(time_zone="Europe/Berlin")).rules()


def test_quiet_hours_hold_back_what_is_not_serious_until_the_first_delivery_after() -> None:
    story = Story(NIGHT)
    story.now = datetime(2026, 6, 1, 23, 0, tzinfo=UTC)  # 01:00 in Berlin
    behind = reports(ended("partial", 1, "1 route is behind"))
    decision = story.tell(behind)
    assert (kinds(decision), decision.held) == ([], ())
    assert kinds(story.tell(failed(2))) == ["failed"], "failures go through"
    assert story.after(hours=5).tell(reports(ended("stopped", 3))).held == (), "06:00 is still quiet"
    after = story.after(hours=1).tell(reports(ended("stopped", 4)))
    assert [one["kind"] for one in after.held] == ["partial"]
    assert after.held[0]["message"] == "1 route is behind"
    assert story.tell(reports(ended("stopped", 5))).held == (), "told once"


@pytest.mark.parametrize(
    ("let_through", "wanted"), [("error", ["failed"]), ("warning", ["failed", "partial"]), ("nothing", [])]
)
def test_what_goes_through_quiet_hours(let_through: Any, wanted: list[str]) -> None:
    hours = QuietHours(time_zone="UTC", start="11:00", end="13:00", let_through=let_through)
    story = Story(RunEvents(quiet_hours=hours).rules())
    found = [*failed(1), *reports(ended("partial", 2, pipeline="crm")), *reports([event("notice", 3, level="info")])]
    assert kinds(story.tell(found)) == wanted


def test_what_was_held_back_is_not_done_with_before_the_end_of_the_delivery() -> None:
    """A mark behind it would keep the next attempt from holding it back again."""
    hours = QuietHours(time_zone="UTC", start="11:00", end="13:00")
    found = [
        *failed(1, "a"),
        *reports([{**one, "pipeline": "crm"} for one in ended("partial", 2)]),
        *failed(3, "b"),
        *failed(4, "c"),
    ]
    numbered = [evolve(one, upto=number) for number, one in enumerate(found, start=1)]
    decision = decide(numbered, {}, RunEvents(quiet_hours=hours).rules(), NOON)
    assert [(one.report.upto, decision.done_with(one)) for one in decision.notifications] == [
        (1, 1),
        (3, None),
        (4, None),
    ]


def test_more_than_can_be_held_is_counted() -> None:
    hours = QuietHours(time_zone="UTC", start="11:00", end="13:00", let_through="nothing")
    story = Story(RunEvents(quiet_hours=hours).rules())
    story.tell([one for number in range(250) for one in failed(number, pipeline=f"p{number}")])
    assert len(json.dumps(story.state)) < 1 << 20
    decision = story.after(hours=2).tell([])
    assert (len(decision.held), decision.held_more) == (200, 50)
    message = held_message(decision.held, decision.held_more)
    assert problems(message.payload) == []
    assert "… and 210 more" in message.blocks[-1]["text"]["text"]


def test_report_that_was_posted_before_a_crash_is_not_posted_again() -> None:
    found = reports([*ended("failed", 1, "a"), *ended("failed", 2, "b")])
    assert [one.report.run for one in decide(found, {}, ALL, NOON, told=2).notifications] == [found[1].run]
    assert decide(found, {}, ALL, NOON, told=2).state == decide(found, {}, ALL, NOON).state


RUNS = st.lists(
    st.tuples(st.sampled_from(["failed", "partial", "succeeded"]), st.sampled_from("ab"), st.integers(0, 600))
)


@given(RUNS, st.sampled_from(["error", "warning", "nothing"]), st.integers(0, 300))
def test_every_run_in_trouble_is_told_held_back_or_counted(
    runs: list[tuple[str, str, int]], let_through: Any, repeat: int
) -> None:
    night = QuietHours(time_zone="America/New_York", let_through=let_through)
    story = Story(RunEvents(quiet_hours=night, repeat_seconds=repeat * 60.0).rules())
    streak = 0
    for number, (outcome, message, minutes) in enumerate(runs):
        before = [*story.state.get("held", [])]
        decision = story.after(minutes=minutes).tell(reports(ended(outcome, number, message)))
        held = story.state["held"]
        assert decision.held in ((), tuple(before)), "what was held back is told as a whole"
        grown = len(held) - (0 if decision.held else len(before))
        streak = streak + 1 if outcome != "succeeded" else 0
        if streak:
            known = story.state["failing"]["weather"]
            assert known["failures"] == streak
            assert len(decision.notifications) + grown + (known["unsaid"] > 0) == 1
        else:
            assert story.state["failing"] == {}
    for hours in (12, 12):
        story.after(hours=hours).tell([])
    assert story.state["held"] == []


BERLIN = ZoneInfo("Europe/Berlin")


def test_nights_on_which_the_clock_is_moved_are_quiet_too() -> None:
    night = QuietPeriod(clock_time("22:00"), clock_time("07:00"), BERLIN)
    short_night = datetime(2026, 3, 28, 21, 0, tzinfo=UTC)  # 22:00, nine hours on the wall, eight in truth
    long_night = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    for begin, hours in ((short_night, 8), (long_night, 10)):
        quiet = [night.holds(begin + timedelta(minutes=minute)) for minute in range(-30, hours * 60 + 30)]
        assert quiet == [False] * 30 + [True] * (hours * 60) + [False] * 30


def test_hour_that_comes_twice_is_quiet_twice_and_one_that_is_left_out_never() -> None:
    twice = QuietPeriod(clock_time("02:00"), clock_time("03:00"), BERLIN)
    midnight = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    assert sum(twice.holds(midnight + timedelta(minutes=one)) for one in range(600)) == 120
    midnight = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)
    assert sum(twice.holds(midnight + timedelta(minutes=one)) for one in range(600)) == 0


@given(st.times(), st.times(), st.datetimes(timezones=st.just(UTC)))
def test_each_moment_is_quiet_or_in_the_rest_of_the_day(start: Any, end: Any, now: datetime) -> None:
    if start != end:
        day, rest = QuietPeriod(start, end, ZoneInfo("UTC")), QuietPeriod(end, start, ZoneInfo("UTC"))
        assert day.holds(now) != rest.holds(now)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"time_zone": "Mars/Phobos"}, "not a time zone"),
        ({"time_zone": "../../etc/passwd"}, "not a time zone"),
        ({"time_zone": "UTC", "start": "25:00"}, "not a time of day"),
        ({"time_zone": "UTC", "start": "07:00"}, "begin when they end"),
        ({"time_zone": "UTC", "start": "7:00"}, "begin when they end"),
    ],
)
def test_quiet_hours_that_are_none_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        QuietHours(**options)


def test_zone_is_that_of_the_machine() -> None:
    assert zone("Europe/Berlin") == BERLIN


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_a_failure_are_only_text(text: str) -> None:
    facts = {"pipeline": text, "route": text, "stream": text, "message": text}
    records = [
        {**event("delivery_failed", level="error"), **facts},
        {**event("schema_changed", level="warning"), **facts},
        {**event("notice", level="error"), **facts},
        {**event("failed", level="error"), **facts},
    ]
    story = Story()
    (notification,) = story.tell(reports(records)).notifications
    message = notification_message(notification)
    assert problems(message.payload) == []
    shown = json.dumps(message.payload, ensure_ascii=False)
    assert {one[:7] for one in mentions(shown)} == {"<!date^"}
    held = held_message([{"kind": "failed", "pipeline": text, "message": text, "at": NOON.isoformat()}], 0)
    assert {one[:7] for one in mentions(json.dumps(held.payload, ensure_ascii=False))} == {"<!date^"}
    assert problems(held.payload) == []


@pytest.mark.parametrize("kind", list(ReportKind.__args__))  # type: ignore[attr-defined]
def test_each_kind_of_report_is_a_message(kind: str) -> None:
    story = Story()
    if kind == "recovered":
        story.tell(failed())
    found = {
        "failed": ended("failed", 2, "x" * 5000),
        "partial": ended("partial", 2, "\n".join("line" for _ in range(200))),
        "recovered": ended("succeeded", 2),
        "delivery_failed": [event("delivery_failed", 2, route=f"r{n}", message="m" * 2000) for n in range(20)],
        "schema_changed": [event("schema_changed", 2, stream=f"s{n}", message="c double, " * 500) for n in range(20)],
        "notice": [event("notice", 2, level="error", message=f"{'abcdefghijklmnopqrst'[n]} " * 900) for n in range(20)],
    }[kind]
    (notification,) = story.tell(reports(found)).notifications
    assert notification.kind == kind
    assert problems(notification_message(notification).payload) == []


def test_trouble_that_goes_on_says_since_when() -> None:
    story = Story(ReportRules(kinds=ALL.kinds, repeat=timedelta(0)))
    story.tell(failed(1))
    (notification,) = story.after(hours=1).tell(failed(2)).notifications
    shown = json.dumps(notification_message(notification).payload, ensure_ascii=False)
    assert "Since <!date^1780315200^{date_short_pretty} {time}|2026-06-01 12:00 UTC>: 2 runs in a row." in shown


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("at", pa.timestamp("us", "UTC"), None),
        ("at", pa.string(), "at: string and records: int64, and is not a stream of run events"),
        ("at", pa.timestamp("us"), "at: timestamp"),
        ("records", pa.string(), "records: string"),
        ("other", pa.string(), 'has no column "at"'),
    ],
)
def test_stream_that_is_only_called_run_events_is_told_from_one_of_them(
    name: str, kind: pa.DataType, problem: str | None
) -> None:
    kinds_ = dict.fromkeys(event("notice"), pa.string()) | {"records": pa.int64()}
    if name != "other":
        kinds_["at"] = pa.timestamp("us", "UTC")
        kinds_[name] = kind
    else:
        del kinds_["at"]
    found = columns_problem(pa.schema(list(kinds_.items())))
    assert found is None if problem is None else problem in str(found)
