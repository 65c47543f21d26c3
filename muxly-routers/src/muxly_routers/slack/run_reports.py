"""Reports on runs, from the records of ``run_events``: a function of events, earlier reports, rules and time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attrs import evolve, field, frozen

from muxly_routers._files.layout import text_hash

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "LEVELS",
    "Level",
    "QuietPeriod",
    "ReportDecision",
    "ReportRules",
    "ReportedEvent",
    "RunNotification",
    "RunReport",
    "State",
    "clock_time",
    "columns_problem",
    "decide",
    "fingerprint",
    "reports",
    "text_fingerprint",
    "zone",
]

Level = Literal["info", "warning", "error"]
_COLUMNS = ("at", "event", "level", "message", "pipeline", "records", "route", "run", "stream")
LEVELS: dict[str, int] = {"info": 0, "warning": 1, "error": 2}
_OUTCOMES = {"succeeded", "partial", "stopped", "failed"}
# Ids, numbers and addresses in memory differ from run to run where the failure is the same.
_CHANGING = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}|0x[0-9a-f]+|\d+")


@frozen(kw_only=True)
class ReportedEvent:
    """One event of a run, as far as it is told."""

    event: str
    level: Level
    message: str
    route: str | None = None
    stream: str | None = None


@frozen(kw_only=True)
class RunReport:
    """One run.

    Args:
        pipeline: The pipeline's name.
        run: The run's id.
        at: When its last event was.
        upto: The number of its last record in the delivery, counted from 1.
        outcome: How it ended; None where that event is not among the records.
        message: What was said of the end.
        records: How many records it read.
        recovered: What is said of a recovery, if the run is one.
        events: Failed deliveries, changed schemas and notices.
    """

    pipeline: str
    run: str
    at: datetime
    upto: int
    outcome: str | None
    message: str
    records: int | None
    recovered: str | None
    events: tuple[ReportedEvent, ...]

    def of(self, event: str) -> tuple[ReportedEvent, ...]:
        """The happenings of one kind."""
        return tuple(happening for happening in self.events if happening.event == event)

    @property
    def trouble(self) -> str | None:
        """The kind of message about the run's failure; None if it did not fail."""
        if self.outcome in ("failed", "partial"):
            return self.outcome
        return "delivery_failed" if self.of("delivery_failed") else None


def columns_problem(schema: pa.Schema) -> str | None:
    """Why records of that schema cannot be told as runs, behind the stream's name; None if they can."""
    import pyarrow as pa

    for name in _COLUMNS:
        if name not in schema.names:
            return f'has no column "{name}", which reports on runs need; leave it in columns'
    at, records = schema.field("at").type, schema.field("records").type
    if not (pa.types.is_timestamp(at) and at.tz) or not pa.types.is_integer(records):
        return (
            f"has the columns at: {at} and records: {records}, and is not a stream of run events; give it another name"
        )
    return None


def reports(records: Iterable[Mapping[str, Any]]) -> list[RunReport]:
    """One report for each run, in the order of the records.

    Args:
        records: Of the stream ``run_events``; those of a run follow one another.
    """
    numbered = enumerate(records, start=1)
    runs = itertools.groupby(numbered, key=lambda one: (one[1]["pipeline"], one[1]["run"]))
    return [_report(str(pipeline), str(run), list(events)) for (pipeline, run), events in runs]


def fingerprint(report: RunReport) -> str:
    """A text that is equal for equal failures: kind, routes, streams and message, without numbers."""
    parts = {f"{event.route}/{event.stream}: {event.message}" for event in report.of("delivery_failed")}
    return text_fingerprint(" | ".join([str(report.trouble), report.message, *sorted(parts)]))


def text_fingerprint(text: str) -> str:
    """A short name of a text; the same for texts that differ only in what changes from run to run."""
    return text_hash(_CHANGING.sub("#", text), size=8)


def _report(pipeline: str, run: str, events: list[tuple[int, Mapping[str, Any]]]) -> RunReport:
    ended = next((event for _number, event in events if event["event"] in _OUTCOMES), None)
    recovered = next((event for _number, event in events if event["event"] == "recovered"), None)
    told = {"delivery_failed", "schema_changed", "notice"}
    return RunReport(
        pipeline=pipeline,
        run=run,
        at=events[-1][1]["at"],
        upto=events[-1][0],
        outcome=None if ended is None else str(ended["event"]),
        message="" if ended is None else str(ended["message"] or ""),
        records=None if ended is None else ended["records"],
        recovered=None if recovered is None else str(recovered["message"] or "recovered"),
        events=tuple(_reported_event(event) for _number, event in events if event["event"] in told),
    )


