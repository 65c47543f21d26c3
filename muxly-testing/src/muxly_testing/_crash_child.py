"""The child processes of the crash tests: make a router's calls, and die before a chosen step.

A parent loads the router's module once and forks a child for each attempt, so that many crash
points take little time. Test, parent and child exchange pickled messages over pipes, each behind
its length.

A step is a line of the router's own package that is about to run, or a call with an effect that
others can see: opening, writing, syncing, linking, renaming, sending. Such calls are counted by an
audit hook and, where Python raises no audit event (``os.fsync``, ``os.write``), by wrapping them.
A child tells its parent about marks and states at once, with the unwrapped ``os.write``: what it told
before it died is exactly what a ledger would hold.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import importlib.util
import os
import pickle
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

import pyarrow as pa  # once, before all forks
from attrs import evolve, field, frozen

from muxly.component import Run
from muxly.router import Delivery, DeliverySource, Router
from muxly.stream import Stream
from muxly_testing._faults import die

__all__ = ["CrashAttempt", "CrashOutcome", "RouterCall", "main", "receive", "send"]

HANG_SECONDS = 60

_VISIBLE_EVENTS = ("open", "os.", "shutil.", "socket.", "sqlite3.", "urllib.", "http.")
_WRAPPED_CALLS = ("fsync", "fdatasync", "write", "writev", "pwrite", "sendfile", "copy_file_range", "close")


@frozen(kw_only=True)
class RouterCall:
    """One call of the router.

    Args:
        method: ``"deliver"``, ``"begin"`` or ``"complete"``.
        stream: The stream.
        generation: Of a replace.
        mode: Of the delivery.
        id: Of the delivery.
        digest: Of the delivery.
        batches: Of the delivery.
        repeat: How many times the batches come, each time with the next ids; 1 or more.
        delivered: Number of records already delivered.
    """

    method: str
    stream: Stream
    generation: int | None = None
    mode: Any = "append"
    id: str = ""
    digest: str = ""
    batches: tuple[pa.RecordBatch, ...] = ()
    repeat: int = 1
    delivered: int = 0


@frozen(kw_only=True)
class CrashAttempt:
    """An order to a child: open the router, make the calls, and close it, unless it dies first.

    Args:
        module: The name and the file of the router's module.
        path: ``sys.path``.
        environ: The environment; it holds the secrets.
        router: The pickled router.
        calls: The calls to make.
        earlier: Calls of another copy, opened and closed before; they are not counted as steps.
        states: The ledger's state of each stream at the start.
        die_before: The number of the step before which the child dies; None = it finishes.
        counted: Whether steps are counted; counting is slow.
    """

    module: tuple[str, str]
    path: tuple[str, ...]
    environ: dict[str, str]
    router: bytes
    calls: tuple[RouterCall, ...]
    earlier: tuple[RouterCall, ...] = ()
    states: dict[str, Any] = field(factory=dict)
    die_before: int | None = None
    counted: bool = True


@frozen(kw_only=True)
class CrashOutcome:
    """The end of an attempt.

    Args:
        finished: Whether the child made all calls.
        error: The traceback, if it raised.
        marks: Number of records marked, by delivery id.
        states: The ledger's state of each stream now. If the child died, it is what the earlier calls
            left, since nothing that the child delivered itself was acknowledged.
        steps: Number of steps counted.
        visible: The steps that others can see: the number of each, with the call and its line.
        grown_bytes: Bytes by which the child's memory grew during its last delivery.
        modules: The modules that it imported.
    """

    finished: bool = False
    error: str | None = None
    marks: dict[str, int] = field(factory=dict)
    states: dict[str, Any] = field(factory=dict)
    steps: int = 0
    visible: dict[int, str] = field(factory=dict)
    grown_bytes: int = 0
    modules: tuple[str, ...] = ()


def packed(message: object) -> bytes:
    """A message behind its length."""
    content = pickle.dumps(message)
    return struct.pack("<I", len(content)) + content


def send(stream: IO[bytes], message: object) -> None:
    """Write a message."""
    stream.write(packed(message))
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read a message; None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    content = stream.read(struct.unpack("<I", head)[0])
    return pickle.loads(content)  # noqa: S301 (between a process and its own child)


class StepCounter:
    """Counts steps, and dies before the chosen one.

    Args:
        kind: The router's class; lines of its package are steps.
        die_before: The number of the step before which the process dies; None = it does not.
    """

    def __init__(self, kind: type, die_before: int | None) -> None:
        self._folder, self._die_before = _package_folder(kind), die_before
        self.count, self.visible, self._watching = 0, dict[int, str](), False

    def step(self, what: str = "") -> None:
        """Count a step that is about to be made, or die before it.

        Args:
            what: The call, if others can see its effect.
        """
        if not self._watching:
            return
        if self.count == self._die_before:
            self._watching = False  # dying is not a step
            die()
        if what:
            self.visible[self.count] = f"{what} in line {self._own_line()}"
        self.count += 1

    def _own_line(self) -> str:
        """The line of the router's own package that is being run, if one is."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(self._folder):
            frame = frame.f_back
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count all steps inside."""
        sys.addaudithook(self._audit)
        for name in _WRAPPED_CALLS:
            if hasattr(os, name):
                self._wrap(name)
        self._watching = True
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        yield
        sys.settrace(None)
        threading.settrace(None)
        self._watching = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watching and event.startswith(_VISIBLE_EVENTS) and not _is_import(event, arguments):
            self.step(event)

    def _wrap(self, name: str) -> None:
        call = getattr(os, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.step(name)
            return call(*arguments, **more)

        setattr(os, name, counted)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._folder):
            return None
        if event == "line":
            self.step()
        return self._trace


def _package_folder(kind: type) -> str:
    """The folder of the package that the class is in, or its file if it is in none."""
    file = Path(sys.modules[kind.__module__].__file__ or "")
    return f"{file.parent}{os.sep}" if "." in kind.__module__ or file.name == "__init__.py" else str(file)


def _is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and str(arguments[0]).endswith((".py", ".pyc"))


class _ChildLedger:
    """The ledger's part in a child: each stream's state, and marks.

    Args:
        states: The state of each stream at the start.
        send_to_parent: Sends a message about what is durable from now on.
    """

    def __init__(self, states: dict[str, Any], send_to_parent: Callable[[object], None]) -> None:
        self.states, self._send_to_parent = dict(states), send_to_parent

    def delivery(self, call: RouterCall) -> Delivery:
        """x, with its stream's state."""
        return Delivery(
            call.id,
            call.digest,
            call.stream,
            call.batches[0].schema,
            mode=call.mode,
            generation=call.generation,
            state=copy.deepcopy(self.states.get(call.stream.name)),
            delivered=call.delivered,
            source=DeliverySource(
                batches=lambda: _repeated_batches(call),
                on_mark=lambda count: self._send_to_parent(("mark", call.id, count)),
            ),
        )

    def deliver(self, router: Router, call: RouterCall) -> None:
        """Let the router deliver, and acknowledge the delivery."""
        receipt = router.deliver(self.delivery(call))
        if receipt is not None and receipt.state is not None:
            self.states[call.stream.name] = copy.deepcopy(receipt.state)


