"""Which messages to post about runs: a function of what happened, what was told before, and the time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from muxly_routers.slack.reports import LEVELS, ReportedEvent, RunReport, fingerprint, same_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers.slack.quiet_hours import QuietPeriod

__all__ = ["ReportDecision", "ReportRules", "State", "RunNotification", "decide"]

State = dict[str, Any]
_MOST_HELD, _MOST_TOLD = 200, 500
HELD = "held"


@frozen(kw_only=True)
class ReportRules:
    """What the user wants to hear.

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
    """What one message says of a run.

    Args:
        report: The run.
        kind: What is at its head: failed, partial, delivery_failed, recovered, schema_changed or notice.
        level: How serious it is.
        happenings: What of the run is told.
        unsaid: How many runs with a failure that was told before were left out since the last message.
        since: When the trouble began, for one that goes on or has ended.
        failures: How many runs had it.
    """

    report: RunReport
    kind: str
    level: str
    happenings: tuple[ReportedEvent, ...]
    unsaid: int = 0
    since: datetime | None = None
    failures: int = 0


@frozen(kw_only=True)
class ReportDecision:
    """What to post, and what to remember.

    Args:
        tellings: A message for each, in this order.
        held: What was held back in quiet hours and is told now, before the others: kind, pipeline, message, time.
        held_more: How many more were held back than could be kept.
        first_held: The number of the last record of the first run that is held back now; None if none is.
        state: JSON values, for the next decision.
    """

    tellings: tuple[RunNotification, ...]
    held: tuple[dict[str, str], ...] = ()
    held_more: int = 0
    first_held: int | None = None
    state: State = field(factory=dict)

    def done_with(self, telling: RunNotification) -> int | None:
        """How many records need no other attempt when this message is posted; None = that is not known yet.

        What is held back and what is to be remembered is kept only with the end of the delivery.
        """
        upto = telling.report.upto
        if telling is self.tellings[-1] or (self.first_held is not None and upto > self.first_held):
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
    tellings: list[RunNotification] = []
    first_held = None
    quiet = rules.quiet is not None and rules.quiet.holds(now)
    for report in reports:
        telling = memory.telling(report)
        if telling is None or report.upto <= told:
            continue
        if quiet and not _goes_through(telling, rules):
            memory.hold(telling)
            first_held = first_held or report.upto
        else:
            tellings.append(telling)
    held, more = ((), 0) if quiet else memory.release()
    return ReportDecision(
        tellings=tuple(tellings), held=held, held_more=more, first_held=first_held, state=memory.state()
    )


def _goes_through(telling: RunNotification, rules: ReportRules) -> bool:
    return rules.through is not None and LEVELS[telling.level] >= LEVELS[rules.through]


@frozen
class _ReportMemory:
    """What was told before."""

    rules: ReportRules
    now: datetime
    failing: dict[str, dict[str, Any]]
    noticed: dict[str, str]
    held: list[dict[str, str]]
    more: list[int]

    @classmethod
    def of(cls, state: State, rules: ReportRules, now: datetime) -> _ReportMemory:
        held = list(state.get(HELD, ()))
        failing = {name: dict(one) for name, one in state.get("failing", {}).items()}
        return cls(rules, now, failing, dict(state.get("noticed", {})), held, [int(state.get("held_more", 0))])

    def state(self) -> State:
        noticed = self._still(self.noticed)
        return {"failing": self.failing, "noticed": noticed, HELD: self.held, "held_more": self.more[0]}

    def _still(self, told: dict[str, str]) -> dict[str, str]:
        """What was told so lately that it is not told again."""
        fresh = {key: at for key, at in told.items() if not self._is_due(at)}
        return dict(sorted(fresh.items(), key=lambda one: one[1])[-_MOST_TOLD:])

    def telling(self, report: RunReport) -> RunNotification | None:
        """What is told of a run; None if nothing is."""
        trouble = self._trouble(report) if report.trouble else self._recovery(report)
        others = (*self._schemas(report), *self._notices(report))
        if trouble is not None:
            return evolve(trouble, happenings=(*trouble.happenings, *others))
        if not others:
            return None
        kind = "schema_changed" if any(one.event == "schema_changed" for one in others) else "notice"
        level = max((one.level for one in others), key=LEVELS.__getitem__)
        return RunNotification(report=report, kind=kind, level=level, happenings=others)

    def _trouble(self, report: RunReport) -> RunNotification | None:
        kind = str(report.trouble)
        known = self.failing.setdefault(
            report.pipeline, {"since": report.at.isoformat(), "failures": 0, "unsaid": 0, "told": {}}
        )
        known["failures"] += 1
        if kind not in self.rules.kinds:
            return None
        same, told = fingerprint(report), self._still(known["told"])
        if same in told:
            known["unsaid"] += 1
            return None
        unsaid = known["unsaid"]
        known |= {"told": {**told, same: self.now.isoformat()}, "unsaid": 0}
        return RunNotification(
            report=report,
            kind=kind,
            level="error" if kind == "failed" else "warning",
            happenings=report.of("delivery_failed"),
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
        return RunNotification(
            report=report, kind="recovered", level="info", happenings=(), since=since, failures=failures
        )

    def _schemas(self, report: RunReport) -> tuple[ReportedEvent, ...]:
        return report.of("schema_changed") if "schema_changed" in self.rules.kinds else ()

    def _notices(self, report: RunReport) -> list[ReportedEvent]:
        """The notices that are serious enough and were not told lately."""
        if "notice" not in self.rules.kinds:
            return []
        told = []
        for one in report.of("notice"):
            key = same_words(f"{report.pipeline}/{one.stream}: {one.message}")
            lately = key in self.noticed and not self._is_due(self.noticed[key])
            if LEVELS[one.level] >= LEVELS[self.rules.notices] and not lately:
                self.noticed[key] = self.now.isoformat()
                told.append(one)
        return told

    def _is_due(self, told_at: str) -> bool:
        return self.now - datetime.fromisoformat(told_at) >= self.rules.repeat

    def hold(self, telling: RunNotification) -> None:
        """Keep a message for later, in short."""
        if len(self.held) >= _MOST_HELD:
            self.more[0] += 1
            return
        report = telling.report
        said = report.message or next((one.message for one in telling.happenings), "")
        self.held.append(
            {"kind": telling.kind, "pipeline": report.pipeline, "message": said[:300], "at": report.at.isoformat()}
        )

    def release(self) -> tuple[tuple[dict[str, str], ...], int]:
        """What was kept, which is forgotten."""
        held, more = tuple(self.held), self.more[0]
        self.held.clear()
        self.more[0] = 0
        return held, more
