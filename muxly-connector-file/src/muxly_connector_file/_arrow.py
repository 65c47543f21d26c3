"""Arrow IPC files and streams to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from muxly.batch import Batch
from muxly_connector_file._columnar import batch_of, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_connector_file._format import Source

_MAGIC = b"ARROW1"


def read(source: Source, cursor: Any) -> Iterator[Batch]:
    """The records of an Arrow file or stream from a cursor on: ``{"batch": ..., "records": ...}``."""
    first, skip = (cursor["batch"], cursor["records"]) if cursor else (0, 0)
    with source.open_arrow() as raw, damaged(source, "Arrow file"):
        head = raw.read(len(_MAGIC))
        raw.seek(0)
        with pa.ipc.open_file(raw) if head == _MAGIC else pa.ipc.open_stream(raw) as reader:
            names = _names(reader.schema, source)
            if not first:
                yield Batch(reader.schema.empty_table().select(names))
            for number, batch in _batches(reader, first):
                # The whole batch is checked before any part of it leaves.
                whole = batch_of(source, batch.select(names), None, f"batch {number}")
                yield from _parts(source, whole, number, skip)
                skip = 0


def _batches(reader: Any, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    if hasattr(reader, "get_batch"):
        for number in range(first, reader.num_record_batches):
            yield number, reader.get_batch(number)
        return
    for number, batch in enumerate(reader):
        if number >= first:
            yield number, batch


def _parts(source: Source, whole: Batch, number: int, skip: int) -> Iterator[Batch]:
    """One batch of a file as batches of at most ``batch_records``."""
    records: pa.RecordBatch = whole.data
    if whole.rejected and not skip:
        yield Batch(rejected=whole.rejected)
    for start in range(skip, records.num_rows, source.batch_records):
        part = records.slice(start, source.batch_records)
        yield Batch(part, {"batch": number, "records": start + part.num_rows})


def _names(schema: pa.Schema, source: Source) -> list[str]:
    return [name for name in schema.names if source.columns is None or name in source.columns]
