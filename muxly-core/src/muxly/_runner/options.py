"""How one run differs from another of the same pipeline."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from muxly._runner.deliver.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from muxly._runner.context import ActiveRun


def _names(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _objects(value: Sequence[object]) -> tuple[object, ...]:
    return tuple(value)


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
    on_change: Callable[[ActiveRun], None] = lambda active: None
    guarded: bool = False
