"""What a test and the process that it kills tell each other."""

from __future__ import annotations

import pickle
import struct
from typing import IO, TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    import pyarrow as pa

    from muxly.stream import Stream

__all__ = ["Act", "Attempt", "Outcome", "packed", "receive", "send"]


@frozen(kw_only=True)
class Act:
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
class Attempt:
    """What a child does: open the router, act, and close it, unless it dies first.

    Args:
        module: The name and the file of the router's module.
        path: Where modules are found.
        environ: The environment; secrets are kept there.
        router: The pickled router.
        earlier: Calls of another copy, opened and closed before; no steps.
        acts: Its calls.
        states: What the ledger keeps of each stream before all that.
        die_before: The number of the step that is not reached; None = it lives.
        counted: Whether steps are counted; counting is slow.
    """

    module: tuple[str, str]
    path: tuple[str, ...]
    environ: dict[str, str]
    router: bytes
    acts: tuple[Act, ...]
    earlier: tuple[Act, ...] = ()
    states: dict[str, Any] = field(factory=dict)
    die_before: int | None = None
    counted: bool = True


@frozen(kw_only=True)
class Outcome:
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
