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
import sys
import traceback
from typing import IO, TYPE_CHECKING, Any

from attrs import evolve

from muxly_testing.crash_messages import Act, Attempt, Outcome, packed, receive, send
from muxly_testing.crash_steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from muxly.component import Run
    from muxly.router import Delivery, Router

__all__ = ["main"]

HANG_SECONDS = 60


class _Ledger:
    """What a ledger keeps while a child acts: the state of each stream, and what is marked.

    Args:
        states: Those of the streams, as the attempt begins.
        tell: Tells the parent what is durable from now on.
    """

    def __init__(self, states: dict[str, Any], tell: Callable[[object], None]) -> None:
        self.states, self._tell = dict(states), tell

    def delivery(self, act: Act) -> Delivery:
        """The delivery of an act, with its stream's state."""
        from muxly.router import Delivery, DeliverySource

        return Delivery(
            act.id,
            act.digest,
            act.stream,
            act.batches[0].schema,
            mode=act.mode,
            generation=act.generation,
            state=copy.deepcopy(self.states.get(act.stream.name)),
            delivered=act.delivered,
            source=DeliverySource(
                batches=lambda: _repeated(act),
                on_mark=lambda count: self._tell(("mark", act.id, count)),
            ),
        )

    def deliver(self, router: Router, act: Act) -> None:
        """Let the router deliver, and acknowledge that."""
        receipt = router.deliver(self.delivery(act))
        if receipt is not None and receipt.state is not None:
            self.states[act.stream.name] = copy.deepcopy(receipt.state)


def _repeated(act: Act) -> Iterator[pa.RecordBatch]:
    """The batches, again and again, with ids that go on."""
    records = sum(batch.num_rows for batch in act.batches)
    for number in range(act.repeat):
        for batch in act.batches:
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


def _act(attempt: Attempt, tell: Callable[[object], None]) -> Outcome:
    from muxly.component import Run

    known = set(sys.modules)
    earlier, router = (pickle.loads(attempt.router) for _ in range(2))  # noqa: S301 (the parent's own bytes)
    steps = Steps(type(router), attempt.die_before)
    run, ledger = Run("01JW000000MUXLYCRASHRUN000", "conformance"), _Ledger(attempt.states, tell)
    if attempt.earlier:
        _calls(earlier, run, attempt.earlier, ledger)
    tell(("states", ledger.states))
    with steps.watched() if attempt.counted else contextlib.nullcontext():
        grown = _calls(router, run, attempt.acts, ledger)
    run.end()
    return Outcome(
        finished=True,
        states=ledger.states,
        steps=steps.count,
        visible=steps.visible,
        grown_bytes=grown,
        modules=tuple(set(sys.modules) - known),
    )


def _calls(router: Router, run: Run, acts: tuple[Act, ...], ledger: _Ledger) -> int:
    """Open, act and close; returns by how many bytes the peak of memory grew in the last delivery."""
    router.open(run)
    before = _peak_bytes()
    for act in acts:
        if act.method == "deliver":
            before = _peak_bytes()
            ledger.deliver(router, act)
        else:
            getattr(router, act.method)(act.stream, act.generation)
    grown = _peak_bytes() - before
    router.close()
    return grown


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _attempt_in_child(attempt: Attempt) -> Outcome:
    """Fork, act there, and gather what the child told before it ended."""
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


def _be_child(attempt: Attempt, pipe: int) -> None:
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
        tell(Outcome(error=traceback.format_exc()))
    os._exit(0)


def _gathered(told: IO[bytes]) -> Outcome:
    """What a child told; one that died told only what was durable."""
    marks: dict[str, int] = {}
    states: dict[str, Any] = {}
    while (message := receive(told)) is not None:
        match message:
            case Outcome():
                return evolve(message, marks=marks)
            case "mark", name, count:
                marks[name] = count
            case "states", kept:
                states = kept
    return Outcome(marks=marks, states=states)


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
