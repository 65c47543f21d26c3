"""Progress of a run, shown on stderr while it lasts: as bars on a terminal, as lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from attrs import field, frozen

from muxly.cli._output import Level, Messages, coloured
from muxly.errors import MuxlyError
from muxly.pipeline import RunResult

if TYPE_CHECKING:
    from rich.progress import TaskID

    from muxly._runner.context import PendingRetry, RunContext

_LINE_INTERVAL_SECONDS = 10.0
_REPORTED_WAIT_SECONDS = 1.0


@frozen(kw_only=True)
class StreamProgress:
    """Progress of reading a stream.

    Args:
        read: Records that are sealed.
        planned: Records in all, if the connector knew.
        error: Why reading stopped, if it did.
    """

    read: int = 0
    planned: int | None = None
    error: str | None = None


@frozen(kw_only=True)
class RouteProgress:
    """Progress of a route.

    Args:
        delivered: Records that are durable at the destination, or rejected or filtered.
        pending: Records that wait.
        error: Why it stopped, if it did.
        retry_at: When it tries again what failed just now, as local time; None = it is not waiting.
    """

    delivered: int = 0
    pending: int = 0
    error: str | None = None
    retry_at: str | None = None


@frozen(kw_only=True)
class RunProgress:
    """Progress of a run at one moment.

    Args:
        streams: By name.
        routes: By name.
    """

    streams: Mapping[str, StreamProgress] = field(factory=dict)
    routes: Mapping[str, RouteProgress] = field(factory=dict)

    def __str__(self) -> str:
        read = [f"{name}: {_count(stream.read)} read" for name, stream in self.streams.items()]
        routes = [_route_text(name, route) for name, route in self.routes.items()]
        return "; ".join([*read, *routes])


def _route_text(name: str, route: RouteProgress) -> str:
    state = "stopped" if route.error else f"{_count(route.pending)} waiting"
    again = f", tries again at {route.retry_at}" if route.retry_at and not route.error else ""
    return f"{name}: {_count(route.delivered)} delivered, {state}{again}"


def _count(number: int) -> str:
    return f"{number:,}"


def progress_of(context: RunContext) -> RunProgress:
    """The progress of a run that is under way; everything comes from the ledger, so it is durable."""
    from muxly.store import accounts

    sums, pending = accounts.of_run(context.ledger), accounts.pending(context.ledger)
    names = sorted({stream for route, stream in sums if not route} | {stream for _route, stream in pending})
    return RunProgress(
        streams={
            name: StreamProgress(read=sums.get(("", name), {}).get("sealed", 0), planned=_planned(context, name))
            for name in names
        },
        routes={route.name: _route(context, route.name, sums, pending) for route in context.pipeline.routes},
    )


def _planned(context: RunContext, stream: str) -> int | None:
    """The number of records in the stream's plan, if the connector knew it of each partition."""
    from muxly._runner import fingerprint
    from muxly._runner.streams import rules_of
    from muxly.pipeline import StreamRules
    from muxly.store import plans

    rules = rules_of(context.pipeline, stream) or StreamRules()
    digest = fingerprint.of_plan(context.pipeline.connector, rules.read)
    plan = plans.unfinished(context.ledger, stream, digest)
    counts = [partition.records for partition in plan.partitions] if plan is not None else []
    return sum(count for count in counts if count is not None) if counts and None not in counts else None


def _route(
    context: RunContext,
    route: str,
    sums: Mapping[tuple[str, str], Mapping[str, int]],
    pending: Mapping[tuple[str, str], int],
) -> RouteProgress:
    accounts = [account for (name, _stream), account in sums.items() if name == route]
    errors = [str(error) for (name, _stream), error in list(context.failures.deliveries.items()) if name == route]
    return RouteProgress(
        delivered=sum(account[key] for account in accounts for key in ("delivered", "rejected", "filtered")),
        pending=sum(count for (name, _stream), count in pending.items() if name == route),
        error=errors[0] if errors else None,
        retry_at=_retry_at(context, route),
    )


def _retry_at(context: RunContext, route: str) -> str | None:
    now = time.time()
    times = [
        wait.until
        for (name, _stream), wait in list(context.failures.retries.items())
        if name == route and wait.until > now
    ]
    return _local_time(min(times)) if times else None


