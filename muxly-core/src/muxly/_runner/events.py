"""Run events as records of the stream ``run_events``, delivered like any other stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from muxly._runner.context import sentence
from muxly._runner.execution import execute
from muxly._runner.options import RunOptions
from muxly._runner.session import Home
from muxly.batch import Batch
from muxly.component import Notice, Run
from muxly.connector import Connector, Partition, Plan
from muxly.errors import LeaseHeldError
from muxly.hookspecs import hookimpl
from muxly.pipeline import Pipeline, Route, RunResult
from muxly.retry import Backoff, Retry
from muxly.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa


STREAM = "run_events"


def schema() -> pa.Schema:
    """The columns of ``run_events``."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("at", pa.timestamp("us", tz="UTC")),
            ("event", text),
            ("pipeline", text),
            ("run", text),
            ("route", text),
            ("stream", text),
            ("level", text),
            ("message", text),
            ("records", pa.int64()),
        ]
    )


class EventLog:
    """An observer that keeps what happens in a run as records.

    Events: ``started``; ``succeeded``, ``partial``, ``failed`` or ``stopped``; ``recovered``
    when the run before was not ``succeeded``; ``delivery_failed``; ``schema_changed``; ``notice``.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def _add(self, run: Run, event: str, **facts: Any) -> None:
        from datetime import UTC, datetime

        base: dict[str, Any] = {"at": datetime.now(UTC), "event": event, "pipeline": run.pipeline, "run": run.id}
        self.records.append({"level": "info", **base, **facts})

    @hookimpl
    def muxly_run_started(self, run: Run) -> None:
        """Keep that the run began."""
        self._add(run, "started")

    @hookimpl
    def muxly_run_finished(self, run: Run, result: RunResult) -> None:
        """Keep how it ended."""
        level = {"succeeded": "info", "failed": "error"}.get(result.state, "warning")
        records = sum(stream.sealed for stream in result.streams.values())
        self._add(run, result.state, level=level, message=result.error, records=records)
        if result.state == "succeeded" and result.previous not in (None, "succeeded"):
            self._add(run, "recovered", message=f"the previous run was {result.previous}")

    @hookimpl
    def muxly_delivery_failed(self, run: Run, route: str, stream: str, error: Exception) -> None:
        """Keep which route gave up."""
        self._add(run, "delivery_failed", level="error", route=route, stream=stream, message=str(error))

    @hookimpl
    def muxly_schema_changed(self, run: Run, stream: str, before: pa.Schema | None, after: pa.Schema) -> None:
        """Keep which columns came."""
        if before is not None:
            known = {(field.name, str(field.type)) for field in before}
            new = [f"{field.name} {field.type}" for field in after if (field.name, str(field.type)) not in known]
            self._add(run, "schema_changed", level="warning", stream=stream, message=", ".join(new))

    @hookimpl
    def muxly_notice(self, run: Run, notice: Notice) -> None:
        """Keep what people should know."""
        self._add(run, "notice", level=notice.level, stream=notice.stream, message=notice.message)


class _Events(Connector):
    """Reads the events of one run."""

    _records: Any = None

    def streams(self) -> list[Stream]:
        """The one stream."""
        return [Stream(STREAM, schema=schema())]

    def plan(self, stream: Stream, cursor: datetime | str | None) -> Plan:
        """One partition, named after the run."""
        run = self._records[0]["run"] if self._records else None
        return Plan((Partition(run),) if run and run != cursor else (), cursor=run)

    def read(self, stream: Stream, partition: Partition, cursor: Any) -> Iterator[Batch]:
        """All of them at once."""
        import pyarrow as pa

        if self._records and self._records[0]["run"] == partition.id:
            yield Batch(pa.Table.from_pylist(self._records, schema=schema()))


def deliver_events(log: EventLog, pipeline: str, routes: Mapping[str, Route], home: Home) -> RunResult | None:
    """Deliver a run's events; routes that fail keep them for the next run.

    Args:
        log: What happened.
        pipeline: The pipeline's name.
        routes: Where to, by name.
        home: Where the store and the spool are.

    Returns:
        What was delivered; None if nothing happened.
    """
    if not log.records:
        return None
    connector = _Events()
    connector._records = log.records
    events = Pipeline(f"{pipeline[:55]}.events", connector, routes=tuple(routes.values()))
    return execute(events, home, RunOptions())


def finished_events(log: EventLog, pipeline: str, routes: Mapping[str, Route], home: Home) -> list[Notice]:
    """Deliver a run's events; whatever is wrong with that is a notice, for the run itself is over.

    Args:
        log: What happened.
        pipeline: The pipeline's name.
        routes: Where to, by name.
        home: Where the store and the spool are.
    """
    retry = Retry(Backoff(first_seconds=0.2, limit_seconds=2.0), time.sleep)
    try:  # another run of the pipeline may hold the lease just now, to deliver its own
        retry.call(lambda: deliver_events(log, pipeline, routes, home), after=LeaseHeldError)
    except Exception as error:  # noqa: BLE001 - an event that nobody hears never breaks a run
        message = f"the run's events were not delivered: {sentence(error)}"
        return [Notice("events_failed", message, level="error")]
    return []
