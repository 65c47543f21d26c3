"""How messages about runs look."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muxly_routers.slack.message import SlackMessage, context, header, section
from muxly_routers.slack.text import escape, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muxly_routers.slack.observer import RunNotification
    from muxly_routers.slack.reports import ReportedEvent

__all__ = ["held_message", "telling_message"]

_SIGNS = {
    "failed": "🔴",
    "partial": "🟠",
    "delivery_failed": "🟠",
    "recovered": "🟢",
    "schema_changed": "🔷",
    "notice": "💬",
}
_TITLES = {
    "failed": "{pipeline} failed",
    "partial": "{pipeline} is behind",
    "delivery_failed": "{pipeline}: a route is behind",
    "recovered": "{pipeline} works again",
    "schema_changed": "{pipeline}: columns changed",
    "notice": "{pipeline}: a notice",
}
_LEVEL_SIGNS = {"error": "🔴", "warning": "🟠", "info": "💬"}
_MOST_SAID, _MOST_HELD = 8, 40
_SAID_CHARACTERS = 1_000


def telling_message(telling: RunNotification) -> SlackMessage:
    """A message about one run."""
    report = telling.report
    title = f"{_SIGNS[telling.kind]} {_title(telling)}"
    blocks = [header(title)]
    if report.message and telling.kind in ("failed", "partial"):
        blocks.append(section(_quoted(report.message)))
    if going_on := _going_on(telling):
        blocks.append(section(going_on))
    shown = telling.happenings[:_MOST_SAID]
    blocks += [section(_said(one)) for one in shown]
    if left := len(telling.happenings) - len(shown):
        blocks.append(context(f"… and {left} more"))
    blocks.append(context(" · ".join(_facts(telling))))
    first = report.message or (telling.happenings[0].message if telling.happenings else "")
    return SlackMessage(f"{title}: {escape(line(first, 200))}" if first else title, blocks)


def held_message(held: Sequence[dict[str, str]], more: int) -> SlackMessage:
    """One message with what was held back while it was quiet."""
    count = len(held) + more
    title = f"🌙 While it was quiet: {count} message{'s' if count > 1 else ''}"
    lines = [_held_line(one) for one in held[:_MOST_HELD]]
    if left := count - len(lines):
        lines.append(f"… and {left} more")
    # A section holds 3,000 characters, and a line at most 300.
    sections = [section("\n".join(lines[start : start + 8])) for start in range(0, len(lines), 8)]
    return SlackMessage(title, [header(title), *sections])


def _held_line(one: dict[str, str]) -> str:
    sign, title = _SIGNS.get(one["kind"], "💬"), _TITLES.get(one["kind"], "{pipeline}")
    said = f": {escape(line(one['message'], 160))}" if one["message"] else ""
    name = escape(line(one["pipeline"], 60))
    return f"{sign} {_moment(one['at'])} *{title.format(pipeline=name)}*{said}"


def _title(telling: RunNotification) -> str:
    return _TITLES[telling.kind].format(pipeline=escape(line(telling.report.pipeline, 60)))


def _quoted(text: str) -> str:
    """Text with a line at its left, as many lines as it has."""
    cut = text if len(text) <= _SAID_CHARACTERS else text[:_SAID_CHARACTERS] + "…"
    return "\n".join(f">{escape(one)}" for one in cut.splitlines())


def _said(one: ReportedEvent) -> str:
    """A failed delivery, changed columns or a notice."""
    where = " / ".join(escape(line(part, 60)) for part in (one.route, one.stream) if part)
    if one.event == "schema_changed":
        return f"*{where}* has new or wider columns: {escape(line(one.message, 400))}"
    if one.event == "delivery_failed":
        return f"*{where}* was not delivered:\n{_quoted(one.message)}"
    said = escape(line(one.message, 600))
    return f"{_LEVEL_SIGNS[one.level]} *{where}*: {said}" if where else f"{_LEVEL_SIGNS[one.level]} {said}"


def _going_on(telling: RunNotification) -> str:
    """Since when, and how often."""
    if telling.kind == "recovered":
        if telling.since is None:
            return ""
        runs = f"{telling.failures} run{'s' if telling.failures > 1 else ''}"
        return f"In trouble since {_moment(telling.since.isoformat())}, in {runs}."
    if telling.since is None:
        return ""
    unsaid = f"; {telling.unsaid} of them not posted" if telling.unsaid else ""
    return f"Since {_moment(telling.since.isoformat())}: {telling.failures} runs in a row{unsaid}."


def _facts(telling: RunNotification) -> list[str]:
    report = telling.report
    read = [] if report.records is None else [f"{report.records:,} records read"]
    return [_moment(report.at.isoformat()), *read, f"run {escape(report.run)}"]


def _moment(at: str) -> str:
    """A time that each reader sees in their own zone; docs.slack.dev/messaging/formatting-message-text."""
    moment = datetime.fromisoformat(at)
    return (
        f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time}}|{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC>"
    )