def _local_time(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def waiting_text(route: str | None, stream: str | None, wait: PendingRetry) -> str:
    """The message about what a run waits for, and how to end that."""
    what = f"route {route!r} cannot deliver stream {stream!r}" if route else f"stream {stream!r} cannot be read"
    what = what if stream else "the source does not answer"
    return (
        f"{what}: {wait.error}; it will be retried at {_local_time(wait.until)}, and then a few "
        "more times. Ctrl-C or SIGTERM stops the run; the next one continues from there"
    )


class ProgressView(Protocol):
    """Shows progress to people."""

    interval_seconds: float

    def show(self, progress: RunProgress) -> None:
        """Show the progress; called from one thread."""

    def close(self) -> None:
        """End: nothing more will be shown."""


class ProgressLines:
    """Progress as a line now and then, where nothing can be drawn over.

    Args:
        messages: Where the lines go.
        name: The pipeline's name.
    """

    interval_seconds = _LINE_INTERVAL_SECONDS

    def __init__(self, messages: Messages, name: str) -> None:
        self._messages, self._name = messages, name
        self._last = ""

    def show(self, progress: RunProgress) -> None:
        """Write a line if something has changed."""
        text = str(progress)
        if text and text != self._last:
            self._messages.say("info", f"{self._name}: {text}", pipeline=self._name)
            self._last = text

    def close(self) -> None:
        """Nothing is open."""


class ProgressBars:
    """One line for each stream and each route, drawn again several times a second.

    Args:
        messages: They are put above the lines while these are drawn.
        name: The pipeline's name.
    """

    interval_seconds = 0.2

    def __init__(self, messages: Messages, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column
        from rich.text import Text

        self._messages, self._name, self._write = messages, name, messages.write
        self._console = Console(stderr=True, no_color=not coloured(sys.stderr))
        self._display = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._lines: dict[str, TaskID] = {}
        messages.write = lambda line: self._console.print(Text.from_ansi(line), soft_wrap=True)
        self._display.start()

    def show(self, progress: RunProgress) -> None:
        """Draw the lines."""
        for stream, read in progress.streams.items():
            self._draw_stream(stream, read)
        for route, delivered in progress.routes.items():
            self._draw_route(route, delivered)

    def close(self) -> None:
        """Remove the lines: the table of the result follows."""
        self._display.stop()
        self._messages.write = self._write

    def _draw_stream(self, stream: str, read: StreamProgress) -> None:
        of = f" of {read.planned:,}" if read.planned is not None else ""
        self._draw(f"{self._name} {stream}", read.read, read.planned, f"{read.read:,}{of} read")

    def _draw_route(self, route: str, progress: RouteProgress) -> None:
        from rich.text import Text

        state = f"{progress.delivered:,} delivered, {progress.pending:,} waiting"
        if progress.retry_at:
            state = f"{state}, tries again at {progress.retry_at}"
        if progress.error:
            state = f"[red]stopped:[/red] {Text(progress.error[:80]).markup}, {progress.pending:,} waiting"
        self._draw(f"{self._name} → {route}", progress.delivered, progress.delivered + progress.pending, state)

    def _draw(self, line: str, done: int, total: int | None, state: str) -> None:
        from rich.text import Text

        if line not in self._lines:
            self._lines[line] = self._display.add_task(Text(line).markup, total=total, state=state)
        # A total of nothing at all is drawn as a full bar, which is what it is.
        self._display.update(self._lines[line], completed=done, total=total, state=state)


class ProgressWatcher:
    """Watches one run from a thread of its own, so that the run never waits for a terminal.

    Args:
        view: Shows the progress.
        messages: Where notices go.
        name: The pipeline's name.
    """

    def __init__(self, view: ProgressView, messages: Messages, name: str) -> None:
        self._view, self._messages, self._name = view, messages, name
        self._ended = threading.Event()
        self._pending_notes: deque[tuple[Level, str]] = deque()
        self._reported = 0
        self._reported_waiting: set[tuple[str | None, str | None]] = set()
        self._thread = threading.Thread(target=self._watch, name="muxly-progress", daemon=True)
        self.context: RunContext | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._view.close()
        self._say_notes()

    def changed(self, context: RunContext) -> None:
        """Take note of the run's state; called often, and from any thread."""
        self.context = context

    def note(self, message: str) -> None:
        """Write a message soon; safe where nothing may be locked, as in a signal handler."""
        self._pending_notes.append(("warning", message))

    def finish(self, result: RunResult) -> None:
        """Write the notices that were not written yet."""
        for notice in result.notices[self._reported :]:
            self._messages.say(
                notice.level, notice.message, code=notice.code, stream=notice.stream, pipeline=self._name
            )
        self._reported = len(result.notices)

    def _watch(self) -> None:
        next_at = time.monotonic() + self._view.interval_seconds
        while not self._ended.wait(min(self._view.interval_seconds, 0.2)):
            self._say_notes()
            self._say_waiting()
            if time.monotonic() >= next_at:
                self._show_progress()
                next_at = time.monotonic() + self._view.interval_seconds

    def _say_notes(self) -> None:
        while self._pending_notes:
            self._messages.say(*self._pending_notes.popleft(), pipeline=self._name)
        notices = list(self.context.observers.notices) if self.context is not None else []
        for notice in notices[self._reported :]:
            self._messages.say(
                notice.level, notice.message, code=notice.code, stream=notice.stream, pipeline=self._name
            )
        self._reported = max(self._reported, len(notices))

    def _say_waiting(self) -> None:
        """Report once for each route and stream that it is retried, which may take a minute or longer."""
        for key, wait in list(self.context.failures.retries.items()) if self.context is not None else ():
            if wait.seconds >= _REPORTED_WAIT_SECONDS and key not in self._reported_waiting:
                self._reported_waiting.add(key)
                self._messages.say("warning", waiting_text(*key, wait), pipeline=self._name)

    def _show_progress(self) -> None:
        if self.context is None:
            return
        try:
            self._view.show(progress_of(self.context))
        except MuxlyError:
            return  # the store is away for a moment, or closed already; the run itself says so
