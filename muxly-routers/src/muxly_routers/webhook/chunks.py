"""How a delivery is cut into requests: the same cuts whenever and wherever it is done again.

Requests are cut greedily from the first record of the delivery; one that has to be smaller is halved,
and halved again. So a request is named by its first record and their number, also after a crash in
the middle, and no name ever stands for two different bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from muxly_routers.webhook.bodies import EncodedRecord

__all__ = ["BodyShape", "BodyFormat", "RecordSpan", "after", "spans"]

BodyShape = Literal["array", "record", "ndjson"]


@frozen
class BodyFormat:
    """How the pieces of a request make its body.

    Args:
        shape: An array, one record, or a line for each.
        before: Bytes in front of an array: ``{"records":`` for an envelope.
        behind: Bytes behind it.
    """

    shape: BodyShape = "array"
    before: bytes = b""
    behind: bytes = b""

    def body(self, pieces: list[bytes]) -> bytes:
        """The body; of a record there is one piece."""
        if self.shape == "record":
            return pieces[0]
        if self.shape == "ndjson":
            return b"".join(piece + b"\n" for piece in pieces)
        return b"%s[%s]%s" % (self.before, b",".join(pieces), self.behind)

    @property
    def overhead(self) -> int:
        """Bytes of a body beside its pieces, each with the one byte that separates it."""
        return len(self.before) + len(self.behind) + 2


@frozen
class RecordSpan:
    """Consecutive records of a delivery for one request.

    Args:
        first: Number of the first one in the delivery.
        pieces: The records.
    """

    first: int
    pieces: tuple[EncodedRecord, ...]

    @property
    def end(self) -> int:
        """Number of the record behind the last."""
        return self.first + len(self.pieces)

    @property
    def size(self) -> int:
        """Bytes of its pieces."""
        return sum(len(piece) for piece in self.pieces if isinstance(piece, bytes))

    def sendable(self) -> list[bytes]:
        """The pieces that have a form in JSON."""
        return [piece for piece in self.pieces if isinstance(piece, bytes)]

    def number(self, place: int) -> int:
        """The number in the delivery of the record at that place of the body."""
        numbers = [self.first + at for at, piece in enumerate(self.pieces) if isinstance(piece, bytes)]
        return numbers[place]

    def halves(self) -> tuple[RecordSpan, RecordSpan]:
        """The same records as two spans; of two records or more."""
        middle = len(self.pieces) // 2
        return RecordSpan(self.first, self.pieces[:middle]), RecordSpan(self.first + middle, self.pieces[middle:])


def spans(
    pieces: Iterable[EncodedRecord], *, most_records: int, most_bytes: int, overhead: int = 0
) -> Iterator[RecordSpan]:
    """Cut a delivery's pieces, from its first on.

    Args:
        pieces: All of them.
        most_records: In a span.
        most_bytes: Of a body; one record that is larger stands alone.
        overhead: Bytes of a body beside its pieces and their separators.
    """
    kept: list[EncodedRecord] = []
    first, size = 0, overhead
    for piece in pieces:
        more = len(piece) + 1 if isinstance(piece, bytes) else 0
        if kept and (len(kept) >= most_records or size + more > most_bytes):
            yield RecordSpan(first, tuple(kept))
            first, kept, size = first + len(kept), [], overhead
        kept.append(piece)
        size += more
    if kept:
        yield RecordSpan(first, tuple(kept))


def after(span: RecordSpan, delivered: int) -> Iterator[RecordSpan]:
    """What of a span is not delivered yet, in spans that halving it may have made."""
    if span.first >= delivered:
        yield span
    elif span.end > delivered:
        for half in span.halves():
            yield from after(half, delivered)
