"""Running a pipeline once: the function ``muxly.run``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from muxly._runner.context import RunContext
from muxly._runner.execution import execute
from muxly._runner.options import Replay, RunOptions
from muxly._runner.session import Home
from muxly.errors import ConfigurationError
from muxly.options import Secret
from muxly.pipeline import Pipeline, Route, RunResult

if TYPE_CHECKING:
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
        sets: Values to put in resolved_home of the file's, as ``"pipelines.daily.parallel=8"``.
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
    pipeline, resolved_home, events = _resolve(
        pipeline_or_path, name, home=home, store=store, profile=profile, sets=sets
    )
    if options.limit is not None or dry_run:
        from muxly._runner.dry_run import run_with_temporary_ledger

        return run_with_temporary_ledger(pipeline, options, dry_run=dry_run)
    if not events:
        return execute(pipeline, resolved_home, options)
    from muxly._runner.events import EventLog, finished_events

    log = EventLog()
    observed = evolve(options, observers=(*options.observers, log))
    try:
        result = execute(pipeline, resolved_home, observed)
    except BaseException:
        finished_events(log, pipeline.name, events, resolved_home)
        raise
    undelivered = finished_events(log, pipeline.name, events, resolved_home)
    return evolve(result, notices=(*result.notices, *undelivered))


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
