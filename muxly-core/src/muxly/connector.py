"""The contract of connectors: what can be read, how it is divided, and reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from muxly.batch import Batch, Cursor
from muxly.component import Component
from muxly.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["Connector", "Partition", "Plan"]


@frozen
class Partition:
    """An independently readable part of a stream, with its own cursor.

    Args:
        id: Unique in the plan; any text, also a path or URL. Kept while the plan is unfinished.
        cursor: Where reading starts.
        payload: What ``read`` needs to know beyond the id: JSON values, dates, decimals.
        records: How many records it holds, if known; for progress only.
    """

    id: str = ""
    cursor: Cursor = None
    payload: Any = field(default=None, kw_only=True)
    records: int | None = field(default=None, kw_only=True)


@frozen
class Plan:
    """How a stream is read this time.

    Args:
        partitions: What is to be read; none = nothing is new.
        cursor: What the stream's cursor becomes when all partitions are sealed; None = the
            single partition's own last cursor, or ``{partition id: cursor}`` of several.
        schema: Arrow schema of the records, if known.
    """

    partitions: tuple[Partition, ...] = field(converter=tuple[Partition, ...])
    cursor: Cursor = None
    schema: pa.Schema | None = field(default=None, kw_only=True, eq=False)


class Connector(Component):
    """Reads streams of records out of one system. Two methods make one: ``streams`` and ``read``.

    Order of calls in a run: ``open``; ``streams``; for each stream ``plan``, then ``read`` once
    per partition; ``close``. ``streams`` and ``plan`` come from one thread; ``read`` runs on
    several threads at once, one per partition.

    What errors do: ``RetryableError`` = what follows the last cursor is dropped and read again
    from it, with back-off; ``QuotaError`` = what was read up to the last cursor is sealed and
    the run ends ``partial``; ``StreamUnavailableError`` = skipped if a pattern chose the stream,
    failed if it was named; ``StreamError`` = this stream stops, others go on; ``StaleCursorError``
    = ``on_stale_cursor`` decides; ``ConfigurationError`` = placed in the user's file. Anything
    else is a bug: the run fails and every cursor stays where it was sealed.
    """

    def streams(self) -> Iterable[Stream]:
        """What can be read under these options. Called once per run; cheap."""
        raise NotImplementedError(f"{type(self).__name__} needs a method streams(self)")

    def plan(self, stream: Stream, cursor: Cursor) -> Plan:
        """Divide what is new since the cursor into partitions.

        Called when no unfinished plan of the stream is stored. The plan is stored before its
        first read, so ``read`` may be called with its partitions in a later run.

        Args:
            stream: One of ``streams()``.
            cursor: The stream's cursor, or None = from the start. It is the ``Plan.cursor`` of
                the last finished plan, or what its docstring says for None.
        """
        return Plan((Partition(cursor=cursor),))

    def read(self, stream: Stream, partition: Partition, cursor: Cursor) -> Iterator[Batch]:
        """Read one partition.

        A batch becomes durable some time after it was yielded, and reaches routes only then.
        After a crash reading goes on from the last cursor that was sealed, so a batch with a
        cursor means: everything up to here was yielded. Batches before the first cursor, or
        after the last one, are read again as a whole.

        Args:
            stream: One of ``streams()``; ``stream.columns`` says if fewer columns suffice.
            partition: One of the plan's partitions.
            cursor: The last sealed ``Batch.cursor`` of this partition in this plan, or
                ``partition.cursor``.

        Yields:
            Batches of any size; 10,000 to 100,000 records are good ones.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method read(self, stream, partition, cursor)")
        yield  # type: ignore[unreachable]  # makes it a generator, as the real ones are