def _repeated_batches(call: RouterCall) -> Iterator[pa.RecordBatch]:
    """The batches ``repeat`` times, with ids that count on."""
    records = sum(batch.num_rows for batch in call.batches)
    for number in range(call.repeat):
        for batch in call.batches:
            yield batch if number == 0 else _with_later_ids(batch, number * records)


def _with_later_ids(batch: pa.RecordBatch, by: int) -> pa.RecordBatch:
    """A copy in memory of its own, with greater ids: views of one batch would not show in the memory taken."""
    import pyarrow.compute as pc

    batch = batch.take(pa.array(range(batch.num_rows)))
    index = batch.schema.get_field_index("id")
    if index < 0 or not pa.types.is_integer(batch.schema.field(index).type):
        return batch
    return batch.set_column(index, batch.schema.field(index), pc.add(batch.column(index), by))


def _carry_out(attempt: CrashAttempt, send_to_parent: Callable[[object], None]) -> CrashOutcome:
    known = set(sys.modules)
    earlier, router = (pickle.loads(attempt.router) for _ in range(2))  # noqa: S301 (the parent's own bytes)
    steps = StepCounter(type(router), attempt.die_before)
    run, ledger = Run("01JW000000MUXLYCRASHRUN000", "conformance"), _ChildLedger(attempt.states, send_to_parent)
    if attempt.earlier:
        _make_calls(earlier, run, attempt.earlier, ledger)
    send_to_parent(("states", ledger.states))
    with steps.watched() if attempt.counted else contextlib.nullcontext():
        grown = _make_calls(router, run, attempt.calls, ledger)
    run.end()
    return CrashOutcome(
        finished=True,
        states=ledger.states,
        steps=steps.count,
        visible=steps.visible,
        grown_bytes=grown,
        modules=tuple(set(sys.modules) - known),
    )


def _make_calls(router: Router, run: Run, calls: tuple[RouterCall, ...], ledger: _ChildLedger) -> int:
    """Open the router, make the calls, and close it.

    Returns:
        Bytes by which the peak of the memory grew during the last delivery.
    """
    router.open(run)
    before = _peak_bytes()
    for call in calls:
        if call.method == "deliver":
            before = _peak_bytes()
            ledger.deliver(router, call)
        else:
            getattr(router, call.method)(call.stream, call.generation)
    grown = _peak_bytes() - before
    router.close()
    return grown


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _attempt_in_child(attempt: CrashAttempt) -> CrashOutcome:
    """Fork a child for the attempt, and collect what it reported before it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_child(attempt, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as reports:
        outcome = _collect(reports)
    os.waitpid(child, 0)
    return outcome


def _run_child(attempt: CrashAttempt, pipe: int) -> None:
    write = os.write  # taken before it is wrapped: a report is not a step

    def send_to_parent(message: object) -> None:
        write(pipe, packed(message))

    os.environ.clear()
    os.environ.update(attempt.environ)
    # A child that hangs prints its stack and ends.
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        send_to_parent(_carry_out(attempt, send_to_parent))
    except BaseException:  # noqa: BLE001 (reported to the parent, whatever it is)
        send_to_parent(CrashOutcome(error=traceback.format_exc()))
    os._exit(0)


def _collect(reports: IO[bytes]) -> CrashOutcome:
    """The outcome that a child reported; of one that died, only what was durable."""
    marks: dict[str, int] = {}
    states: dict[str, Any] = {}
    while (message := receive(reports)) is not None:
        match message:
            case CrashOutcome():
                return evolve(message, marks=marks)
            case "mark", name, count:
                marks[name] = count
            case "states", kept:
                states = kept
    return CrashOutcome(marks=marks, states=states)


def load_module(name: str, path: str) -> None:
    """Import a module by name, or from its file where the name is not enough, as for a test module."""
    if name in sys.modules:
        return
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _import_too(modules: tuple[str, ...]) -> None:
    """Import what a child imported, so that imports cost the next children neither time nor steps."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def main() -> None:
    """Serve attempts from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a router prints must not mix with the answers
    while (attempt := receive(sys.stdin.buffer)) is not None:
        sys.path[:] = attempt.path
        load_module(*attempt.module)
        outcome = _attempt_in_child(attempt)
        send(answers, outcome)
        _import_too(outcome.modules)
