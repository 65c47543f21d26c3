"""What the tests of routers share: opened routers, and ways to look at what they wrote."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import muxly
from muxly_routers.file import File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The output folder, not made yet."""
    return tmp_path / "out"


@pytest.fixture
def opened(root: Path) -> Iterator[Callable[..., File]]:
    """Makes opened file routers; ``run`` is the run's id."""
    with contextlib.ExitStack() as stack:

        def make(run: str = "01B", pipeline: str = "daily", **options: Any) -> File:
            active = options.pop("active", None) or muxly.Run(run, pipeline)
            router = File(path=options.pop("path", root), **options)
            router.open(active)
            stack.callback(active.end)
            stack.callback(router.close)
            return router

        yield make
