"""What happened in a run, put together from the records of ``run_events``."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from muxly_routers._files.layout import text_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    import pyarrow as pa

__all__ = ["LEVELS", "ReportedEvent", "Level", "RunReport", "columns_problem", "fingerprint", "reports", "same_words"]

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
        happenings: Failed deliveries, changed schemas and notices.
    """

    pipeline: str
    run: str
    at: datetime
    upto: int
    outcome: str | None
    message: str
    records: int | None
    recovered: str | None
    happenings: tuple[ReportedEvent, ...]

    def of(self, event: str) -> tuple[ReportedEvent, ...]:
        """The happenings of one kind."""
        return tuple(one for one in self.happenings if one.event == event)

    @property
    def trouble(self) -> str | None:
        """What went wrong, as the name of a kind of message; None if nothing did."""
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
        return f"has the columns at: {at} and records: {records}, and is none of run events; give it another name"
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
    """What makes two failures of a pipeline the same: kind, routes, streams and words, without numbers."""
    parts = {f"{one.route}/{one.stream}: {one.message}" for one in report.of("delivery_failed")}
    return same_words(" | ".join([str(report.trouble), report.message, *sorted(parts)]))


def same_words(text: str) -> str:
    """A short name of a text; the same for texts that differ only in what changes from run to run."""
    return text_hash(_CHANGING.sub("#", text), size=8)


def _report(pipeline: str, run: str, events: list[tuple[int, Mapping[str, Any]]]) -> RunReport:
    ended = next((one for _number, one in events if one["event"] in _OUTCOMES), None)
    recovered = next((one for _number, one in events if one["event"] == "recovered"), None)
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
        happenings=tuple(_happening(one) for _number, one in events if one["event"] in told),
    )


def _happening(event: Mapping[str, Any]) -> ReportedEvent:
    return ReportedEvent(
        event=str(event["event"]),
        level=event["level"] if event["level"] in LEVELS else "warning",
        message=str(event["message"] or ""),
        route=event["route"],
        stream=event["stream"],
    )
