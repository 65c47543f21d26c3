"""A process that delivers, and kills itself before a chosen step.

It loads a router's module once and then forks a child for each attempt, so that many crash
points take little time.
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
from typing import IO, TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from muxly.component import Run
from muxly.router import Delivery, Router
from muxly.stream import Stream
from muxly_testing._faults import die

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["CrashAttempt", "CrashOutcome", "RouterCall", "StepCounter", "main", "packed", "receive", "send"]


HANG_SECONDS = 60


_VISIBLE = ("open", "os.", "shutil.", "socket.", "sqlite3.", "urllib.", "http.")
_WRAPPED = ("fsync", "fdatasync", "write", "writev", "pwrite", "sendfile", "copy_file_range", "close")


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
        repeat: How often the batches come, each time with the next ids.
        delivered: How many records are delivered already.
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
    """What a child does: open the router, call, and close it, unless it dies first.

    Args:
        module: The name and the file of the router's module.
        path: Where modules are found.
        environ: The environment; secrets are kept there.
        router: The pickled router.
        earlier: Calls of another copy, opened and closed before; no steps.
        calls: Its calls.
        states: What the ledger keeps of each stream before all that.
        die_before: The number of the step that is not reached; None = it lives.
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
    """How an attempt ended.

    Args:
        finished: Whether it came to its end.
        error: The traceback, if it raised.
        marks: What was marked, by delivery id.
        states: What the ledger keeps of each stream now: of a child that died what the earlier calls
            left, since nothing that it did itself was acknowledged.
        steps: How many steps there were.
        visible: The numbers of those that others can see, each with what is done and by which line.
        grown_bytes: How much the child's memory grew during its last delivery.
        modules: What it imported.
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
    """One message, behind its length."""
    content = pickle.dumps(message)
    return struct.pack("<I", len(content)) + content


def send(stream: IO[bytes], message: object) -> None:
    """Write one message."""
    stream.write(packed(message))
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    content = stream.read(struct.unpack("<I", head)[0])
    return pickle.loads(content)  # noqa: S301 (between a process and its own child)


class StepCounter:
    """Counts steps, and dies before the chosen one.

    Args:
        kind: The router's class; lines of its package are steps.
        die_before: The number of the step that is not reached; None = it lives.
    """

    def __init__(self, kind: type, die_before: int | None) -> None:
        self._folder, self._die_before = _package_folder(kind), die_before
        self.count, self.visible, self._watching = 0, dict[int, str](), False

    def step(self, what: str = "") -> None:
        """One more step is about to be made.

        Args:
            what: What it does, if others can see it.
        """
        if not self._watching:
            return
        if self.count == self._die_before:
            self._watching = False  # dying is no step
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
        for name in _WRAPPED:
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
        if self._watching and event.startswith(_VISIBLE) and not _is_import(event, arguments):
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
    """What a ledger keeps while a child calls: the state of each stream, and what is marked.

    Args:
        states: Those of the streams, as the attempt begins.
        tell: Tells the parent what is durable from now on.
    """

    def __init__(self, states: dict[str, Any], tell: Callable[[object], None]) -> None:
        self.states, self._tell = dict(states), tell

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
            source=lambda: _repeated(call),
            on_mark=lambda count: self._tell(("mark", call.id, count)),
        )

    def deliver(self, router: Router, call: RouterCall) -> None:
        """Let the router deliver, and acknowledge that."""
        receipt = router.deliver(self.delivery(call))
        if receipt is not None and receipt.state is not None:
            self.states[call.stream.name] = copy.deepcopy(receipt.state)


def _repeated(call: RouterCall) -> Iterator[pa.RecordBatch]:
    """The batches, again and again, with ids that go on."""
    records = sum(batch.num_rows for batch in call.batches)
    for number in range(call.repeat):
        for batch in call.batches:
            yield batch if number == 0 else _moved(batch, number * records)


def _moved(batch: pa.RecordBatch, by: int) -> pa.RecordBatch:
    """A copy, in memory of its own, with other ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batch = batch.take(pa.array(range(batch.num_rows)))
    index = batch.schema.get_field_index("id")
    if index < 0 or not pa.types.is_integer(batch.schema.field(index).type):
        return batch
    return batch.set_column(index, batch.schema.field(index), pc.add(batch.column(index), by))


def _act(attempt: CrashAttempt, tell: Callable[[object], None]) -> CrashOutcome:
    known = set(sys.modules)
    earlier, router = (pickle.loads(attempt.router) for _ in range(2))  # noqa: S301 (the parent's own bytes)
    steps = StepCounter(type(router), attempt.die_before)
    run, ledger = Run("01JW000000MUXLYCRASHRUN000", "conformance"), _ChildLedger(attempt.states, tell)
    if attempt.earlier:
        _calls(earlier, run, attempt.earlier, ledger)
    tell(("states", ledger.states))
    with steps.watched() if attempt.counted else contextlib.nullcontext():
        grown = _calls(router, run, attempt.calls, ledger)
    run.end()
    return CrashOutcome(
        finished=True,
        states=ledger.states,
        steps=steps.count,
        visible=steps.visible,
        grown_bytes=grown,
        modules=tuple(set(sys.modules) - known),
    )


def _calls(router: Router, run: Run, calls: tuple[RouterCall, ...], ledger: _ChildLedger) -> int:
    """Open, call and close; returns by how many bytes the peak of memory grew in the last delivery."""
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
    """Fork, call there, and gather what the child told before it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(attempt, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        outcome = _gathered(told)
    os.waitpid(child, 0)
    return outcome


def _be_child(attempt: CrashAttempt, pipe: int) -> None:
    write = os.write  # the real one: what is told is no step

    def tell(message: object) -> None:
        write(pipe, packed(message))

    os.environ.clear()
    os.environ.update(attempt.environ)
    # A child that hangs shows where, and ends.
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        tell(_act(attempt, tell))
    except BaseException:  # noqa: BLE001 (told to the parent, whatever it is)
        tell(CrashOutcome(error=traceback.format_exc()))
    os._exit(0)


def _gathered(told: IO[bytes]) -> CrashOutcome:
    """What a child told; one that died told only what was durable."""
    marks: dict[str, int] = {}
    states: dict[str, Any] = {}
    while (message := receive(told)) is not None:
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
    """Import what a child imported, so that the next one need not: neither its time nor its steps are a delivery's."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def main() -> None:
    """Serve attempts from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a router prints must not mix with the answers
    import pyarrow as pa  # noqa: F401 (once, before all forks)

    while (attempt := receive(sys.stdin.buffer)) is not None:
        sys.path[:] = attempt.path
        load_module(*attempt.module)
        outcome = _attempt_in_child(attempt)
        send(answers, outcome)
        _import_too(outcome.modules)
