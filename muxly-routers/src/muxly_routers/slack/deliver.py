"""One delivery as messages: one for each record, or a digest with a file."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers._formats import Csv, Encoding, Parquet, open_encoder, resolve
from muxly_routers._formats.columns import rows
from muxly_routers._templates import check_fields
from muxly_routers.slack.digest import DigestLook, Gathered, digest
from muxly_routers.slack.observer import Rules, State, decide
from muxly_routers.slack.report_messages import held_message, telling_message
from muxly_routers.slack.reports import columns_problem, reports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pyarrow as pa

    from muxly_routers.slack.queue import Outbox
    from muxly_routers.slack.templated import MessageTemplate

__all__ = ["encoding_of", "post_digest", "post_records", "post_reports"]

_SPOOLED_BYTES = 4 << 20


def encoding_of(attach: str) -> Encoding | None:
    """How the attached file is written; None for no file."""
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
    delivery: muxly.Delivery, outbox: Outbox, look: DigestLook, run: muxly.Run, encoding: Encoding | None
) -> None:
    """Post what the delivery holds, and attach it as a file where the look says so."""
    with ExitStack() as stack:
        file = None if encoding is None else stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))
        count, first = _gather(delivery, look.rows, encoding, file)
        name = None if encoding is None else _file_name(delivery, encoding)
        facts: dict[str, Any] = {
            "stream": delivery.stream.name,
            "pipeline": run.pipeline,
            "route": run.route,
            "run": run.id,
        }
        facts |= {"records": count, "count": f"{count:,} record{'s' if count > 1 else ''}"}
        gathered = Gathered(facts=facts, columns=_columns(delivery.schema, look), first=first, file=name)
        start = delivery.delivered
        ts = outbox.post(digest(gathered, look), f"digest {start}")
        if file is not None and name is not None:
            outbox.attach(file, file.seek(0, 2), name, under=ts)


def post_reports(delivery: muxly.Delivery, outbox: Outbox, rules: Rules, now: datetime) -> State:
    """Post what is to be told of the runs in a delivery of ``run_events``; what to remember of it."""
    problem = columns_problem(delivery.schema)
    if problem is not None:
        raise muxly.StreamError(f"the stream {delivery.stream.name} {problem}, or set template: digest")
    before = delivery.state.get("runs", {}) if isinstance(delivery.state, dict) else {}
    records = [one for batch in delivery.source() for one in rows(batch)]
    decision = decide(reports(records), before, rules, now, told=delivery.delivered)
    if decision.held:
        outbox.post(held_message(decision.held, decision.held_more), "held")
    for telling in decision.tellings:
        name, upto = f"run {telling.report.run}", decision.done_with(telling)
        outbox.post(telling_message(telling), name, upto=upto)
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


def _columns(schema: pa.Schema, look: DigestLook) -> list[str]:
    names = list(schema.names)
    unknown = [one for one in look.columns if one not in names]
    if unknown:
        raise muxly.StreamError(
            f'digest.columns: the records have no column "{unknown[0]}"; there are {", ".join(names[:20])}'
        )
    return list(look.columns) or names


def _file_name(delivery: muxly.Delivery, encoding: Encoding) -> str:
    """A name by which a repeat of the delivery finds its file."""
    stream = re.sub(r"[^\w.-]+", "_", delivery.stream.name)[:60].strip("._") or "records"
    part = f"-{delivery.delivered}" if delivery.delivered else ""
    return f"{stream}-{delivery.id}{part}{encoding.suffix}"
