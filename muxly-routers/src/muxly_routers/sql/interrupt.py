"""A run that stops while the database is silent: what it waits for is given up."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["attentive"]

_LOOK_SECONDS = 0.25
# What is nearly done is rather done than taken back.
_GRACE_SECONDS = 2.0


@contextmanager
def attentive(run: muxly.Run, interrupt: Callable[[], None]) -> Iterator[None]:
    """Call ``interrupt``, from another thread, while the block goes on after the run was stopped.

    Args:
        run: The run.
        interrupt: Called again and again: what the block waits for may begin just behind a call.

    Raises:
        StoppedError: The block did not end well after it was interrupted.
    """
    done, interrupted = threading.Event(), threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            if run.stopping and (interrupted.is_set() or not done.wait(_GRACE_SECONDS)):
                interrupted.set()
                interrupt()

    # A daemon, and never waited for: a server that says nothing may not even take the interruption.
    threading.Thread(target=look, name="muxly-sql-stop", daemon=True).start()
    try:
        yield
    except muxly.RetryableError as error:
        if interrupted.is_set():
            raise muxly.StoppedError(f"the run was asked to stop; {error}") from None
        raise
    finally:
        done.set()
