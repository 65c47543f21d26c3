"""Runs with a temporary ledger, for ``--limit`` and ``--dry-run``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from attrs import evolve

from muxly._runner.options import RunOptions
from muxly._runner.session import Home
from muxly._runner.streams import mode_of
from muxly.component import Notice, Run
from muxly.errors import ConfigurationError, RouteError
from muxly.pipeline import Pipeline, Route, RunResult, StreamRules
from muxly.router import Delivery, Mode, Receipt, Router
from muxly.stream import Stream

_DESTRUCTIVE = ("overwrite", "replace")


class DryRunRouter(Router):
    """Stands in for a router in a dry run: checks it, reads the records, delivers nothing."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "upsert", "overwrite", "replace"})
    actor: Any = None

    def open(self, run: Run) -> None:
        """Open the router and look at what it says."""
        self.actor.open(run)
        errors = [notice.message for notice in self.actor.check() if notice.level == "error"]
        if errors:
            raise RouteError("; ".join(errors))

    def check(self) -> Iterable[Notice]:
        """What the router says."""
        return tuple(self.actor.check())

    def close(self) -> None:
        """Close the router."""
        self.actor.close()

    def deliver(self, delivery: Delivery) -> Receipt | None:
        """Read the records."""
        for batch in delivery.batches():
            batch.validate()
        return None

    def begin(self, stream: Stream, generation: int) -> None:
        """Nothing."""

    def complete(self, stream: Stream, generation: int) -> None:
        """Nothing."""


def run_with_temporary_ledger(pipeline: Pipeline, options: RunOptions, *, dry_run: bool) -> RunResult:
    """Run a pipeline from the start of its streams, keeping no cursor and no position.

    Args:
        pipeline: What runs.
        options: ``limit`` says how many records of each stream are read.
        dry_run: Whether routers are only checked.

    Raises:
        ConfigurationError: A route would replace at its destination what a part of the
            records cannot replace.
    """
    from muxly._runner.execution import execute

    if options.replay is not None:
        raise ConfigurationError(
            "`--limit` and `--dry-run` read the source, but a replay delivers from the spool; use only one of them"
        )
    if not dry_run:
        _refuse_destructive(pipeline, options.routes)
    with tempfile.TemporaryDirectory(prefix="muxly-") as folder:
        tried = _with_dry_run_routers(pipeline) if dry_run else pipeline
        return execute(tried, Home(folder=Path(folder)), options)


def _with_dry_run_routers(pipeline: Pipeline) -> Pipeline:
    routes = [
        evolve(route, mode=_mode(pipeline, route), router=DryRunRouter(actor=route.router)) for route in pipeline.routes
    ]
    return evolve(pipeline, routes=routes)


def _mode(pipeline: Pipeline, route: Route) -> Mode:
    """A mode that needs nothing of the streams; what the router has is checked by ``muxly plan``."""
    return route.mode or "append"


def _refuse_destructive(pipeline: Pipeline, routes: Sequence[str]) -> None:
    full = any(rules.read == "full" for rules in pipeline.streams.values())
    for route in pipeline.routes:
        if routes and route.name not in routes:
            continue
        replaces = route.mode in _DESTRUCTIVE or (
            full and route.mode is None and mode_of(route, _any_stream(), StreamRules(read="full")) == "replace"
        )
        if replaces:
            raise ConfigurationError(
                f"`--limit` reads only some of the records, and route {route.name!r} would replace all records "
                "with them; use `--dry-run`, or select another route with `--route`"
            )


def _any_stream() -> Stream:
    from muxly.stream import Stream

    return Stream("any")
