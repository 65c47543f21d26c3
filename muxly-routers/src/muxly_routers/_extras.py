"""What a router says when the library that it needs is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needs"]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import a vendor's library inside, so that one that is missing names the extra that brings it.

    Args:
        extra: A name of ``[project.optional-dependencies]`` of ``muxly-routers``.

    Raises:
        muxly.PluginError: A module is not installed; the message is the command that mends it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f'needs the package {error.name}, which is not installed; run: pip install "muxly-routers[{extra}]"'
        raise muxly.PluginError(missing) from error
