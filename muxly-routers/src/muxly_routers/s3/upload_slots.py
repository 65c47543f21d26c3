"""Requests that are made side by side, so many at a time."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UploadSlots"]

P = ParamSpec("P")
T = TypeVar("T")


class UploadSlots:
    """Threads that send; who has more to send than there are waits, and so keeps no more in memory.

    Args:
        count: How many requests are made at a time.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._threads = ThreadPoolExecutor(count, "muxly-s3")

    def send(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Make a request as soon as there is a free slot; returns when it begins."""
        self._free.acquire()
        sending = self._threads.submit(request, *args, **kwargs)
        sending.add_done_callback(lambda _: self._free.release())
        return sending

    def close(self) -> None:
        """Wait for what is on its way."""
        self._threads.shutdown()
