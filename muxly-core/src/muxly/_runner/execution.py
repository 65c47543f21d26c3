"""The execution of one run: its steps from sweeping the spool to the result."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.active import ActiveRun, sentence
from muxly._runner.checks import check_routes
from muxly._runner.committer import Committer
from muxly._runner.deliver import RouteWorker
from muxly._runner.extract import Extraction
from muxly._runner.replay import set_back
from muxly._runner.results import summarise
from muxly._runner.routes import refuse_removed, register
from muxly._runner.source import Source
from muxly._runner.subscriptions import chosen, defined, is_taken, routes_of
from muxly.component import Notice
from muxly.errors import (
    ConfigurationError,
    FencedError,
    MuxlyError,
    RouteError,
    SpoolError,
)
from muxly.pipeline import RunResult
from muxly.retry import Patience
from muxly.store import accounts, engine, plans, positions, retention, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly._runner.run_options import RunOptions
    from muxly._runner.session import Session
    from muxly.stream import Stream

_LOOK_SECONDS = 0.2


class Execution:
    """The steps of one run, in order."""

    def __init__(self, active: ActiveRun, session: Session, options: RunOptions) -> None:
        self._active, self._session, self._options = active, session, options
        self._pipeline, self._ledger = active.pipeline, active.ledger
        self._source = Source(active, on_wait=self._source_waits)
        self._streams: dict[str, Stream] = {}
        self._extraction: Extraction | None = None
        self._workers: dict[str, RouteWorker] = {}
        self._error: BaseException | None = None

    def run(self) -> RunResult:
        """Everything from sweeping to the result."""
        self._active.tell("muxly_run_started")
        try:
            self._prepare_and_work()
        except FencedError as error:
            self._active.fence(error)
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._close()
        return self._finish()

    def _prepare_and_work(self) -> None:
        known = self._prepare()
        if self._options.full_refresh and self._error is None:
            self._deliver_backlog()
            if not self._active.stop.is_set():
                plans.reset(self._ledger, self._streams)
        self._work(known)

    def _break_off(self, error: BaseException) -> None:
        """Leave everything behind; the error is what counts, not what else goes wrong now."""
        self._active.stop.set()
        self._leave_behind("was interrupted")
        with suppress(MuxlyError):
            runs.finish(self._ledger, state="failed", error=sentence(error), result={})
        self._active.tell("muxly_run_finished", result=self._broken_off(error))

    def _broken_off(self, error: BaseException) -> RunResult:
        run = self._active.run
        return RunResult(
            id=run.id,
            pipeline=run.pipeline,
            state="failed",
            started_at=run.started_at,
            finished_at=datetime.now(UTC),
            error=sentence(error),
        )

    def _prepare(self) -> frozenset[str]:
        """Sweep, learn the streams, take up the positions; returns the streams known before."""
        ledger = self._ledger
        self._sweep()
        before = positions.definitions(ledger)
        self._active.streams.update({name: defined(name, kept) for name, kept in before.items()})
        refuse_removed(self._pipeline, ledger)
        if self._options.replay is None:
            self._learn_streams()
        self._active.streams.update(self._streams)
        remembered = self._session.spool.folder / ".checked"
        check_routes(self._pipeline, self._active.streams.values(), self._ledger, remembered=remembered)
        known = frozenset(name for name, kept in before.items() if is_taken(kept))
        replay = self._options.replay
        register(self._active, self._streams, known, replayed=None if replay is None else replay.route)
        accounts.open_run(ledger, positions.pending(ledger))
        if replay is not None:
            set_back(ledger, self._pipeline, replay, self._active.streams)
        return known

    def _sweep(self) -> None:
        try:
            self._session.spool.sweep(named=retention.files(self._ledger), token=self._ledger.token)
        except SpoolError as error:  # they only take room; the next run tries again
            self._active.run.notice(Notice("sweep_failed", str(error)))

    def _learn_streams(self) -> None:
        """Open the connector; if that fails, only what waits is delivered."""
        patience = Patience(self._pipeline.retry, self._active.run.sleep)
        try:
            offered = patience.call(self._source.streams, failed=self._source.close)
            self._streams = chosen(self._pipeline, offered, self._options.select)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._error = error

    def _deliver_backlog(self) -> None:
        self._active.finish_reading()
        self._start_workers()
        self._wait(None)
        self._active.reading_done = False

    def _start_workers(self) -> None:
        served = positions.every(self._ledger)
        for one in served:
            self._active.heads.setdefault(one.stream, 0)
        for route in self._pipeline.routes:
            if not self._options.routes or route.name in self._options.routes:
                streams = {
                    one.stream: self._active.streams[one.stream]
                    for one in served
                    if one.route == route.name and one.stream in self._active.streams and not one.detached
                }
                self._workers[route.name] = RouteWorker(self._active, route, streams)
        for worker in self._workers.values():
            worker.start()

    def _work(self, known: frozenset[str]) -> None:
        """Read and deliver at the same time, until both are done."""
        reading = self._error is None and self._options.replay is None
        reader = self._new_reader(known) if reading else None
        self._start_workers()
        if reader is None:
            self._active.finish_reading()
            self._wait(None)
            return
        reader.start()
        self._wait(reader)

    def _source_waits(self, seconds: float) -> None:
        if self._extraction is not None:
            self._extraction.waits(seconds)

    def _new_reader(self, known: frozenset[str]) -> threading.Thread:
        pipeline = self._pipeline
        committer = Committer(
            self._active,
            lambda stream: routes_of(pipeline, stream),
            lambda: self._extraction.readers() if self._extraction is not None else 0,
        )
        extraction = self._extraction = Extraction(
            self._active, self._source.connector, self._streams, committer, limit=self._options.limit, known=known
        )

        def read() -> None:
            committer.start()
            try:
                extraction.run()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._error = error
            finally:
                committer.stop()
                self._active.finish_reading()

        return threading.Thread(target=read, name="muxly-extraction", daemon=True)

    def _wait(self, reader: threading.Thread | None) -> None:
        """Wait for reading and routes; leave behind what hangs."""
        until: float | None = None
        while (reader is not None and reader.is_alive()) or any(one.alive for one in self._workers.values()):
            self._active.wait(_LOOK_SECONDS)
            if self._active.stop.is_set() and until is None:
                until = time.monotonic() + self._pipeline.grace_seconds
            if until is not None and time.monotonic() > until:
                self._leave_behind("did not end within the grace time")
                return
            self._leave_stalled_routes()
            if reader is not None and self._extraction is not None:
                reader = self._leave_stalled_reading(reader, self._extraction)

    def _leave_stalled_routes(self) -> None:
        for name, worker in self._workers.items():
            if worker.alive and worker.stalled_seconds() > self._pipeline.stall_seconds:
                worker.abandon(RouteError(f"route {name!r} {self._stalled('its destination')}"), stalled=True)

    def _leave_stalled_reading(self, reader: threading.Thread, extraction: Extraction) -> threading.Thread | None:
        if extraction.stalled_seconds() <= self._pipeline.stall_seconds:
            return reader
        extraction.abandon(self._stalled("the source"))
        self._active.finish_reading()
        return None

    def _stalled(self, other_side: str) -> str:
        return (
            f"is stalled: it made no progress for {self._pipeline.stall_seconds:g} s, and is left behind; look whether "
            f"{other_side} answers and run again, or let it take longer with `stall_seconds:`"
        )

    def _leave_behind(self, why: str) -> None:
        for name, worker in self._workers.items():
            if worker.alive:
                worker.abandon(RouteError(f"route {name!r} {why}"))
        if self._extraction is not None and not self._active.reading_done:
            self._extraction.abandon(why)

    def _close(self) -> None:
        self._source.close()
        self._active.run.end()

    def _finish(self) -> RunResult:
        """Prune, account, and write the result down."""
        self._written(self._prune)
        result = self._summarised()
        if self._error is not None:
            self._active.unread[""] = self._error
        self._active.show()
        self._written(lambda: self._keep(result))
        if self._active.fenced is not None:
            result = self._summarised()
        self._active.tell("muxly_run_finished", result=result)
        return evolve(result, notices=tuple(self._active.notices))

    def _summarised(self) -> RunResult:
        with self._ledger.read() as connection:
            now: datetime = engine.now(connection)
        outcomes = None if self._extraction is None else self._extraction.outcomes
        result = summarise(self._active, outcomes, self._workers, finished_at=now, error=self._error)
        return evolve(result, previous=runs.previous_state(self._ledger))

    def _written(self, work: Callable[[], None]) -> None:
        """Write to the ledger as long as it is ours."""
        if self._active.fenced is None:
            try:
                work()
            except FencedError as error:
                self._active.fence(error)

    def _keep(self, result: RunResult) -> None:
        runs.finish(self._ledger, state=result.state, error=result.error, result=_stored(result))
        runs.forget_old(self._ledger)

    def _prune(self) -> None:
        names = retention.prune(
            self._ledger,
            keep_seconds=self._pipeline.retention_seconds,
            keep_bytes=self._pipeline.retention_bytes,
        )
        try:
            self._session.spool.delete(names)
        except SpoolError as error:  # their rows are gone, so the next run sweeps them
            self._active.run.notice(Notice("prune_failed", str(error)))


def _stored(result: RunResult) -> dict[str, Any]:
    """The result's numbers for the run's row."""
    routes = {
        name: {"delivered": one.delivered, "rejected": one.rejected, "pending": one.pending, "error": one.error}
        for name, one in result.routes.items()
    }
    streams = {name: {"sealed": one.sealed, "error": one.error} for name, one in result.streams.items()}
    return {"routes": routes, "streams": streams}
