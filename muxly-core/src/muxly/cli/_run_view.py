"""Runs of one or more pipelines, with progress, signals and results, for ``run`` and ``replay``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from muxly.cli._command import current_messages
from muxly.cli._errors import is_terminal
from muxly.cli._exits import ExitCode, gravest, of_error
from muxly.cli._progress_view import Lines, View, Watch
from muxly.cli._results import code_of, say_errors, write_result
from muxly.cli._stopping import Stopping
from muxly.errors import ConfigurationError, LeaseHeldError, MuxlyError

if TYPE_CHECKING:
    from muxly.cli._error_locations import Project
    from muxly.cli._errors import Messages
    from muxly.pipeline import RunResult


class Runs:
    """Runs pipelines of a project, one after the other.

    Args:
        project: The configuration.
        as_json: Whether results are lines of JSON.
        timeout_seconds: Stop after so many seconds; None = never.
        **options: What ``muxly.run`` takes.
    """

    def __init__(
        self, project: Project, *, as_json: bool, timeout_seconds: float | None = None, **options: Any
    ) -> None:
        self._project, self._as_json, self._options = project, as_json, options
        self._messages = current_messages()
        self._watch: Watch | None = None
        self._unexpected: tuple[BaseException, ...] = ()
        self._stopping = Stopping(self._note, timeout_seconds=timeout_seconds)

    def run(self, names: list[str]) -> ExitCode:
        """Run them all; a held lease of one does not keep the others from running.

        Raises:
            ConfigurationError: Something is wrong with one of them; those before it have run.
        """
        for name in names:
            self._project.pipeline(name)  # all mistakes of the file, before anything runs
        codes = []
        with self._stopping as stopping:
            for name in names:
                if stopping.event.is_set():
                    codes.append(stopping.code or ExitCode.PARTIAL)
                    break
                codes.append(self._one(name))
        return gravest(codes)

    def _note(self, message: str) -> None:
        if self._watch is not None:
            self._watch.note(message)

    def _one(self, name: str) -> ExitCode:
        messages = self._messages
        messages.say("debug", f"{name}: begins", pipeline=name)
        try:
            result = self._watched(name)
        except LeaseHeldError as error:
            messages.say("error", str(error), pipeline=name, holder=error.holder)
            return of_error(error)
        except ConfigurationError as error:
            raise self._project.placed(error, name) from error
        write_result(result, as_json=self._as_json)
        say_errors(result, messages)
        for unexpected in self._unexpected:
            messages.trace(unexpected)
        return code_of(result, self._stopping.code)

    def _watched(self, name: str) -> RunResult:
        import muxly

        project = self._project
        self._unexpected = ()
        with Watch(view_of(self._messages, name), self._messages, name) as watch:
            self._watch = watch
            result = muxly.run(
                project.configuration,
                name,
                home=project.home.folder,
                stop=self._stopping.event,
                on_change=watch.changed,
                **self._options,
            )
        watch.finish(result)
        if watch.context is not None:
            errors = [*watch.context.failures.streams.values(), *watch.context.failures.deliveries.values()]
            self._unexpected = tuple(error for error in errors if not isinstance(error, MuxlyError))
        return self._with_places(result, watch)

    def _with_places(self, result: RunResult, watch: Watch) -> RunResult:
        """The result, with the place in the file of each option that turned out to be wrong."""
        import attrs

        failed = dict(watch.context.failures.deliveries) if watch.context is not None else {}
        routes = dict(result.routes)
        for (route, _stream), error in failed.items():
            if isinstance(error, ConfigurationError) and route in routes:
                placed = str(self._project.placed(error, result.pipeline, route))
                routes[route] = attrs.evolve(routes[route], error=placed)
        return attrs.evolve(result, routes=routes)


def view_of(messages: Messages, name: str) -> View:
    """Bars on a terminal, lines elsewhere."""
    if is_terminal(sys.stderr) and not messages.as_json and messages.shows("info"):
        from muxly.cli._screen import Bars

        return Bars(messages, name)
    return Lines(messages, name)
