"""Parquet files, and Arrow IPC files and streams, to batches; their foreign columns are checked before use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from muxly.batch import Batch, Rejected
from muxly.errors import StreamError
from muxly_connector_file._source import FileSource
from muxly_connector_file._text import is_utf8

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}


@contextmanager
def damaged(source: FileSource, what: str) -> Iterator[None]:
    """Turn Arrow's complaint about bytes into an error that names the file.

    Raises:
        StreamError: The bytes are no such file, or not all of it.
    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split())[:200]
        raise StreamError(f"{source.name}: the {what} is damaged or cut short ({why}); write the file again") from error


def batch_of(source: FileSource, batch: pa.RecordBatch, cursor: Any, place: str) -> Batch:
    """A batch that came out of a file, checked and with the types that were given.

    Args:
        source: The file.
        batch: Foreign columns, not yet trusted.
        cursor: What is reached with it.
        place: Where in the file it is, for people.
    """
    rejected: tuple[Rejected, ...] = ()
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        batch, rejected = _without_bad_text(source, batch, place)
        batch.validate(full=True)
    return Batch(_typed(source, batch), cursor, rejected=rejected)


def _typed(source: FileSource, batch: pa.RecordBatch) -> pa.RecordBatch:
    for name, kind in source.types.items():
        index = batch.schema.get_field_index(name)
        if index < 0 or batch.schema.field(index).type == kind:
            continue
        try:
            values = batch.column(index).cast(kind)
        except pa.ArrowException as error:
            raise StreamError(
                f"{source.name}: column {name!r} is {batch.schema.field(index).type} and does not fit the type "
                f"{kind} given in types ({error}); leave the type out or choose a wider one"
            ) from error
        batch = batch.set_column(index, batch.schema.field(index).with_type(kind), values)
    return batch


def _without_bad_text(
    source: FileSource, batch: pa.RecordBatch, place: str
) -> tuple[pa.RecordBatch, tuple[Rejected, ...]]:
    """Set aside records with text that is not UTF-8, which Parquet files may hold.

    Raises:
        pa.ArrowInvalid: Something else is wrong; then no value may be touched.
    """
    raw = batch
    for index, field in enumerate(batch.schema):
        if kind := _BYTES.get(field.type):
            raw = raw.set_column(index, field.name, batch.column(index).view(kind))
    raw.validate(full=True)
    why: dict[int, str] = {}
    for field, column in zip(batch.schema, raw.columns, strict=True):
        for row, value in enumerate(column.to_pylist() if field.type in _BYTES else ()):
            if value is not None and not is_utf8(value):
                why.setdefault(row, f"column {field.name!r} is not UTF-8 text")
    keep = pa.array([row not in why for row in range(batch.num_rows)])
    rejected = tuple(
        Rejected(reason, record=raw.slice(row, 1).to_pylist()[0], place=f"{source.name}, {place}, record {row + 1}")
        for row, reason in why.items()
    )
    return batch.filter(keep), rejected


_MAGIC = b"ARROW1"


def read_arrow(source: FileSource, cursor: Any) -> Iterator[Batch]:
    """The records of an Arrow file or stream from a cursor on: ``{"batch": ..., "records": ...}``."""
    first, skip = (cursor["batch"], cursor["records"]) if cursor else (0, 0)
    with source.open_arrow() as raw, damaged(source, "Arrow file"):
        head = raw.read(len(_MAGIC))
        raw.seek(0)
        with pa.ipc.open_file(raw) if head == _MAGIC else pa.ipc.open_stream(raw) as reader:
            names = _names(reader.schema, source)
            if not first:
                yield Batch(reader.schema.empty_table().select(names))
            for number, batch in _arrow_batches(reader, first):
                # The whole batch is checked before any part of it leaves.
                whole = batch_of(source, batch.select(names), None, f"batch {number}")
                yield from _parts(source, whole, number, skip)
                skip = 0


def _arrow_batches(reader: Any, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    if hasattr(reader, "get_batch"):
        for number in range(first, reader.num_record_batches):
            yield number, reader.get_batch(number)
        return
    for number, batch in enumerate(reader):
        if number >= first:
            yield number, batch


def _parts(source: FileSource, whole: Batch, number: int, skip: int) -> Iterator[Batch]:
    """One batch of a file as batches of at most ``batch_records``."""
    records: pa.RecordBatch = whole.data
    if whole.rejected and not skip:
        yield Batch(rejected=whole.rejected)
    for start in range(skip, records.num_rows, source.batch_records):
        part = records.slice(start, source.batch_records)
        yield Batch(part, {"batch": number, "records": start + part.num_rows})


def _names(schema: pa.Schema, source: FileSource) -> list[str]:
    return [name for name in schema.names if source.columns is None or name in source.columns]


def read_parquet(source: FileSource, cursor: Any) -> Iterator[Batch]:
    """The records of a Parquet file from a cursor on: ``{"row_group": ..., "records": ...}``."""
    import pyarrow.parquet as pq

    first, skip = (cursor["row_group"], cursor["records"]) if cursor else (0, 0)
    with source.open_arrow() as raw, damaged(source, "Parquet file"), pq.ParquetFile(raw, pre_buffer=False) as file:
        columns = _columns(file, source)
        if not file.metadata.num_rows:
            yield Batch(file.schema_arrow.empty_table().select(columns or file.schema_arrow.names))
        for group in range(first, file.num_row_groups):
            done = 0
            for batch in _parquet_batches(file, group, columns, source):
                done += batch.num_rows
                if done > skip:
                    yield batch_of(source, batch, {"row_group": group, "records": done}, f"row group {group}")
            skip = 0


def _parquet_batches(file: Any, group: int, columns: list[str] | None, source: FileSource) -> Iterator[pa.RecordBatch]:
    with damaged(source, f"row group {group} of the Parquet file"):
        yield from file.iter_batches(batch_size=source.batch_records, row_groups=[group], columns=columns)


def _columns(file: Any, source: FileSource) -> list[str] | None:
    if source.columns is None:
        return None
    return [name for name in file.schema_arrow.names if name in source.columns]
