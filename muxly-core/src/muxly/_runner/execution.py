"""The execution of one run: its steps from sweeping the spool to the result."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.context import ActiveRun, sentence
from muxly._runner.deliver.preflight import check_routes
from muxly._runner.deliver.replay import set_back
from muxly._runner.deliver.retention_loop import Housekeeping
from muxly._runner.deliver.route_worker import RouteWorker
from muxly._runner.extract.committer import Committer
from muxly._runner.extract.extraction import Extraction
from muxly._runner.extract.source import Source
from muxly._runner.registration import refuse_removed, register
from muxly._runner.result import summarise
from muxly._runner.stall_watch import Oversight
from muxly._runner.streams import chosen, defined, is_taken, routes_of
from muxly._runner.threads import DaemonThreads
from muxly.component import Notice
from muxly.errors import (
    ConfigurationError,
    FencedError,
    MuxlyError,
)
from muxly.pipeline import RunResult
from muxly.retry import Backoff, Patience
from muxly.store import accounts, plans, positions, runs
from muxly.store.database import engine

if TYPE_CHECKING:
    from muxly._runner.options import RunOptions
    from muxly.stream import Stream

_AT_THE_END = Backoff(first_seconds=0.2, limit_seconds=2.0)


class Execution:
    """The steps of one run, in order."""

    def __init__(self, active: ActiveRun, options: RunOptions) -> None:
        self._active, self._options = active, options
        self._pipeline, self._ledger = active.pipeline, active.ledger
        self._source = Source(active, on_wait=self._source_waits)
        self._streams: dict[str, Stream] = {}
        self._housekeeping = Housekeeping(active)
        self._oversight = Oversight(active, self._housekeeping.prune_now_and_then)
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
        self._oversight.leave_behind("was interrupted")
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
        self._housekeeping.sweep()
        before = positions.definitions(ledger)
        self._active.streams.update({name: defined(name, kept) for name, kept in before.items()})
        refuse_removed(self._pipeline, ledger)
        if self._options.replay is None:
            self._learn_streams()
        self._active.streams.update(self._streams)
        remembered = self._active.spool.folder / ".checked"
        check_routes(self._pipeline, self._active.streams.values(), self._ledger, remembered=remembered)
        known = frozenset(name for name, kept in before.items() if is_taken(kept))
        replay = self._options.replay
        register(self._active, self._streams, known, replayed=None if replay is None else replay.route)
        accounts.open_run(ledger, accounts.pending(ledger))
        if replay is not None:
            set_back(ledger, self._pipeline, replay, self._active.streams)
        return known

    def _learn_streams(self) -> None:
        """Open the connector; if that fails, only what waits is delivered."""
        patience = Patience(self._pipeline.retry, self._active.run.sleep, tell=partial(self._active.waits, "", ""))
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
        self._oversight.wait(None)
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
                self._oversight.workers[route.name] = RouteWorker(self._active, route, streams)
        for worker in self._oversight.workers.values():
            worker.start()

    def _work(self, known: frozenset[str]) -> None:
        """Read and deliver at the same time, until both are done."""
        reading = self._error is None and self._options.replay is None
        reader = self._new_reader(known) if reading else None
        self._start_workers()
        if reader is None:
            self._active.finish_reading()
            self._oversight.wait(None)
            return
        reader.start()
        self._oversight.wait(reader)

    def _source_waits(self, seconds: float) -> None:
        if self._oversight.extraction is not None:
            self._oversight.extraction.waits(seconds)

    def _new_reader(self, known: frozenset[str]) -> threading.Thread:
        pipeline = self._pipeline
        committer = Committer(
            self._active,
            lambda stream: routes_of(pipeline, stream),
            lambda: self._oversight.extraction.readers() if self._oversight.extraction is not None else 0,
        )
        extraction = self._oversight.extraction = Extraction(
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

    def _close(self) -> None:
        self._source.close()
        if (why := self._give_back()) is not None:
            message = f"closing what the run's components share {why}"
            self._active.run.notice(Notice("close_failed", message))

    def _give_back(self) -> str | None:
        """Give back shared objects, within the time that a stall takes; what went wrong, if something did."""
        seconds = self._pipeline.grace_seconds if self._active.stop.is_set() else self._pipeline.stall_seconds
        threads = DaemonThreads(1, "muxly-shared")
        ended = threads.submit(self._active.run.end)
        threads.shutdown(wait=False)
        if not wait([ended], seconds).done:
            return f"did not end within {seconds:g} s"
        error = ended.exception()
        return None if error is None else f"raised {type(error).__name__}: {error}"

    def _finish(self) -> RunResult:
        """Prune, account, and write the result down."""
        self._housekeeping.prune()
        patience = Patience(_AT_THE_END, time.sleep)  # the store may be away for a moment, as at any other time
        result = patience.call(self._summarised)
        if self._error is not None:
            self._active.unread[""] = self._error
        self._active.show()
        with self._active.fencing():
            patience.call(lambda: self._keep(result))
        if self._active.fenced is not None:
            result = self._summarised()
        self._active.tell("muxly_run_finished", result=result)
        return evolve(result, notices=tuple(self._active.notices))

    def _summarised(self) -> RunResult:
        with self._ledger.read() as connection:
            now: datetime = engine.now(connection)
        outcomes = None if self._oversight.extraction is None else self._oversight.extraction.outcomes
        result = summarise(self._active, outcomes, self._oversight.workers, finished_at=now, error=self._error)
        return evolve(result, previous=runs.previous_state(self._ledger))

    def _keep(self, result: RunResult) -> None:
        runs.finish(self._ledger, state=result.state, error=result.error, result=_stored(result))
        runs.forget_old(self._ledger)


def _stored(result: RunResult) -> dict[str, Any]:
    """The result's numbers for the run's row."""
    routes = {
        name: {"delivered": one.delivered, "rejected": one.rejected, "pending": one.pending, "error": one.error}
        for name, one in result.routes.items()
    }
    streams = {name: {"sealed": one.sealed, "error": one.error} for name, one in result.streams.items()}
    return {"routes": routes, "streams": streams}
