"""How far a run has come, told while it runs."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

from attrs import field, frozen

from muxly.errors import MuxlyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from muxly._runner.context import PendingRetry, RunContext
    from muxly.cli._errors import Level, Messages
    from muxly.pipeline import RunResult

_LINE_SECONDS = 10.0
_WORTH_TELLING_SECONDS = 1.0


@frozen(kw_only=True)
class StreamProgress:
    """How far a stream has been read.

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
    """How far a route has come.

    Args:
        delivered: Records that are durable at the destination, or rejected or filtered.
        pending: Records that wait.
        error: Why it stopped, if it did.
        again_at: When it tries again what failed just now, as local time; None = it is not waiting.
    """

    delivered: int = 0
    pending: int = 0
    error: str | None = None
    again_at: str | None = None


@frozen(kw_only=True)
class Progress:
    """A run, seen at one moment.

    Args:
        streams: By name.
        routes: By name.
    """

    streams: Mapping[str, StreamProgress] = field(factory=dict)
    routes: Mapping[str, RouteProgress] = field(factory=dict)

    def __str__(self) -> str:
        read = [f"{name}: {_count(one.read)} read" for name, one in self.streams.items()]
        routes = [_route_text(name, one) for name, one in self.routes.items()]
        return "; ".join([*read, *routes])


def _route_text(name: str, one: RouteProgress) -> str:
    state = "stopped" if one.error else f"{_count(one.pending)} waiting"
    again = f", tries again at {one.again_at}" if one.again_at and not one.error else ""
    return f"{name}: {_count(one.delivered)} delivered, {state}{again}"


def _count(number: int) -> str:
    return f"{number:,}"


def progress_of(context: RunContext) -> Progress:
    """Look at a run that is under way; everything comes from the ledger, so it is durable."""
    from muxly.store import accounts

    sums, pending = accounts.of_run(context.ledger), accounts.pending(context.ledger)
    names = sorted({stream for route, stream in sums if not route} | {stream for _route, stream in pending})
    return Progress(
        streams={
            name: StreamProgress(read=sums.get(("", name), {}).get("sealed", 0), planned=_planned(context, name))
            for name in names
        },
        routes={route.name: _route(context, route.name, sums, pending) for route in context.pipeline.routes},
    )


def _planned(context: RunContext, stream: str) -> int | None:
    """How many records the stream's plan holds, if the connector knew of each partition."""
    from muxly._runner import fingerprint
    from muxly._runner.streams import rules_of
    from muxly.pipeline import StreamRules
    from muxly.store import plans

    rules = rules_of(context.pipeline, stream) or StreamRules()
    digest = fingerprint.of_plan(context.pipeline.connector, rules.read)
    plan = plans.unfinished(context.ledger, stream, digest)
    counts = [one.records for one in plan.partitions] if plan is not None else []
    return sum(one for one in counts if one is not None) if counts and None not in counts else None


def _route(
    context: RunContext,
    route: str,
    sums: Mapping[tuple[str, str], Mapping[str, int]],
    pending: Mapping[tuple[str, str], int],
) -> RouteProgress:
    mine = [account for (name, _stream), account in sums.items() if name == route]
    errors = [str(error) for (name, _stream), error in list(context.failures.deliveries.items()) if name == route]
    return RouteProgress(
        delivered=sum(one[key] for one in mine for key in ("delivered", "rejected", "filtered")),
        pending=sum(count for (name, _stream), count in pending.items() if name == route),
        error=errors[0] if errors else None,
        again_at=_again_at(context, route),
    )


def _again_at(context: RunContext, route: str) -> str | None:
    now = time.time()
    found = [
        one.until
        for (name, _stream), one in list(context.failures.retries.items())
        if name == route and one.until > now
    ]
    return _clock(min(found)) if found else None


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def waiting_text(route: str | None, stream: str | None, one: PendingRetry) -> str:
    """Says what a run waits for, and how to end that."""
    what = f"route {route!r} cannot deliver stream {stream!r}" if route else f"stream {stream!r} cannot be read"
    what = what if stream else "the source does not answer"
    return (
        f"{what}: {one.error}; it is tried again at {_clock(one.until)}, and then some times more. Ctrl-C or SIGTERM "
        "stops the run; the next one goes on from there"
    )


class View(Protocol):
    """What shows progress to people."""

    look_seconds: float

    def show(self, progress: Progress) -> None:
        """Show how far it has come; called from one thread."""

    def close(self) -> None:
        """Nothing more will come."""


class Lines:
    """Progress as a line now and then, where nothing can be drawn over.

    Args:
        messages: Where the lines go.
        name: The pipeline's name.
    """

    look_seconds = _LINE_SECONDS

    def __init__(self, messages: Messages, name: str) -> None:
        self._messages, self._name = messages, name
        self._last = ""

    def show(self, progress: Progress) -> None:
        """Say it, if something has changed."""
        text = str(progress)
        if text and text != self._last:
            self._messages.say("info", f"{self._name}: {text}", pipeline=self._name)
            self._last = text

    def close(self) -> None:
        """Nothing is open."""


class Watch:
    """Looks at one run while it lasts, from a thread of its own, so that the run never waits for a terminal.

    Args:
        view: Shows what was seen.
        messages: Where notices go.
        name: The pipeline's name.
    """

    def __init__(self, view: View, messages: Messages, name: str) -> None:
        self._view, self._messages, self._name = view, messages, name
        self._ended = threading.Event()
        self._noted: deque[tuple[Level, str]] = deque()
        self._told = 0
        self._told_waiting: set[tuple[str | None, str | None]] = set()
        self._thread = threading.Thread(target=self._look_often, name="muxly-progress", daemon=True)
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
        self._say_noted()

    def changed(self, context: RunContext) -> None:
        """There is something to see; called often, and from any thread."""
        self.context = context

    def note(self, message: str) -> None:
        """Say something soon; may be called where nothing may be locked, as in a signal handler."""
        self._noted.append(("warning", message))

    def finish(self, result: RunResult) -> None:
        """Say the notices that were not said yet."""
        for one in result.notices[self._told :]:
            self._messages.say(one.level, one.message, code=one.code, stream=one.stream, pipeline=self._name)
        self._told = len(result.notices)

    def _look_often(self) -> None:
        next_at = time.monotonic() + self._view.look_seconds
        while not self._ended.wait(min(self._view.look_seconds, 0.2)):
            self._say_noted()
            self._say_waiting()
            if time.monotonic() >= next_at:
                self._look()
                next_at = time.monotonic() + self._view.look_seconds

    def _say_noted(self) -> None:
        while self._noted:
            self._messages.say(*self._noted.popleft(), pipeline=self._name)
        notices = list(self.context.observers.notices) if self.context is not None else []
        for one in notices[self._told :]:
            self._messages.say(one.level, one.message, code=one.code, stream=one.stream, pipeline=self._name)
        self._told = max(self._told, len(notices))

    def _say_waiting(self) -> None:
        """Say once of each route and stream that it is tried again: it may take a minute, or as long as was asked."""
        for key, one in list(self.context.failures.retries.items()) if self.context is not None else ():
            if one.seconds >= _WORTH_TELLING_SECONDS and key not in self._told_waiting:
                self._told_waiting.add(key)
                self._messages.say("warning", waiting_text(*key, one), pipeline=self._name)

    def _look(self) -> None:
        if self.context is None:
            return
        try:
            self._view.show(progress_of(self.context))
        except MuxlyError:
            return  # the store is away for a moment, or closed already; the run itself says so
