"""The limit: reads Parquet once and writes Parquet, JSON Lines and Arrow, with no state and no safety."""

from __future__ import annotations

import sys
from pathlib import Path

import arro3.io
import pyarrow as pa
import pyarrow.parquet as pq


def main(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    read = pq.ParquetFile(source)
    with (
        pq.ParquetWriter(folder / "out.parquet", read.schema_arrow, compression="zstd", compression_level=1) as parquet,
        pa.ipc.new_file(folder / "out.arrow", read.schema_arrow) as arrow,
        (folder / "out.jsonl").open("wb") as lines,
    ):
        for batch in read.iter_batches(batch_size=65_536):
            parquet.write_batch(batch)
            arrow.write_batch(batch)
            arro3.io.write_ndjson(batch, lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
