"""The options of the router ``slack`` that have options of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

import muxly

if TYPE_CHECKING:
    from muxly_routers.slack.digest import DigestLayout
    from muxly_routers.slack.observer import ReportRules
    from muxly_routers.slack.quiet_hours import QuietPeriod

__all__ = ["Digest", "QuietHours", "RunEvents"]

ReportKind = Literal["failed", "partial", "delivery_failed", "recovered", "schema_changed", "notice"]
_TITLE = "{stream}: {count}"
_TITLE_FACTS = {"stream": "deals", "pipeline": "crm", "route": "sales", "run": "01J", "records": 1, "count": "1 record"}


def _check_title(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers._templates import Template

    template = Template.parse(value)
    unknown = sorted(template.fields - set(_TITLE_FACTS))
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is no field of a title; there are {', '.join(sorted(_TITLE_FACTS))}")
    template.render(_TITLE_FACTS)


def _check_clock(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack import quiet_hours

    quiet_hours.clock_time(value)


def _check_end(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack.quiet_hours import clock_time

    if clock_time(value) == clock_time(instance.start):
        raise ValueError("the quiet hours begin when they end; leave quiet_hours away, or give two times")


def _check_zone(instance: Any, attribute: Any, value: str) -> None:
    from muxly_routers.slack import quiet_hours

    quiet_hours.zone(value)


class Digest(muxly.Options):
    """One message for each delivery."""

    title: str = muxly.option(
        "Its title; {stream}, {count} such as 5 records, {records}, {pipeline}, {route} and {run} stand for values.",
        default=_TITLE,
        validator=_check_title,
    )
    rows: int = muxly.option(
        "So many records are shown as a table.",
        default=10,
        validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(99)),
    )
    columns: list[str] = muxly.option("Columns of the table, at most 20; default the first ones.", factory=list)
    table: Literal["block", "text"] = muxly.option(
        "A table as Slack draws it, or text in a code block for clients that draw none.", default="block"
    )

    def look(self) -> DigestLayout:
        """The same as a value."""
        from muxly_routers._templates import Template
        from muxly_routers.slack.digest import DigestLayout

        return DigestLayout(
            title=Template.parse(self.title),
            rows=self.rows,
            columns=tuple(self.columns),
            layout=self.table,
        )


class QuietHours(muxly.Options):
    """A part of each day in which reports on runs are held back."""

    start: str = muxly.option("When it begins, by the clock on the wall.", default="22:00", validator=_check_clock)
    end: str = muxly.option(
        "When it ends; over midnight where it is the earlier one.", default="07:00", validator=_check_end
    )
    time_zone: str = muxly.option("Of the clock on the wall, such as Europe/Berlin.", validator=_check_zone)
    let_through: Literal["error", "warning", "nothing"] = muxly.option(
        "Reports that are posted all the same: failed runs; also those that are behind; none.", default="error"
    )

    def quiet_time(self) -> QuietPeriod:
        """The same as a value."""
        from muxly_routers.slack.quiet_hours import QuietPeriod, clock_time, zone

        return QuietPeriod(clock_time(self.start), clock_time(self.end), zone(self.time_zone))


class RunEvents(muxly.Options):
    """What is reported on runs, from the records of the stream run_events."""

    report: list[ReportKind] = muxly.option("Kinds of reports.", factory=lambda: list(get_args(ReportKind)))
    notices: Literal["info", "warning", "error"] = muxly.option("Least level of notices.", default="warning")
    repeat_seconds: float = muxly.option(
        "The same failure or notice is told again only after so long, with how often it came.",
        default=6 * 3600.0,
        validator=attrs.validators.ge(0),
    )
    quiet_hours: QuietHours | None = muxly.option(
        "When reports are held back, to be told in one message by the first delivery after.", default=None
    )

    def rules(self) -> ReportRules:
        """The same as a value."""
        from muxly_routers.slack.observer import ReportRules

        hours = self.quiet_hours
        return ReportRules(
            kinds=frozenset(self.report),
            notices=self.notices,
            repeat=timedelta(seconds=self.repeat_seconds),
            quiet=None if hours is None else hours.quiet_time(),
            through=None if hours is None or hours.let_through == "nothing" else hours.let_through,
        )
