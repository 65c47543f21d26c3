"""One of dlt's runs: reads Parquet as Arrow, its fastest way, and loads files of one format."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.parquet as pq


def main(source: Path, folder: Path, file_format: str) -> None:
    @dlt.resource(name="orders", write_disposition="append")
    def orders() -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(source).iter_batches(batch_size=65_536)

    pipeline = dlt.pipeline(
        "fan_out",
        pipelines_dir=str(folder / "state"),
        destination=dlt.destinations.filesystem(bucket_url=(folder / "out").as_uri()),
        dataset_name="bench",
    )
    pipeline.run(orders(), loader_file_format=file_format).raise_on_failed_jobs()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3])
