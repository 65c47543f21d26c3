"""The worker of one route: its threads serve the route's streams, each in the order of its log."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from muxly._runner.context import RunContext
from muxly._runner.deliver.stream_delivery import OpenedRouter, StreamDelivery
from muxly.component import Notice
from muxly.errors import FencedError, RetryableError, RouteError, StoppedError, StreamError
from muxly.pipeline import Route
from muxly.store import accounts
from muxly.stream import Stream

_IDLE_SECONDS = 0.5


class RouteWorker:
    """Serves one route: takes its streams' segments, and hands them to the router.

    Args:
        context: The run.
        route: The route.
        streams: The streams it has a position in, as the run begins.
    """

    def __init__(self, context: RunContext, route: Route, streams: Mapping[str, Stream]) -> None:
        self._context, self._route = context, route
        self._streams = dict(streams)
        self._lock = threading.Lock()
        self._busy: dict[str, float] = {}
        self._closing: dict[int, float] = {}
        self._idle_at: dict[str, tuple[int, bool]] = {}
        self._waiting_since: dict[str, float] = {}
        self._rejected = 0
        self._threads: list[threading.Thread] = []
        self._left = 0
        self.error: BaseException | None = None
        self.abandoned = False

    def start(self) -> None:
        """Begin serving in as many threads as the router takes streams at once."""
        for number in range(max(1, self._route.router.concurrency)):
            name = f"muxly-route-{self._route.name}-{number}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
        self._left = len(self._threads)
        self._context.failures.route_begins(self._route.name, self)
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether it is still serving."""
        return not self.abandoned and any(thread.is_alive() for thread in self._threads)

    def stalled_seconds(self) -> float:
        """How long one of its threads has been busy without progress."""
        with self._lock:
            since = [*self._busy.values(), *self._closing.values()]
        return time.monotonic() - min(since) if since else 0.0

    def abandon(self, error: Exception, *, stalled: bool = False) -> None:
        """Leave its threads to themselves: whatever they still do is not acknowledged.

        Args:
            error: Why.
            stalled: Whether observers are told: nobody asked the run to stop.
        """
        with self._lock:
            self.abandoned = True
            busy = list(self._busy)
            for stream in busy:
                self._context.failures.deliveries[(self._route.name, stream)] = error
            if not self._closing or self._busy:
                self.error = self.error or error
        if self.error is None:
            message = f"closing route {self._route.name!r} did not end: {error}"
            self._context.run.notice(Notice("close_failed", message))
        self._context.failures.route_ends(self._route.name, self)
        for stream in busy if stalled else ():
            self._context.observers.call("muxly_delivery_failed", route=self._route.name, stream=stream, error=error)

    def _serve(self) -> None:
        serving = OpenedRouter(self._context, self._route, self._waits)
        try:
            self._serve_streams(serving)
        except BaseException as error:  # noqa: BLE001 - the store may be away; the run goes on without this route
            with self._lock:
                self.error = self.error or error
        finally:
            with self._lock:
                self._left -= 1
            if not self._left:
                self._context.failures.route_ends(self._route.name, self)
            self._close(serving)

    def _close(self, serving: OpenedRouter) -> None:
        number = threading.get_ident()
        with self._lock:
            self._closing[number] = time.monotonic()
        try:
            serving.close()
        finally:
            with self._lock:
                del self._closing[number]

    def _serve_streams(self, serving: OpenedRouter) -> None:
        while (stream := self._next_stream()) is not None:
            try:
                self._work(serving, stream)
            finally:
                with self._lock:
                    del self._busy[stream]
                self._context.progress.notify()

    def _next_stream(self) -> str | None:
        """A stream that may have work and that no other thread serves; waits for one."""
        while True:
            if self.abandoned or self.error is not None or self._context.stop.is_set():
                return None
            done = self._context.log.complete
            with self._lock:
                found = self._workable(done)
                if found is not None:
                    self._busy[found] = time.monotonic()
                    return found
                if done and not self._busy:
                    return None
            self._context.progress.wait(_IDLE_SECONDS)

    def _workable(self, done: bool) -> str | None:
        for name in self._known_streams():
            head = self._context.log.head(name)
            free = name not in self._busy and (self._route.name, name) not in self._context.failures.deliveries
            if free and self._idle_at.get(name) != (head, done) and (done or self._waited_enough(name)):
                self._waiting_since.pop(name, None)
                return name
        return None

    def _waited_enough(self, name: str) -> bool:
        """Whether a delivery is full, or has waited for more as long as the route's batch says."""
        limits = self._route.batch
        if not limits.seconds or self._context.budget.is_waited_for:
            return True
        since = self._waiting_since.setdefault(name, time.monotonic())
        if time.monotonic() - since >= limits.seconds:
            return True
        records, size = accounts.waiting_size(self._context.ledger, self._route.name, name)
        return size >= limits.bytes or (limits.records is not None and records >= limits.records)

    def _known_streams(self) -> list[str]:
        from muxly._runner.streams import matches

        for name, stream in list(self._context.log.streams.items()):
            sealed = name in self._context.log.heads  # before that, the ledger has no position of it
            if sealed and name not in self._streams and matches(name, self._route.streams):
                self._streams[name] = stream
        return list(self._streams)

    def _work(self, serving: OpenedRouter, name: str) -> None:
        """Deliver what waits of one stream, one delivery after the other."""
        serving.stream = name
        stream = self._context.log.streams.get(name) or self._streams[name]
        seen = (self._context.log.head(name), self._context.log.complete)
        try:
            deliveries = StreamDelivery(self._context, self._route, serving, stream, self)
            deliveries.deliver_letters()
            while not self._context.stop.is_set() and deliveries.deliver_next():
                self.progress(name)
            if not self._context.stop.is_set():
                deliveries.complete()
            self._idle_at[name] = seen
        except StoppedError:
            self._idle_at[name] = seen
        except FencedError as error:
            self._context.failures.fence(error)
        except BaseException as error:  # noqa: BLE001 - a router may raise anything
            self._fail(serving, name, error)

    def _fail(self, serving: OpenedRouter, name: str, error: BaseException) -> None:
        """Stop serving a stream for this run, or the whole route if the destination is at fault."""
        serving.close()
        if self.abandoned:
            return
        with self._lock:
            self._context.failures.deliveries[(self._route.name, name)] = error
            if isinstance(error, (RouteError, RetryableError)):
                self.error = self.error or error
        if isinstance(error, Exception):
            self._context.observers.call("muxly_delivery_failed", route=self._route.name, stream=name, error=error)

    def progress(self, stream: str, *, ahead_seconds: float = 0.0) -> None:
        """Say that something of a stream was done, or will be after waiting as long as was asked."""
        with self._lock:
            if stream in self._busy:
                self._busy[stream] = time.monotonic() + ahead_seconds

    def _waits(self, stream: str, seconds: float) -> None:
        """The router waits; a wait that the destination asked for is no stall."""
        with self._lock:
            if stream in self._busy and self._context.was_asked_for(seconds):
                self._busy[stream] = max(self._busy[stream], time.monotonic() + seconds)

    def refuse_abandoned(self) -> None:
        """Refuse to go on once the worker was left behind.

        Raises:
            StoppedError: Nothing that is done now may be acknowledged.
        """
        if self.abandoned:
            raise StoppedError(f"route {self._route.name!r} was abandoned because it made no progress")

    def count_rejected(self, count: int, reason: str) -> None:
        """Hold the route's limit of dead letters in one run.

        Raises:
            TooManyRejectedError: More records are rejected than ``max_rejected`` allows.
        """
        with self._lock:
            if self._rejected + count > self._route.max_rejected:
                raise TooManyRejectedError(
                    f"route {self._route.name!r}: the destination rejects "
                    f"{count} record{'s' if count > 1 else ''}: {reason}; fix the record or the destination, "
                    f"or allow dead letters with `max_rejected:` (now {self._route.max_rejected})"
                )
            self._rejected += count


class TooManyRejectedError(StreamError):
    """More records of a stream are rejected than the route allows."""
