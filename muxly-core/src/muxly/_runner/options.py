"""The options of one run: which streams and routes, how much, and what is replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from muxly._runner.context import RunContext


def _names(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _objects(value: Sequence[object]) -> tuple[object, ...]:
    return tuple(value)


@frozen(kw_only=True)
class Replay:
    """A request to deliver again from the spool.

    Args:
        route: The route's name.
        streams: Names or globs; all by default.
        after: The position after which everything is delivered again; 0 = from the first, or, for
            a detached route, from where it was detached.
        partial: Whether to begin at the first segment that the spool still keeps.
        dead_letters: Whether the route's dead letters are delivered again, and nothing else.
        force: Whether old dead letters may go into ``overwrite`` or ``replace``.
    """

    route: str
    streams: tuple[str, ...] = ("*",)
    after: int = 0
    partial: bool = False
    dead_letters: bool = False
    force: bool = False


@frozen(kw_only=True)
class RunOptions:
    """The options of one run; ``muxly.run`` says what each means.

    Args:
        guarded: As ``Run.guarded``: whether somebody else than the operator wrote what runs.
    """

    params: Mapping[str, Any] | None = None
    stop: threading.Event | None = None
    select: tuple[str, ...] = field(default=(), converter=_names)
    routes: tuple[str, ...] = field(default=(), converter=_names)
    limit: int | None = None
    full_refresh: bool = False
    replay: Replay | None = None
    observers: tuple[object, ...] = field(default=(), converter=_objects)
    on_change: Callable[[RunContext], None] = lambda context: None
    guarded: bool = False