def _reported_event(event: Mapping[str, Any]) -> ReportedEvent:
    return ReportedEvent(
        event=str(event["event"]),
        level=event["level"] if event["level"] in LEVELS else "warning",
        message=str(event["message"] or ""),
        route=event["route"],
        stream=event["stream"],
    )


State = dict[str, Any]
_MOST_HELD, _MOST_TOLD = 200, 500
HELD = "held"


@frozen(kw_only=True)
class ReportRules:
    """The reports that the user wants.

    Args:
        kinds: Which kinds of messages: failed, partial, delivery_failed, recovered, schema_changed, notice.
        notices: Notices of this level or a more serious one.
        repeat: A failure or notice that stays the same is told again after so long.
        quiet: When messages are held back.
        through: Messages of this level or a more serious one are not held back; None = all are.
    """

    kinds: frozenset[str]
    notices: str = "warning"
    repeat: timedelta = timedelta(hours=6)
    quiet: QuietPeriod | None = None
    through: str | None = "error"


@frozen(kw_only=True)
class RunNotification:
    """The content of one message about a run.

    Args:
        report: The run.
        kind: What is at its head: failed, partial, delivery_failed, recovered, schema_changed or notice.
        level: How serious it is.
        events: What of the run is told.
        unsaid: How many runs with a failure that was told before were left out since the last message.
        since: When the trouble began, for one that goes on or has ended.
        failures: How many runs had it.
    """

    report: RunReport
    kind: str
    level: str
    events: tuple[ReportedEvent, ...]
    unsaid: int = 0
    since: datetime | None = None
    failures: int = 0


@frozen(kw_only=True)
class ReportDecision:
    """The messages to post, and the state to remember.

    Args:
        notifications: A message for each, in this order.
        held: What was held back in quiet hours and is told now, before the others: kind, pipeline, message, time.
        held_more: How many more were held back than could be kept.
        first_held: The number of the last record of the first run that is held back now; None if none is.
        state: JSON values, for the next decision.
    """

    notifications: tuple[RunNotification, ...]
    held: tuple[dict[str, str], ...] = ()
    held_more: int = 0
    first_held: int | None = None
    state: State = field(factory=dict)

    def done_with(self, notification: RunNotification) -> int | None:
        """The number of records that need no other attempt once this message is posted; None = not known yet.

        What is held back and what is to be remembered is kept only with the end of the delivery.
        """
        upto = notification.report.upto
        if notification is self.notifications[-1] or (self.first_held is not None and upto > self.first_held):
            return None
        return upto


def decide(
    reports: Iterable[RunReport], state: State, rules: ReportRules, now: datetime, *, told: int = 0
) -> ReportDecision:
    """Decide what to post.

    Args:
        reports: The runs since the last decision.
        state: What that one wanted to be remembered; empty at first.
        rules: What the user wants to hear.
        now: The time, with a time zone.
        told: Reports of the first so many records were posted by an attempt that broke off.
    """
    memory = _ReportMemory.of(state, rules, now)
    notifications: list[RunNotification] = []
    first_held = None
    quiet = rules.quiet is not None and rules.quiet.holds(now)
    for report in reports:
        notification = memory.notification(report)
        if notification is None or report.upto <= told:
            continue
        if quiet and not _passes_quiet_hours(notification, rules):
            memory.hold(notification)
            first_held = first_held or report.upto
        else:
            notifications.append(notification)
    held, more = ((), 0) if quiet else memory.release()
    return ReportDecision(
        notifications=tuple(notifications), held=held, held_more=more, first_held=first_held, state=memory.state()
    )


def _passes_quiet_hours(notification: RunNotification, rules: ReportRules) -> bool:
    return rules.through is not None and LEVELS[notification.level] >= LEVELS[rules.through]


