"""Calls of fake components, and the faults scripted for them."""

from __future__ import annotations

import builtins
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import ge

from muxly import errors
from muxly.component import Run
from muxly.errors import QuotaError, RetryableError
from muxly.options import Options, option

__all__ = ["Call", "Calls", "Fault"]


@frozen
class Call:
    """One call of a fake component, noted before its work began.

    Args:
        method: ``"open"``, ``"deliver"``, ``"read"`` and so on.
        stream: The stream's name; empty where there is none.
        key: The delivery's id, or the partition's.
        number: The number of the batch, or of records delivered before, or the generation.
    """

    method: str
    stream: str = field(default="", kw_only=True)
    key: str = field(default="", kw_only=True)
    number: int = field(default=0, kw_only=True)


class Calls:
    """A list of calls, thread-safe; with a file it is shared by processes.

    Args:
        path: A file of JSON lines; None = in the memory of this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def note(self, call: Call) -> None:
        """Add a call."""
        with self._lock:
            if self._path is None:
                self._calls.append(call)
            else:
                _append_line(self._path, json.dumps(attrs.asdict(call)))

    def all(self) -> Sequence[Call]:
        """Every call so far."""
        with self._lock:
            return self._read()

    def _read(self) -> Sequence[Call]:
        if self._path is None:
            return tuple(self._calls)
        if not self._path.exists():
            return ()
        return tuple(Call(**json.loads(line)) for line in self._path.read_text("utf-8").splitlines())


def _append_line(path: Path, line: str) -> None:
    """Append with a single ``write``, so that the line is whole or absent however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


METHODS = ("open", "check", "close", "streams", "plan", "read", "deliver", "begin", "complete")
ACTIONS = ("sleep", "hang", "exit")


def _error_class(name: str) -> type[BaseException] | None:
    error = getattr(errors, name, None) or getattr(builtins, name, None)
    return error if isinstance(error, type) and issubclass(error, BaseException) else None


def _action(instance: object, attribute: Any, value: str) -> None:
    if value not in ACTIONS and _error_class(value) is None:
        raise ValueError(f"{value!r} is neither sleep, hang or exit nor the name of an error, such as RetryableError")


def _method(instance: object, attribute: Any, value: str) -> None:
    if value not in METHODS:
        raise ValueError(f"{value!r} is not one of {', '.join(METHODS)}")


class Fault(Options):
    """One scripted fault of a ``FakeConnector`` or a ``ChaosRouter``.

    A connector's ``read`` counts the batches of a partition, however often it is read; all
    other methods count their calls, each stream for itself.
    """

    action: str = option(
        "sleep (as run.sleep: a stopping run ends it), hang (nothing ends it), exit (kill -9 of this process), or the "
        "name of an error to raise, such as RetryableError or ZeroDivisionError.",
        validator=_action,
    )
    method: str = option("Where it happens: open, streams, plan, read, deliver and so on.", validator=_method)
    stream: str = option("Name or glob of the streams it concerns.", default="*")
    partition: str = option("Id or glob of the partitions it concerns.", default="*")
    at: int = option("Number of the batch or call, from 0.", default=0, validator=ge(0))
    times: int = option("How often it happens; 0 = always from then on.", default=1, validator=ge(0))
    after: bool = option("Whether it happens when the work is done, rather than before.", default=False)
    seconds: float = option("How long sleep and hang take.", default=3600.0, validator=ge(0))
    retry_after: float | None = option("Seconds, for RetryableError and QuotaError.", default=None)
    message: str = option("What the error says.", default="a scripted fault")

    def fires(self, call: Call, before: Sequence[Call]) -> bool:
        """Whether this fault happens at the call, given all calls before it."""
        if not self._concerns(call):
            return False
        if call.method == "read":
            earlier = sum(earlier_call == call for earlier_call in before)
            return call.number == self.at and (self.times == 0 or earlier < self.times)
        number = sum(earlier.method == call.method and earlier.stream == call.stream for earlier in before)
        return number >= self.at and (self.times == 0 or number < self.at + self.times)

    def _concerns(self, call: Call) -> bool:
        if call.method != self.method or not fnmatchcase(call.stream, self.stream):
            return False
        return call.method != "read" or fnmatchcase(call.key, self.partition)

    def happen(self, run: Run | None) -> None:
        """Let the fault happen.

        Args:
            run: The run of the component, if it is open; ``sleep`` without a run does nothing.

        Raises:
            BaseException: The error that ``action`` names; ``StoppedError`` if the run stops during a sleep.
        """
        if self.action == "exit":
            die()
        elif self.action == "hang":
            threading.Event().wait(self.seconds)
        elif self.action == "sleep" and run is not None:
            run.sleep(self.seconds)
        elif self.action not in ACTIONS:
            raise self._error()

    def _error(self) -> BaseException:
        kind = _error_class(self.action)
        assert kind is not None
        if issubclass(kind, RetryableError):
            return kind(self.message, retry_after=self.retry_after)
        if issubclass(kind, QuotaError):
            wait = None if self.retry_after is None else timedelta(seconds=self.retry_after)
            return kind(self.message, resume_at=None if wait is None else datetime.now(UTC) + wait)
        return kind(self.message)


@contextmanager
def scripted(faults: Sequence[Fault], calls: Calls, call: Call, run: Run | None) -> Iterator[None]:
    """Note a call, and let the faults scripted for it happen before and after its work."""
    before = calls.all() if faults else ()
    calls.note(call)
    due = [fault for fault in faults if fault.fires(call, before)]
    for fault in due:
        if not fault.after:
            fault.happen(run)
    yield
    for fault in due:
        if fault.after:
            fault.happen(run)


def die() -> None:
    """End this process as ``kill -9`` does: without cleaning up or writing buffers."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)
