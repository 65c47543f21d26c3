"""Parquet files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from muxly.batch import Batch
from muxly_connector_file._columnar import batch_of, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from muxly_connector_file._format import Source


def read(source: Source, cursor: Any) -> Iterator[Batch]:
    """The records of a Parquet file from a cursor on: ``{"row_group": ..., "records": ...}``."""
    first, skip = (cursor["row_group"], cursor["records"]) if cursor else (0, 0)
    with source.open_arrow() as raw, damaged(source, "Parquet file"), pq.ParquetFile(raw, pre_buffer=False) as file:
        columns = _columns(file, source)
        if not file.metadata.num_rows:
            yield Batch(file.schema_arrow.empty_table().select(columns or file.schema_arrow.names))
        for group in range(first, file.num_row_groups):
            done = 0
            for batch in _batches(file, group, columns, source):
                done += batch.num_rows
                if done > skip:
                    yield batch_of(source, batch, {"row_group": group, "records": done}, f"row group {group}")
            skip = 0


def _batches(file: Any, group: int, columns: list[str] | None, source: Source) -> Iterator[pa.RecordBatch]:
    with damaged(source, f"row group {group} of the Parquet file"):
        yield from file.iter_batches(batch_size=source.batch_records, row_groups=[group], columns=columns)


def _columns(file: Any, source: Source) -> list[str] | None:
    if source.columns is None:
        return None
    return [name for name in file.schema_arrow.names if name in source.columns]
