"""One run of dlt: reads Arrow batches, its fastest way, and loads files of one format, or PostgreSQL through ADBC."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.parquet as pq


def main(source: Path, folder: Path, file_format: str, postgres: str | None) -> None:
    @dlt.resource(name="orders", write_disposition="append")
    def orders() -> Iterator[pa.RecordBatch]:
        yield from _batches(source)

    pipeline = dlt.pipeline(
        "fan_out",
        pipelines_dir=str(folder / "state"),
        destination=_destination(folder, postgres),
        dataset_name="bench",
    )
    pipeline.run(orders(), loader_file_format=file_format).raise_on_failed_jobs()


def _batches(source: Path) -> Iterator[pa.RecordBatch]:
    if source.suffix == ".arrow":
        read = pa.ipc.open_file(pa.memory_map(str(source)))
        return (read.get_batch(number) for number in range(read.num_record_batches))
    return pq.ParquetFile(source).iter_batches(batch_size=65_536)


def _destination(folder: Path, postgres: str | None) -> object:
    if postgres is not None:
        return dlt.destinations.postgres(postgres)
    return dlt.destinations.filesystem(bucket_url=(folder / "out").as_uri())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("format")
    parser.add_argument("--postgres", help="a URL; what is loaded there is Parquet on the way")
    arguments = parser.parse_args()
    main(arguments.source.absolute(), arguments.folder.absolute(), arguments.format, arguments.postgres)