@frozen
class _ReportMemory:
    """The reports of earlier deliveries."""

    rules: ReportRules
    now: datetime
    failing: dict[str, dict[str, Any]]
    noticed: dict[str, str]
    held: list[dict[str, str]]
    more: list[int]

    @classmethod
    def of(cls, state: State, rules: ReportRules, now: datetime) -> _ReportMemory:
        held = list(state.get(HELD, ()))
        failing = {name: dict(trouble) for name, trouble in state.get("failing", {}).items()}
        return cls(rules, now, failing, dict(state.get("noticed", {})), held, [int(state.get("held_more", 0))])

    def state(self) -> State:
        noticed = self._not_due(self.noticed)
        return {"failing": self.failing, "noticed": noticed, HELD: self.held, "held_more": self.more[0]}

    def _not_due(self, told: dict[str, str]) -> dict[str, str]:
        """The reports so recent that they are not repeated."""
        fresh = {key: at for key, at in told.items() if not self._is_due(at)}
        return dict(sorted(fresh.items(), key=lambda one: one[1])[-_MOST_TOLD:])

    def notification(self, report: RunReport) -> RunNotification | None:
        """The message about a run; None if there is nothing to report."""
        trouble = self._trouble(report) if report.trouble else self._recovery(report)
        others = (*self._schemas(report), *self._notices(report))
        if trouble is not None:
            return evolve(trouble, events=(*trouble.events, *others))
        if not others:
            return None
        kind = "schema_changed" if any(event.event == "schema_changed" for event in others) else "notice"
        level = max((other.level for other in others), key=LEVELS.__getitem__)
        return RunNotification(report=report, kind=kind, level=level, events=others)

    def _trouble(self, report: RunReport) -> RunNotification | None:
        kind = str(report.trouble)
        known = self.failing.setdefault(
            report.pipeline, {"since": report.at.isoformat(), "failures": 0, "unsaid": 0, "told": {}}
        )
        known["failures"] += 1
        if kind not in self.rules.kinds:
            return None
        same, told = fingerprint(report), self._not_due(known["told"])
        if same in told:
            known["unsaid"] += 1
            return None
        unsaid = known["unsaid"]
        known |= {"told": {**told, same: self.now.isoformat()}, "unsaid": 0}
        return RunNotification(
            report=report,
            kind=kind,
            level="error" if kind == "failed" else "warning",
            events=report.of("delivery_failed"),
            unsaid=unsaid,
            since=datetime.fromisoformat(known["since"]) if known["failures"] > 1 else None,
            failures=known["failures"],
        )

    def _recovery(self, report: RunReport) -> RunNotification | None:
        """The first success after trouble, whether we were told of it or only the run knows."""
        if report.outcome != "succeeded":
            return None
        known = self.failing.pop(report.pipeline, None)
        after_stop = report.recovered is not None and report.recovered.endswith("stopped")
        if "recovered" not in self.rules.kinds or (known is None and (report.recovered is None or after_stop)):
            return None
        since = None if known is None else datetime.fromisoformat(known["since"])
        failures = 0 if known is None else int(known["failures"])
        return RunNotification(report=report, kind="recovered", level="info", events=(), since=since, failures=failures)

    def _schemas(self, report: RunReport) -> tuple[ReportedEvent, ...]:
        return report.of("schema_changed") if "schema_changed" in self.rules.kinds else ()

    def _notices(self, report: RunReport) -> list[ReportedEvent]:
        """The notices that are serious enough and were not told lately."""
        if "notice" not in self.rules.kinds:
            return []
        told = []
        for event in report.of("notice"):
            key = text_fingerprint(f"{report.pipeline}/{event.stream}: {event.message}")
            lately = key in self.noticed and not self._is_due(self.noticed[key])
            if LEVELS[event.level] >= LEVELS[self.rules.notices] and not lately:
                self.noticed[key] = self.now.isoformat()
                told.append(event)
        return told

    def _is_due(self, told_at: str) -> bool:
        return self.now - datetime.fromisoformat(told_at) >= self.rules.repeat

    def hold(self, notification: RunNotification) -> None:
        """Keep a message for later, in short."""
        if len(self.held) >= _MOST_HELD:
            self.more[0] += 1
            return
        report = notification.report
        said = report.message or next((happening.message for happening in notification.events), "")
        self.held.append(
            {"kind": notification.kind, "pipeline": report.pipeline, "message": said[:300], "at": report.at.isoformat()}
        )

    def release(self) -> tuple[tuple[dict[str, str], ...], int]:
        """Hand out the messages that were held back, and forget them."""
        held, more = tuple(self.held), self.more[0]
        self.held.clear()
        self.more[0] = 0
        return held, more


@frozen
class QuietPeriod:
    """From ``start`` up to, not including, ``end``; over midnight where ``end`` is the earlier one.

    Only the reading of the wall clock counts, so that a night on which the clock is moved is as
    quiet as any other, though shorter or longer.
    """

    start: time
    end: time
    zone: ZoneInfo

    def holds(self, now: datetime) -> bool:
        """Return whether it is quiet at a moment, which has a time zone."""
        shown = now.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end


def clock_time(text: str) -> time:
    """A time such as 22:00.

    Raises:
        ValueError: It is none.
    """
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - a reading of the wall clock has no zone
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day such as 22:00") from None


def zone(name: str) -> ZoneInfo:
    """A time zone such as Europe/Berlin.

    Raises:
        ValueError: There is no such zone on this machine.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone such as Europe/Berlin or UTC") from None
