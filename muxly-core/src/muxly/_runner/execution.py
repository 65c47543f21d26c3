"""The execution of one run: its steps from sweeping the spool to the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import evolve

from muxly import _plugins
from muxly._runner.context import RunContext, sentence
from muxly._runner.deliver.preflight import check_routes
from muxly._runner.deliver.route_worker import RouteWorker
from muxly._runner.extract.committer import Committer
from muxly._runner.extract.extraction import Extraction
from muxly._runner.extract.planning import OpenedConnector
from muxly._runner.options import RunOptions
from muxly._runner.result import summarise
from muxly._runner.session import Home, open_session
from muxly._runner.stall_watch import StallWatch
from muxly._runner.streams import chosen, defined, is_taken, refuse_removed, register, routes_of
from muxly._runner.threads import DaemonThreads
from muxly.component import Notice
from muxly.errors import (
    ConfigurationError,
    FencedError,
    MuxlyError,
    RetryableError,
    SpoolError,
    StoreError,
)
from muxly.pipeline import Pipeline, RunResult
from muxly.retry import Backoff, Retry
from muxly.store import accounts, plans, positions, retention, runs
from muxly.store.database import engine
from muxly.stream import Stream
from muxly.suggest import suggest

_AT_THE_END = Backoff(first_seconds=0.2, limit_seconds=2.0)


def execute(pipeline: Pipeline, home: Home, options: RunOptions) -> RunResult:
    """Run a pipeline in a home; see ``run``."""
    _check_names(pipeline, [*options.routes, *([options.replay.route] if options.replay else [])])
    hooks, broken = _plugins.observers(options.observers)
    fences: list[Callable[[FencedError], None]] = []
    with open_session(
        home,
        pipeline.name,
        command="replay" if options.replay else "run",
        params=options.params,
        on_fenced=lambda error: fences[0](error),  # noqa: PLW0108 - the list is filled later
    ) as session:
        context = RunContext.of(
            pipeline,
            session.ledger,
            session.spool,
            hooks,
            params=options.params,
            guarded=options.guarded,
            stop=options.stop,
            on_change=options.on_change,
        )
        fences.append(context.failures.fence)
        for error in broken:
            context.run.notice(Notice("observer_unavailable", str(error)))
        return Execution(context, options).run()


def _check_names(pipeline: Pipeline, routes: Sequence[str]) -> None:
    names = [route.name for route in pipeline.routes]
    for name in routes:
        if name not in names:
            near = suggest(name, names)
            hint = f'did you mean "{near}"?' if near else f"it has {', '.join(names)}"
            raise ConfigurationError(f"the pipeline {pipeline.name!r} has no route {name!r}; {hint}")


class Execution:
    """The steps of one run, in order."""

    def __init__(self, context: RunContext, options: RunOptions) -> None:
        self._context, self._options = context, options
        self._pipeline, self._ledger = context.pipeline, context.ledger
        self._source = OpenedConnector(context, on_wait=self._source_waits)
        self._streams: dict[str, Stream] = {}
        self._pruning = SpoolPruning(context)
        self._watch = StallWatch(context, self._pruning.prune_now_and_then)

    def run(self) -> RunResult:
        """Everything from sweeping to the result."""
        self._context.observers.call("muxly_run_started")
        try:
            self._prepare_and_work()
        except FencedError as error:
            self._context.failures.fence(error)
        except BaseException as error:
            self._break_off(error)
            raise
        finally:
            self._close()
        return self._finish()

    def _prepare_and_work(self) -> None:
        known = self._prepare()
        if self._options.full_refresh and self._context.failures.source is None:
            self._deliver_backlog()
            if not self._context.stop.is_set():
                plans.reset(self._ledger, self._streams)
        self._work(known)

    def _break_off(self, error: BaseException) -> None:
        """Leave everything behind; the error is what counts, not what else goes wrong now."""
        self._context.stop.set()
        self._watch.leave_behind("was interrupted")
        with suppress(MuxlyError):
            runs.finish(self._ledger, state="failed", error=sentence(error), result={})
        self._context.observers.call("muxly_run_finished", result=self._broken_off(error))

    def _broken_off(self, error: BaseException) -> RunResult:
        run = self._context.run
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
        self._pruning.sweep()
        before = positions.definitions(ledger)
        self._context.log.streams.update({name: defined(name, kept) for name, kept in before.items()})
        refuse_removed(self._pipeline, ledger)
        if self._options.replay is None:
            self._learn_streams()
        self._context.log.streams.update(self._streams)
        remembered = self._context.spool.folder / ".checked"
        check_routes(self._pipeline, self._context.log.streams.values(), self._ledger, remembered=remembered)
        known = frozenset(name for name, kept in before.items() if is_taken(kept))
        replay = self._options.replay
        register(self._context, self._streams, known, replayed=None if replay is None else replay.route)
        accounts.open_run(ledger, accounts.pending(ledger))
        if replay is not None:
            from muxly._runner.deliver.replay import set_back

            set_back(ledger, self._pipeline, replay, self._context.log.streams)
        return known

    def _learn_streams(self) -> None:
        """Open the connector; if that fails, only what waits is delivered."""
        retry = Retry(
            self._pipeline.retry, self._context.run.sleep, on_retry=partial(self._context.failures.retry, None, None)
        )
        try:
            offered = retry.call(self._source.streams, failed=self._source.close)
            self._streams = chosen(self._pipeline, offered, self._options.select)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._context.failures.source = error

    def _deliver_backlog(self) -> None:
        self._context.log.finish()
        self._start_workers()
        self._watch.wait(None)
        self._context.log.reopen()

    def _start_workers(self) -> None:
        served = positions.every(self._ledger)
        for position in served:
            self._context.log.heads.setdefault(position.stream, 0)
        for route in self._pipeline.routes:
            if not self._options.routes or route.name in self._options.routes:
                streams = {
                    position.stream: self._context.log.streams[position.stream]
                    for position in served
                    if position.route == route.name
                    and position.stream in self._context.log.streams
                    and not position.detached
                }
                self._watch.workers[route.name] = RouteWorker(self._context, route, streams)
        for worker in self._watch.workers.values():
            worker.start()

    def _work(self, known: frozenset[str]) -> None:
        """Read and deliver at the same time, until both are done."""
        reading = self._context.failures.source is None and self._options.replay is None
        reader = self._new_reader(known) if reading else None
        self._start_workers()
        if reader is None:
            self._context.log.finish()
            self._watch.wait(None)
            return
        reader.start()
        self._watch.wait(reader)

    def _source_waits(self, seconds: float) -> None:
        if self._watch.extraction is not None:
            self._watch.extraction.waits(seconds)

    def _new_reader(self, known: frozenset[str]) -> threading.Thread:
        pipeline = self._pipeline
        committer = Committer(
            self._context,
            lambda stream: routes_of(pipeline, stream),
            lambda: self._watch.extraction.readers() if self._watch.extraction is not None else 0,
        )
        extraction = self._watch.extraction = Extraction(
            self._context, self._source.connector, self._streams, committer, limit=self._options.limit, known=known
        )

        def read() -> None:
            committer.start()
            try:
                extraction.run()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._context.failures.source = error
            finally:
                committer.stop()
                self._context.log.finish()

        return threading.Thread(target=read, name="muxly-extraction", daemon=True)

    def _close(self) -> None:
        self._source.close()
        if (why := self._give_back()) is not None:
            message = f"closing the shared objects of the run's components {why}"
            self._context.run.notice(Notice("close_failed", message))

    def _give_back(self) -> str | None:
        """Give back shared objects, within the time that a stall takes; what went wrong, if something did."""
        seconds = self._pipeline.grace_seconds if self._context.stop.is_set() else self._pipeline.stall_seconds
        threads = DaemonThreads(1, "muxly-shared")
        ended = threads.submit(self._context.run.end)
        threads.shutdown(wait=False)
        if not wait([ended], seconds).done:
            return f"did not end within {seconds:g} s"
        error = ended.exception()
        return None if error is None else f"raised {type(error).__name__}: {error}"

    def _finish(self) -> RunResult:
        """Prune, account, and write the result down."""
        self._pruning.prune()
        retry = Retry(_AT_THE_END, time.sleep)  # the store may be away for a moment, as at any other time
        result = retry.call(self._summarised)
        self._context.progress.show()
        with self._context.failures.fencing():
            retry.call(lambda: self._keep(result))
        if self._context.failures.fenced is not None:
            result = self._summarised()
        self._context.observers.call("muxly_run_finished", result=result)
        return evolve(result, notices=tuple(self._context.observers.notices))

    def _summarised(self) -> RunResult:
        with self._ledger.read() as connection:
            now: datetime = engine.now(connection)
        outcomes = None if self._watch.extraction is None else self._watch.extraction.outcomes
        result = summarise(self._context, outcomes, self._watch.workers, finished_at=now)
        return evolve(result, previous=runs.previous_state(self._ledger))

    def _keep(self, result: RunResult) -> None:
        runs.finish(self._ledger, state=result.state, error=result.error, result=_stored(result))
        runs.forget_old(self._ledger)


def _stored(result: RunResult) -> dict[str, Any]:
    """The result's numbers for the run's row."""
    routes = {
        name: {"delivered": route.delivered, "rejected": route.rejected, "pending": route.pending, "error": route.error}
        for name, route in result.routes.items()
    }
    streams = {name: {"sealed": stream.sealed, "error": stream.error} for name, stream in result.streams.items()}
    return {"routes": routes, "streams": streams}


class SpoolPruning:
    """Sweeps and prunes the spool of one run; what it cannot do now is done by the next one.

    Args:
        context: The run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._pipeline = context, context.pipeline
        self._pruned_at_bytes = 0

    def sweep(self) -> None:
        """Delete what a crash left."""
        ledger = self._context.ledger
        try:
            self._context.spool.sweep(named=retention.files(ledger), token=ledger.token)
        except SpoolError as error:
            self._context.run.notice(Notice("sweep_failed", str(error)))

    def prune_now_and_then(self) -> None:
        """Keep to the retention also while one run reads more than the disk holds."""
        step_bytes = max(self._pipeline.segment_bytes, self._pipeline.retention_bytes // 10)
        if self._context.log.bytes - self._pruned_at_bytes >= step_bytes:
            self._pruned_at_bytes = self._context.log.bytes
            self.prune()

    def prune(self) -> None:
        """Delete what every route has and retention does not keep, as long as the ledger is ours."""
        with self._context.failures.fencing():
            try:
                names = retention.prune(
                    self._context.ledger,
                    keep_seconds=self._pipeline.retention_seconds,
                    keep_bytes=self._pipeline.retention_bytes,
                )
                self._context.spool.delete(names)
            except (RetryableError, StoreError, SpoolError) as error:
                self._context.run.notice(Notice("prune_failed", str(error)))
