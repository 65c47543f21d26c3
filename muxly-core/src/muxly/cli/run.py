"""``muxly run``: read what is new and deliver it, with progress, signals and a result for each pipeline."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import click

from muxly.cli._app import Command
from muxly.cli._output import (
    ExitCode,
    Messages,
    code_of_error,
    code_of_result,
    current_messages,
    is_terminal,
    most_severe,
    report_errors,
    write_result,
)
from muxly.cli._progress import ProgressBars, ProgressLines, ProgressView, ProgressWatcher
from muxly.cli._project import Project, ProjectSelection, as_json, project_options
from muxly.errors import ConfigurationError, LeaseHeldError, MuxlyError
from muxly.pipeline import RunResult


@click.command(
    cls=Command,
    name="run",
    examples="""
        muxly run                                 # every pipeline of ./muxly.yaml
        muxly run crm.yaml contacts deals         # two pipelines of a file
        muxly run --select 'deals*' --route lake  # some streams, one route
        muxly run --dry-run --limit 100           # read a little, deliver nothing
        muxly run --json | jq .routes.lake.delivered
    """,
    epilog="Exit codes: 0 all delivered, 1 failed, 2 usage or configuration, 3 partly delivered, 75 another run "
    "holds the pipeline, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.",
)
@project_options()
@click.option("--select", multiple=True, metavar="STREAM", help="Read only these streams; names or globs.")
@click.option("--route", "routes", multiple=True, metavar="NAME", help="Deliver only on these routes.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Read N records per stream, store no cursor.")
@click.option("--full-refresh", is_flag=True, help="Deliver the backlog, then read the streams from the start.")
@click.option("--dry-run", is_flag=True, help="Read, but deliver and store nothing; routers are only checked.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="Parameter for plugins; VALUE may be JSON.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop after this long.")
@as_json
@click.pass_context
def command(ctx: click.Context, /, selection: ProjectSelection, **given: Any) -> None:
    """Read what is new, deliver it on every route, and account for every record.

    FILE is ./muxly.yaml by default; without PIPELINE all of its pipelines run, one after the other.

    What a run before left undelivered is delivered first. Ctrl-C or SIGTERM stops at the end of a
    group, within the grace time; a second one exits at once. Nothing that was sealed is lost: the
    next run continues from there.

    --limit and --dry-run use a throw-away ledger, so that no cursor and no position moves.
    """
    _refuse_contradictions(given)

    project = selection.open()
    timeout, as_json = given.pop("timeout"), given.pop("as_json")
    given["params"] = dict(map(_param, given["params"]))
    runs = PipelineRuns(project, as_json=as_json, timeout_seconds=timeout, **given)
    code = runs.run(project.names())
    if given["limit"] is not None or given["dry_run"]:
        current_messages().say("info", "a trial run: no cursor and no position has moved")
    ctx.exit(code)


def _refuse_contradictions(given: dict[str, Any]) -> None:
    rehearsal = "--limit" if given["limit"] is not None else "--dry-run" if given["dry_run"] else None
    if rehearsal and given["full_refresh"]:
        raise click.UsageError(f"{rehearsal} stores no cursor, so --full-refresh has nothing to clear")


def _param(text: str) -> tuple[str, Any]:
    import json

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"--param {text!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


class PipelineRuns:
    """Runs pipelines of a project, one after the other.

    Args:
        project: The configuration.
        as_json: Whether results are lines of JSON.
        timeout_seconds: Stop after so many seconds; None = never.
        **options: Options of ``muxly.run``.
    """

    def __init__(
        self, project: Project, *, as_json: bool, timeout_seconds: float | None = None, **options: Any
    ) -> None:
        self._project, self._as_json, self._options = project, as_json, options
        self._messages = current_messages()
        self._watcher: ProgressWatcher | None = None
        self._unexpected: tuple[BaseException, ...] = ()
        self._stop_signals = StopSignals(self._note, timeout_seconds=timeout_seconds)

    def run(self, names: list[str]) -> ExitCode:
        """Run them all; a lease that is held on one does not keep the others from running.

        Raises:
            ConfigurationError: Something is wrong with one of them; those before it have run.
        """
        for name in names:
            self._project.pipeline(name)  # all mistakes of the file, before anything runs
        codes = []
        with self._stop_signals as stopping:
            for name in names:
                if stopping.event.is_set():
                    codes.append(stopping.code or ExitCode.PARTIAL)
                    break
                codes.append(self._run_one(name))
        return most_severe(codes)

    def _note(self, message: str) -> None:
        if self._watcher is not None:
            self._watcher.note(message)

    def _run_one(self, name: str) -> ExitCode:
        messages = self._messages
        messages.say("debug", f"{name}: starts", pipeline=name)
        try:
            result = self._run_watched(name)
        except LeaseHeldError as error:
            messages.say("error", str(error), pipeline=name, holder=error.holder)
            return code_of_error(error)
        except ConfigurationError as error:
            raise self._project.with_location(error, name) from error
        write_result(result, as_json=self._as_json)
        report_errors(result, messages)
        for unexpected in self._unexpected:
            messages.trace(unexpected)
        return code_of_result(result, self._stop_signals.code)

    def _run_watched(self, name: str) -> RunResult:
        import muxly

        project = self._project
        self._unexpected = ()
        with ProgressWatcher(view_of(self._messages, name), self._messages, name) as watch:
            self._watcher = watch
            result = muxly.run(
                project.configuration,
                name,
                home=project.home.folder,
                stop=self._stop_signals.event,
                on_change=watch.changed,
                **self._options,
            )
        watch.finish(result)
        if watch.context is not None:
            errors = watch.context.failures.all_errors()
            self._unexpected = tuple(error for error in errors if not isinstance(error, MuxlyError))
        return self._with_locations(result, watch)

    def _with_locations(self, result: RunResult, watch: ProgressWatcher) -> RunResult:
        """The result, with the location in the file of each option that turned out to be wrong."""
        import attrs

        failed = dict(watch.context.failures.deliveries) if watch.context is not None else {}
        routes = dict(result.routes)
        for (route, _stream), error in failed.items():
            if isinstance(error, ConfigurationError) and route in routes:
                located = str(self._project.with_location(error, result.pipeline, route))
                routes[route] = attrs.evolve(routes[route], error=located)
        return attrs.evolve(result, routes=routes)


def view_of(messages: Messages, name: str) -> ProgressView:
    """The view of progress: bars on a terminal, lines elsewhere."""
    if is_terminal(sys.stderr) and not messages.as_json and messages.shows("info"):
        return ProgressBars(messages, name)
    return ProgressLines(messages, name)


_SHOW_CURSOR = b"\x1b[?25h\n"
_SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class StopSignals:
    """While its ``with`` block lasts, SIGINT and SIGTERM stop the run at the end of a group.

    The first signal only sets an event, which the run looks at between groups, so that nothing half-written
    remains. The second one ends the process at once: what was sealed and acknowledged is durable by then, and
    everything else is read or delivered again by the next run. A timeout acts as a first signal.

    Args:
        say: Called once, when the run is asked to stop; it runs inside the signal handler, so it
            may only note the message.
        timeout_seconds: Ask after so many seconds; None = never.
    """

    def __init__(self, say: Callable[[str], None], *, timeout_seconds: float | None = None) -> None:
        self.event = threading.Event()
        self.code: ExitCode | None = None
        """Which signal came; None = none did."""
        self._say, self._seconds = say, timeout_seconds
        self._before: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._timed_out)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._timer is not None:
            self._timer.cancel()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self.code is not None:
            _exit_immediately(_SIGNALS[received])
        self.code = _SIGNALS[received]
        self._say(f"{received.name}: stopping at the end of the current group; repeat it to exit at once")
        self.event.set()

    def _timed_out(self) -> None:
        self._say(f"{self._seconds:g} s have passed: stopping at the end of a group")
        self.event.set()


def _exit_immediately(code: ExitCode) -> None:
    """End the process: what was sealed and acknowledged is durable, and the next run continues from there."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(code)
