"""Daemon threads that never keep the process alive, so that a call that hangs can be abandoned."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_Task = tuple["Future[Any]", "Callable[[], Any]"]


class DaemonThreads(Executor):
    """A pool of daemon threads, started as work comes.

    Args:
        threads: How many work at the same time, 1 or more.
        name: What the threads are called.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._most, self._name = threads, name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._load = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Ask for a call; the future has what it returns or raises."""
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        with self._lock:
            self._load += 1
            if len(self._threads) < min(self._load, self._most):
                self._start()
        return future

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            _do(*task, self._relieve)
        self._tasks.put(None)

    def _relieve(self) -> None:
        with self._lock:
            self._load -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when their work is done; waits for them only if asked to."""
        self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


def _do(future: Future[Any], work: Callable[[], Any], done: Callable[[], None]) -> None:
    """Do a task; it counts as done before anybody is told, who may bring the next one."""
    if not future.set_running_or_notify_cancel():
        done()
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the future raises it
        done()
        future.set_exception(error)
    else:
        done()
        future.set_result(result)
