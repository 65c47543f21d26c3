"""Deliveries as messages: one for each record, a digest with a file, or reports on runs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
from attrs import field, frozen

import muxly
from muxly_routers._formats import Csv, Encoding, Parquet, open_encoder, resolve
from muxly_routers._formats.columns import rows
from muxly_routers._templates import Template, check_fields
from muxly_routers.slack.message import (
    COLUMNS_LIMIT,
    MessageTemplate,
    SlackMessage,
    context,
    escape,
    header,
    line,
    section,
    table_block,
    text_table,
)
from muxly_routers.slack.outbox import Outbox
from muxly_routers.slack.run_reports import (
    ReportedEvent,
    ReportRules,
    RunNotification,
    State,
    columns_problem,
    decide,
    reports,
)

__all__ = [
    "DigestContent",
    "DigestLayout",
    "digest",
    "encoding_of",
    "held_message",
    "post_digest",
    "post_records",
    "post_reports",
    "notification_message",
]

_SPOOLED_BYTES = 4 << 20


def encoding_of(attach: str) -> Encoding | None:
    """The encoding of the attached file; None for no file."""
    if attach == "none":
        return None
    return resolve(attach, "auto", None, Csv(), Parquet())  # type: ignore[arg-type]


def post_records(delivery: muxly.Delivery, outbox: Outbox, template: MessageTemplate) -> None:
    """Post a message for each record; each is kept as delivered before the next is posted."""
    check_fields(template.whole, delivery.schema, delivery.stream.name)
    records = (record for batch in delivery.batches() for record in rows(batch))
    for number, record in enumerate(records, start=delivery.delivered):
        outbox.post(template.render(record), str(number), upto=number + 1)
        outbox.mark(number + 1, str(number))


def post_digest(
    delivery: muxly.Delivery, outbox: Outbox, layout: DigestLayout, run: muxly.Run, encoding: Encoding | None
) -> None:
    """Post what the delivery holds, and attach it as a file where the look says so."""
    with ExitStack() as stack:
        file = None if encoding is None else stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))
        count, first = _gather(delivery, layout.rows, encoding, file)
        name = None if encoding is None else _file_name(delivery, encoding)
        facts: dict[str, Any] = {
            "stream": delivery.stream.name,
            "pipeline": run.pipeline,
            "route": run.route,
            "run": run.id,
        }
        facts |= {"records": count, "count": f"{count:,} record{'s' if count > 1 else ''}"}
        content = DigestContent(facts=facts, columns=_columns(delivery.schema, layout), first=first, file=name)
        start = delivery.delivered
        ts = outbox.post(digest(content, layout), f"digest {start}")
        if file is not None and name is not None:
            outbox.attach(file, file.seek(0, 2), name, under=ts)


def post_reports(delivery: muxly.Delivery, outbox: Outbox, rules: ReportRules, now: datetime) -> State:
    """Post what is to be told of the runs in a delivery of ``run_events``; what to remember of it."""
    problem = columns_problem(delivery.schema)
    if problem is not None:
        raise muxly.StreamError(f"the stream {delivery.stream.name} {problem}, or set template: digest")
    before = delivery.state.get("runs", {}) if isinstance(delivery.state, dict) else {}
    records = [row for batch in delivery.all_batches() for row in rows(batch)]
    decision = decide(reports(records), before, rules, now, told=delivery.delivered)
    if decision.held:
        outbox.post(held_message(decision.held, decision.held_more), "held")
    for notification in decision.notifications:
        name, upto = f"run {notification.report.run}", decision.done_with(notification)
        outbox.post(notification_message(notification), name, upto=upto)
        if upto is not None:
            outbox.mark(upto, name)
    return decision.state


def _gather(
    delivery: muxly.Delivery, most: int, encoding: Encoding | None, file: Any
) -> tuple[int, list[dict[str, Any]]]:
    """Count the records, keep the first ones, and write all of them into the file; one pass, batch by batch."""
    count, first = 0, list[dict[str, Any]]()
    encoder = None
    for batch in _filled(delivery):
        if encoding is not None and encoder is None:
            encoder = open_encoder(encoding, delivery.schema, file, digest=delivery.digest)
        if encoder is not None:
            encoder.write(batch)
        if len(first) < most:
            first += rows(batch.slice(0, most - len(first)))
        count += batch.num_rows
    if encoder is not None:
        encoder.finish()
    return count, first


def _filled(delivery: muxly.Delivery) -> Iterator[pa.RecordBatch]:
    return (batch for batch in delivery.batches() if batch.num_rows)


def _columns(schema: pa.Schema, layout: DigestLayout) -> list[str]:
    names = list(schema.names)
    unknown = [column for column in layout.columns if column not in names]
    if unknown:
        raise muxly.StreamError(
            f'digest.columns: the records have no column "{unknown[0]}"; there are {", ".join(names[:20])}'
        )
    return list(layout.columns) or names


def _file_name(delivery: muxly.Delivery, encoding: Encoding) -> str:
    """A name by which a repeat of the delivery finds its file."""
    stream = re.sub(r"[^\w.-]+", "_", delivery.stream.name)[:60].strip("._") or "records"
    part = f"-{delivery.delivered}" if delivery.delivered else ""
    return f"{stream}-{delivery.id}{part}{encoding.suffix}"


@frozen(kw_only=True)
class DigestLayout:
    """The layout of a digest.

    Args:
        title: Template of the title; its fields are those of ``Gathered.facts``.
        rows: So many records are shown.
        columns: These columns; none = all.
        layout: A table block, or a code fence.
    """

    title: Template
    rows: int
    columns: tuple[str, ...] = ()
    layout: Literal["block", "text"] = "block"


@frozen(kw_only=True)
class DigestContent:
    """The content of a delivery, as far as its digest needs it.

    Args:
        facts: ``stream``, ``pipeline``, ``route``, ``run``, ``records``, the number of them, and ``count``, that
            number in words.
        columns: The names of the columns to show.
        first: The first records.
        file: The name of the file with all of them, if there is one.
    """

    facts: Mapping[str, Any]
    columns: Sequence[str]
    first: Sequence[Mapping[str, Any]] = field(factory=list)
    file: str | None = None


def digest(content: DigestContent, layout: DigestLayout) -> SlackMessage:
    """The message of a delivery."""
    title = str(layout.title.render(content.facts, escape=escape))
    blocks = [header(title)]
    if content.first:
        draw = table_block if layout.layout == "block" else text_table
        blocks.append(draw(content.columns, content.first))
    blocks.append(context(_below(content)))
    return SlackMessage(title, blocks)


def _below(content: DigestContent) -> str:
    """The line under the table."""
    records, shown, facts = content.facts["records"], len(content.first), content.facts
    parts = [f"the first {shown} of {records:,}"] if 0 < shown < records else []
    hidden = len(content.columns) - COLUMNS_LIMIT
    if shown and hidden > 0:
        parts.append(f"the first {COLUMNS_LIMIT} of {len(content.columns)} columns")
    if content.file is not None:
        parts.append(f"all of them in {_mentioned(content.file)}")
    parts.append(f"pipeline {_mentioned(str(facts['pipeline']))}, run {_mentioned(str(facts['run']))}")
    return " · ".join(parts)


def _mentioned(name: str) -> str:
    return escape(line(name, 120))


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


def notification_message(notification: RunNotification) -> SlackMessage:
    """A message about one run."""
    report = notification.report
    title = f"{_SIGNS[notification.kind]} {_title(notification)}"
    blocks = [header(title)]
    if report.message and notification.kind in ("failed", "partial"):
        blocks.append(section(_quoted(report.message)))
    if going_on := _duration(notification):
        blocks.append(section(going_on))
    shown = notification.events[:_MOST_SAID]
    blocks += [section(_event_text(event)) for event in shown]
    if left := len(notification.events) - len(shown):
        blocks.append(context(f"… and {left} more"))
    blocks.append(context(" · ".join(_facts(notification))))
    first = report.message or (notification.events[0].message if notification.events else "")
    return SlackMessage(f"{title}: {escape(line(first, 200))}" if first else title, blocks)


def held_message(held: Sequence[dict[str, str]], more: int) -> SlackMessage:
    """One message with what was held back while it was quiet."""
    count = len(held) + more
    title = f"🌙 While it was quiet: {count} message{'s' if count > 1 else ''}"
    lines = [_held_line(entry) for entry in held[:_MOST_HELD]]
    if left := count - len(lines):
        lines.append(f"… and {left} more")
    # A section holds 3,000 characters, and a line at most 300.
    sections = [section("\n".join(lines[start : start + 8])) for start in range(0, len(lines), 8)]
    return SlackMessage(title, [header(title), *sections])


def _held_line(entry: dict[str, str]) -> str:
    sign, title = _SIGNS.get(entry["kind"], "💬"), _TITLES.get(entry["kind"], "{pipeline}")
    said = f": {escape(line(entry['message'], 160))}" if entry["message"] else ""
    name = escape(line(entry["pipeline"], 60))
    return f"{sign} {_moment(entry['at'])} *{title.format(pipeline=name)}*{said}"


def _title(notification: RunNotification) -> str:
    return _TITLES[notification.kind].format(pipeline=escape(line(notification.report.pipeline, 60)))


def _quoted(text: str) -> str:
    """Text with a line at its left, as many lines as it has."""
    cut = text if len(text) <= _SAID_CHARACTERS else text[:_SAID_CHARACTERS] + "…"
    return "\n".join(f">{escape(splitline)}" for splitline in cut.splitlines())


def _event_text(event: ReportedEvent) -> str:
    """A failed delivery, changed columns or a notice."""
    where = " / ".join(escape(line(part, 60)) for part in (event.route, event.stream) if part)
    if event.event == "schema_changed":
        return f"*{where}* has new or wider columns: {escape(line(event.message, 400))}"
    if event.event == "delivery_failed":
        return f"*{where}* was not delivered:\n{_quoted(event.message)}"
    text = escape(line(event.message, 600))
    return f"{_LEVEL_SIGNS[event.level]} *{where}*: {text}" if where else f"{_LEVEL_SIGNS[event.level]} {text}"


def _duration(notification: RunNotification) -> str:
    """Since when, and how often."""
    if notification.kind == "recovered":
        if notification.since is None:
            return ""
        runs = f"{notification.failures} run{'s' if notification.failures > 1 else ''}"
        return f"In trouble since {_moment(notification.since.isoformat())}, in {runs}."
    if notification.since is None:
        return ""
    unsaid = f"; {notification.unsaid} of them not posted" if notification.unsaid else ""
    return f"Since {_moment(notification.since.isoformat())}: {notification.failures} runs in a row{unsaid}."


def _facts(notification: RunNotification) -> list[str]:
    report = notification.report
    read = [] if report.records is None else [f"{report.records:,} records read"]
    return [_moment(report.at.isoformat()), *read, f"run {escape(report.run)}"]


def _moment(at: str) -> str:
    """A time that each reader sees in their own zone; docs.slack.dev/messaging/formatting-message-text."""
    moment = datetime.fromisoformat(at)
    return (
        f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time}}|{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC>"
    )
