"""Deliveries for tests of routers."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from muxly.batch import Batch
from muxly.router import Delivery, DeliverySource, Mode
from muxly.stream import Stream

__all__ = ["delivery"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def delivery(  # noqa: PLR0913 (a delivery has that many attributes)
    data: Any = (),
    stream: Stream | str = "numbers",
    *,
    id: str | None = None,
    digest: str | None = None,
    batch_records: int | None = None,
    mode: Mode = "append",
    generation: int | None = None,
    replaces: Iterable[Any] = (),
    state: Any = None,
    delivered: int = 0,
    position: int = 0,
    on_mark: Callable[[int], None] = lambda count: None,
) -> Delivery:
    """Make a delivery as the runner does.

    Args:
        data: What a ``Batch`` takes: a list of dicts, an Arrow table, a data frame; or several
            ``RecordBatch`` in a list.
        stream: The stream, or its name.
        id: By default a new one; pass the same id for a repeat.
        digest: By default a digest of the records.
        batch_records: The greatest number of records in a batch, 1 or more; None = do not cut.
        mode: As in ``Delivery``.
        generation: As in ``Delivery``.
        replaces: As in ``Delivery``; a value that is not a tuple becomes one.
        state: As in ``Delivery``.
        delivered: As in ``Delivery``.
        position: Of the segment that holds the delivery, in the stream's log; 0 = no segment holds it.
        on_mark: Called by ``mark`` with the number of records delivered in all, before it counts.

    Raises:
        ValueError: A record does not fit the type of its column.
    """
    schema, batches = _batches(data, batch_records)
    return Delivery(
        id or _new_delivery_id(),
        digest or _digest(schema, batches),
        stream if isinstance(stream, Stream) else Stream(stream),
        schema,
        mode=mode,
        generation=generation,
        replaces=tuple(value if isinstance(value, tuple) else (value,) for value in replaces),
        state=state,
        delivered=delivered,
        source=DeliverySource(
            batches=batches.__iter__,
            positions=lambda: itertools.repeat(position),
            bounds=((position, 0), (position, sum(batch.num_rows for batch in batches) if position else 0)),
            on_mark=on_mark,
        ),
    )


def _new_delivery_id() -> str:
    """A text that looks like a ULID; later ones of the same process are greater."""
    number = next(_numbers)
    head = "".join(_ALPHABET[number >> shift & 31] for shift in range(45, -1, -5))
    return head + "".join(random.choices(_ALPHABET, k=16))


_numbers: Iterator[int] = itertools.count(0x0197_0000_0000)


def _batches(data: Any, batch_records: int | None) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    if isinstance(data, list) and data and all(isinstance(batch, pa.RecordBatch) for batch in data):
        table = pa.Table.from_batches(data)
    else:
        table, rejected = Batch(data).to_arrow()
        if rejected:
            raise ValueError(f"{len(rejected)} records do not fit; the first: {rejected[0].reason}")
    return table.schema, table.to_batches(max_chunksize=batch_records)


def _digest(schema: pa.Schema, batches: list[pa.RecordBatch]) -> str:
    """A digest of schema and values, independent of where batches begin."""
    table = pa.Table.from_batches(batches, schema=schema).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
