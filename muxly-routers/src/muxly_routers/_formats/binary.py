"""Records as Parquet or as an Arrow IPC file, both with the digest of the delivery in their metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import muxly
from muxly_routers._formats import columns
from muxly_routers._formats.encoding import Encoding, Sink

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["ArrowEncoder", "ParquetEncoder", "stored_digest", "with_digest"]

# Encoding takes several times this much memory while it lasts.
_ROW_GROUP_BYTES = 16 * 1024 * 1024
_SAMPLE = 10_000
_SAMPLE_BYTES = 1024 * 1024
# Values are encoded so many bytes at a time at most, or pages of large values become very large.
_PAGE_BYTES = 1024 * 1024
_PAGE_ROWS = 1024
# A dictionary pays while the values repeat; with more distinct ones it costs time and gains nothing.
_REPEATS = 10


class ParquetEncoder:
    """Collects batches into row groups; the first one decides how each column is encoded."""

    nonfinite = 0

    def __init__(self, encoding: Encoding, schema: pa.Schema, sink: Sink, digest: str) -> None:
        self._encoding = encoding
        self._conversion = columns.conversion(schema, "parquet")
        self._schema = with_digest(self._conversion.schema, digest)
        self._sink = sink
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self.pending_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take records; whole row groups are written at once."""
        most = self._encoding.row_group_rows
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, most - self._waiting_rows)
            start += part.num_rows
            self._waiting.append(part)
            self._waiting_rows += part.num_rows
            self.pending_bytes += part.nbytes
            if self._waiting_rows >= most or self.pending_bytes >= _ROW_GROUP_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits as a row group."""
        if not self._waiting:
            return
        batches = [self._conversion.apply(batch) for batch in self._waiting]
        table = pa.Table.from_batches(batches, schema=self._conversion.schema)
        self._waiting, self._waiting_rows, self.pending_bytes = [], 0, 0
        try:
            self._open(table).write_table(table.cast(self._schema), row_group_size=max(1, table.num_rows))
        except pa.ArrowInvalid as error:
            raise muxly.RejectedError(f"parquet cannot hold a value: {error}") from error

    def finish(self) -> None:
        """Write the last row group, then the footer."""
        self.flush()
        self._open(self._schema.empty_table()).close()

    def _open(self, first: pa.Table) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = _writer(self._encoding, self._schema, self._sink, first)
        return self._writer


def _writer(encoding: Encoding, schema: pa.Schema, sink: Sink, first: pa.Table) -> pq.ParquetWriter:
    import pyarrow.parquet as pq

    dictionary, encodings = _settings(first)
    level = encoding.level if encoding.level is not None or encoding.compression != "zstd" else 1
    return pq.ParquetWriter(
        pa.PythonFile(sink, "w"),
        schema,
        compression=encoding.compression,
        compression_level=level,
        use_dictionary=dictionary,
        column_encoding=encodings,
        write_batch_size=max(1, min(_PAGE_ROWS, columns.rows_within(first, _PAGE_BYTES))),
    )


def _settings(first: pa.Table) -> tuple[list[str], dict[str, str]]:
    """The columns that get a dictionary, and the encoding of those that do not.

    A name with a dot could be taken for a field inside another column, so such a column, like
    every nested one, is left to the defaults.
    """
    dictionary: list[str] = []
    encodings: dict[str, str] = {}
    for field, column in zip(first.schema, first.columns, strict=True):
        if "." in field.name or pa.types.is_nested(field.type):
            continue
        if _repeats(column):
            dictionary.append(field.name)
        elif (encoding := _encoding_of(field.type)) is not None:
            encodings[field.name] = encoding
    return dictionary, encodings


def _repeats(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return True
    if not (_is_bytes(kind) or pa.types.is_decimal(kind)):
        return False
    sample: Any = column.slice(0, max(100, min(_SAMPLE, columns.rows_within(column, _SAMPLE_BYTES)))).combine_chunks()
    try:
        return bool(pc.count_distinct(sample).as_py() * _REPEATS <= len(sample))
    except pa.ArrowNotImplementedError:
        return False


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    )


def _encoding_of(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_integer(kind) or types.is_temporal(kind):
        # Durations and all the others of this kind are stored as 32 or 64 bit integers.
        return "DELTA_BINARY_PACKED"
    if types.is_float32(kind) or types.is_float64(kind):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_LENGTH_BYTE_ARRAY" if _is_bytes(kind) else None


_KEY = b"muxly.digest"


def with_digest(schema: pa.Schema, digest: str) -> pa.Schema:
    """The schema with the digest in its metadata, where both Parquet and Arrow keep it."""
    return schema.with_metadata({**(schema.metadata or {}), _KEY: digest.encode()})


def stored_digest(format: str, file: Any) -> str | None:
    """The digest that a file was written with.

    Raises:
        ValueError: The file is not whole, or not of that format.
    """
    try:
        metadata = _parquet_metadata(file) if format == "parquet" else pa.ipc.open_file(file).schema.metadata
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a whole {format} file: {error}") from error
    value = (metadata or {}).get(_KEY)
    return None if value is None else value.decode()


def _parquet_metadata(file: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.read_metadata(file).metadata


# Zstandard at level 1: half the time of Arrow's own choice for two percent more bytes.
_CODECS = {"none": None, "lz4": "lz4", "zstd": pa.Codec("zstd", 1)}


class ArrowEncoder:
    """Writes each batch as it comes."""

    nonfinite = 0
    pending_bytes = 0

    def __init__(self, encoding: Encoding, schema: pa.Schema, sink: Sink, digest: str) -> None:
        self._conversion = columns.conversion(schema, "arrow")
        self._schema = with_digest(self._conversion.schema, digest)
        self._writer = pa.ipc.new_file(
            pa.PythonFile(sink, "w"),
            self._schema,
            options=pa.ipc.IpcWriteOptions(compression=_CODECS[encoding.compression]),
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the batch."""
        columns_ = self._conversion.apply(batch).columns
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns_, schema=self._schema))

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Write the footer."""
        self._writer.close()
