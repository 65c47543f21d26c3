"""Running a pipeline once: the function ``muxly.run``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.context import RunContext, sentence
from muxly._runner.execution import execute
from muxly._runner.options import Replay, RunOptions
from muxly._runner.session import Home
from muxly.component import Notice
from muxly.errors import ConfigurationError, LeaseHeldError
from muxly.options import Secret
from muxly.pipeline import Pipeline, Route, RunResult
from muxly.retry import Backoff, Patience

if TYPE_CHECKING:
    from muxly._runner.events import EventLog
    from muxly.config import Configuration


def run(  # noqa: PLR0913 - every one is an option of its own
    pipeline_or_path: Pipeline | Configuration | str | PathLike[str],
    name: str | None = None,
    *,
    home: str | PathLike[str] = ".muxly",
    store: str | Secret | None = None,
    profile: str | None = None,
    sets: Sequence[str] = (),
    dry_run: bool = False,
    params: Mapping[str, Any] | None = None,
    stop: threading.Event | None = None,
    select: Sequence[str] | str = (),
    routes: Sequence[str] | str = (),
    limit: int | None = None,
    full_refresh: bool = False,
    replay: Replay | None = None,
    observers: Sequence[object] = (),
    on_change: Callable[[RunContext], None] = lambda context: None,
) -> RunResult:
    """Run a pipeline once: deliver what waits, read what is new, deliver that.

    Args:
        pipeline_or_path: A ``Pipeline``, the path of a configuration file, or a configuration
            that ``muxly.config.load`` made.
        name: Which pipeline of the file; not needed if it has only one.
        home: Folder of the store and the spool; a relative one starts at the configuration
            file's folder, or at the working folder for a ``Pipeline``.
        store: URL of the store; None = a SQLite file in ``home``.
        profile: Which profile of the file.
        sets: Values to put in place of the file's, as ``"pipelines.daily.parallel=8"``.
        dry_run: Read, but deliver nothing and keep nothing; routers are only checked.
        params: Given to components as ``run.params``; JSON values.
        stop: Set it, from any thread, to stop the run at the end of a group.
        select: Names or globs of streams; empty = all of the pipeline's.
        routes: Only these routes deliver, the others' backlog grows; empty = all.
        limit: Read at most so many records of each stream, with a throw-away ledger.
        full_refresh: Deliver the backlog, then read the selected streams from the start.
        replay: Deliver again from the spool, and do not touch the source.
        observers: Objects with ``@muxly.hookimpl`` methods that observe this run.
        on_change: Called from any thread when there is progress to show.

    Returns:
        What was read and delivered, by stream and route. It is also returned when routes or
        streams failed: ``raise_for_status()`` raises then.

    Raises:
        ConfigurationError: The configuration is wrong; nothing was read or written.
        LeaseHeldError: Another run of the pipeline is under way.
        StoreError: The store cannot be used as it is.
    """
    options = RunOptions(
        params=params,
        stop=stop,
        select=select,
        routes=routes,
        limit=limit,
        full_refresh=full_refresh,
        replay=replay,
        observers=observers,
        on_change=on_change,
    )
    pipeline, place, events = _resolve(pipeline_or_path, name, home=home, store=store, profile=profile, sets=sets)
    if options.limit is not None or dry_run:
        from muxly._runner.dry_run import run_with_temporary_ledger

        return run_with_temporary_ledger(pipeline, options, dry_run=dry_run)
    if not events:
        return execute(pipeline, place, options)
    from muxly._runner.events import EventLog

    log = EventLog()
    observed = evolve(options, observers=(*options.observers, log))
    try:
        result = execute(pipeline, place, observed)
    except BaseException:
        finished_events(log, pipeline.name, events, place)
        raise
    told = finished_events(log, pipeline.name, events, place)
    return evolve(result, notices=(*result.notices, *told))


def finished_events(log: EventLog, pipeline: str, routes: Mapping[str, Route], home: Home) -> list[Notice]:
    """Deliver a run's events; whatever is wrong with that is a notice, for the run itself is over.

    Args:
        log: What happened.
        pipeline: The pipeline's name.
        routes: Where to, by name.
        home: Where the store and the spool are.
    """
    from muxly._runner.events import deliver_events

    patience = Patience(Backoff(first_seconds=0.2, limit_seconds=2.0), time.sleep)
    try:  # another run of the pipeline may hold the lease just now, to deliver its own
        patience.call(lambda: deliver_events(log, pipeline, routes, home), after=LeaseHeldError)
    except Exception as error:  # noqa: BLE001 - an event that nobody hears never breaks a run
        message = f"the run's events were not delivered: {sentence(error)}"
        return [Notice("events_failed", message, level="error")]
    return []


def _resolve(
    pipeline_or_path: Pipeline | Configuration | str | PathLike[str],
    name: str | None,
    *,
    home: str | PathLike[str],
    store: str | Secret | None,
    profile: str | None,
    sets: Sequence[str],
) -> tuple[Pipeline, Home, Mapping[str, Route]]:
    """The pipeline, where its state is, and the routes of its events."""
    if isinstance(pipeline_or_path, Pipeline):
        return pipeline_or_path, Home(folder=Path(home), store=store), {}
    from muxly import config

    configuration = (
        pipeline_or_path
        if isinstance(pipeline_or_path, config.Configuration)
        else config.load(Path(pipeline_or_path), profile=profile, sets=sets)
    )
    folder = configuration.home if str(home) == ".muxly" else Path(configuration.folder, home)
    pipeline = configuration.pipeline(name or only_name(list(configuration.pipelines)))
    return pipeline, Home(folder=folder, store=store or configuration.store_url), configuration.events


def only_name(names: Sequence[str]) -> str:
    """The one pipeline's name.

    Raises:
        ConfigurationError: There are several, or none.
    """
    if len(names) != 1:
        raise ConfigurationError(
            f"say which pipeline: {', '.join(names)}" if names else "the configuration has no pipeline"
        )
    return names[0]
