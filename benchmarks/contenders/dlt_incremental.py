"""dlt's incremental run: the records past the greatest id it has seen; none, from the second run on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.parquet as pq


def main(source: Path, folder: Path) -> None:
    @dlt.resource(name="orders", write_disposition="append")
    def orders(after=dlt.sources.incremental("id", range_start="open")) -> Iterator[pa.Table]:  # noqa: B008
        yield pq.read_table(source, filters=None if after.last_value is None else [("id", ">", after.last_value)])

    pipeline = dlt.pipeline(
        "incremental",
        pipelines_dir=str(folder / "state"),
        destination=dlt.destinations.filesystem(bucket_url=(folder / "out").as_uri()),
        dataset_name="bench",
    )
    pipeline.run(orders(), loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
