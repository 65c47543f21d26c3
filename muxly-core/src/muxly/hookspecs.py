"""Hooks: three by which plugins provide components, five that observe runs.

Component hooks live in the entry-point groups ``muxly.connectors``, ``muxly.routers`` and
``muxly.schedulers``; the entry point's name is the ``type:`` in the configuration. Observers
live in the group ``muxly.hooks``; one that raises never breaks a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from muxly.component import Notice, Run
from muxly.connector import Connector
from muxly.pipeline import RunResult
from muxly.router import Router
from muxly.scheduler import Scheduler

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = [
    "hookimpl",
    "muxly_connector",
    "muxly_delivery_failed",
    "muxly_notice",
    "muxly_router",
    "muxly_run_finished",
    "muxly_run_started",
    "muxly_scheduler",
    "muxly_schema_changed",
]

PROJECT = "muxly"
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)
_hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)


@_hookspec
def muxly_connector() -> type[Connector]:  # type: ignore[empty-body]
    """The connector class of this plugin."""


@_hookspec
def muxly_router() -> type[Router]:  # type: ignore[empty-body]
    """The router class of this plugin."""


@_hookspec
def muxly_scheduler() -> type[Scheduler]:  # type: ignore[empty-body]
    """The scheduler class of this plugin."""


@_hookspec
def muxly_run_started(run: Run) -> None:
    """A run has taken its lease and begins."""


@_hookspec
def muxly_run_finished(run: Run, result: RunResult) -> None:
    """A run has ended, whatever its state."""


@_hookspec
def muxly_delivery_failed(run: Run, route: str, stream: str, error: Exception) -> None:
    """A route gives up on a stream for this run; its backlog waits for the next one."""


@_hookspec
def muxly_schema_changed(run: Run, stream: str, before: pa.Schema | None, after: pa.Schema) -> None:
    """A stream's schema grew; ``before`` is None for its first version."""


@_hookspec
def muxly_notice(run: Run, notice: Notice) -> None:
    """A component or the runner has something to tell people."""
