"""Components: options, a life cycle, and the run that they work for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from muxly._shared import SharedObjects
from muxly.errors import StoppedError
from muxly.options import Options

__all__ = ["Component", "Notice", "Run"]

T = TypeVar("T")


@frozen
class Notice:
    """Something a person should know that does not stop the run.

    Args:
        code: A stable word in snake case, such as ``"lookback_too_short"``.
        message: One sentence: what, where, and the next step. No secrets.
        level: ``"info"``, ``"warning"`` or ``"error"``.
        stream: The stream it concerns, if one.
        facts: More about it, JSON values.
    """

    code: str
    message: str
    level: Literal["info", "warning", "error"] = field(default="warning", kw_only=True)
    stream: str | None = field(default=None, kw_only=True)
    facts: Mapping[str, Any] = field(factory=dict, kw_only=True, hash=False)


class Run:
    """The run a component works for; thread-safe, and the only way to wait.

    Components are given one; plugin authors make one in tests: ``Run("01J...", "daily")``.

    Args:
        id: The run's ULID.
        pipeline: The pipeline's name.
        route: The route's name, in the run that a router is opened with; else None.
        token: The run's fencing token: larger than that of every earlier run of the pipeline.
            Names of temporary and staging things carry pipeline, route and token, and only
            older ones of the same pipeline and route are swept.
        started_at: With a time zone; default now.
        params: What the trigger passed, JSON values.
        guarded: Whether somebody other than the operator wrote the configuration, through the
            API: what they name must not reach the operator's own network.
        stop: Set when the run is to stop.
        on_notice: Receives each notice.
        on_measure: Receives each measurement: name, value, stream.
    """

    def __init__(  # noqa: PLR0913 - a run has that many facts
        self,
        id: str,
        pipeline: str,
        *,
        route: str | None = None,
        token: int = 0,
        started_at: datetime | None = None,
        params: Mapping[str, Any] | None = None,
        guarded: bool = False,
        stop: threading.Event | None = None,
        on_notice: Callable[[Notice], None] = lambda notice: None,
        on_measure: Callable[[str, float, str | None], None] = lambda name, value, stream: None,
    ) -> None:
        self.id = id
        self.pipeline = pipeline
        self.route, self.token = route, token
        self.started_at = started_at or datetime.now(UTC)
        self.params: Mapping[str, Any] = dict(params or {})
        self.guarded = guarded
        self._stop = stop or threading.Event()
        self._on_notice, self._on_measure = on_notice, on_measure
        self._on_wait: Callable[[float], None] = lambda seconds: None
        self._shared = SharedObjects()

    @property
    def stopping(self) -> bool:
        """Whether the run has been asked to stop; long loops look here."""
        return self._stop.is_set()

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than the run lasts.

        A wait that is long beside the pipeline's ``stall_seconds``, such as a source asks for with
        ``Retry-After``, is not taken for a stall; many short ones, as of a loop that polls, are.

        Raises:
            StoppedError: The run has been asked to stop.
        """
        self._on_wait(seconds)
        if self._stop.wait(min(max(0.0, seconds), threading.TIMEOUT_MAX)):
            raise StoppedError("the run was asked to stop")

    def notice(self, notice: Notice) -> None:
        """Tell people something; it reaches the log, the result, hooks and ``run_events``."""
        self._on_notice(notice)

    def measure(self, name: str, value: float, *, stream: str | None = None) -> None:
        """Add to a number of this run, such as ``"api_calls"``; shown in the result."""
        self._on_measure(name, value, stream)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """One object per process and key, made at first use: a rate bucket, a scrape server.

        Its ``close()``, if it has one, is called when the last run that asked for it ends.

        Raises:
            StoppedError: This run has ended already, and left the caller behind.
        """
        return self._shared.take(key, make)

    def on_route(self, name: str | None, on_wait: Callable[[float], None] = lambda seconds: None) -> Run:
        """The same run as a route's router is given it, or, with None, the connector; called by the runner.

        Args:
            name: The route's name.
            on_wait: Called before each ``sleep`` with its length in seconds.
        """
        seen = copy(self)
        seen.route, seen._on_wait = name, on_wait
        return seen

    def end(self) -> None:
        """Give back the shared objects; called by the runner when the run ends."""
        self._shared.give_back()


class Component(Options):
    """A connector, router or scheduler: a value with options and a life cycle.

    The runner opens a private copy, once per run and process: ``open(run)``, then the calls of
    its kind, then ``close()``, also after errors. Only the unopened value is pickled.
    """

    def open(self, run: Run) -> None:
        """Get ready: connect, log in. Called once, before any other call of a run.

        Raises:
            RetryableError: Tried again with back-off.
            ConfigurationError: An option turned out to be wrong; placed in the user's file.
        """

    def check(self) -> Iterable[Notice]:
        """Whether everything outside is as it should be; reads only, after ``open``.

        Returns:
            What a person should know; an error-level notice fails the check.
        """
        return ()

    def close(self) -> None:
        """Release everything; may be called more than once, and after a failed ``open``."""
