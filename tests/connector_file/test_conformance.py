from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from muxly_connector_file import File
from muxly_testing import ConnectorConformance

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 400
RECORDS = pa.table({"id": range(COUNT), "text": [f'line\n"{n}"' for n in range(COUNT)]})


class Files(ConnectorConformance):
    """Two files of one format, in small batches."""

    format = ""

    def connector(self, tmp_path: Path) -> File:
        tmp_path.mkdir(parents=True, exist_ok=True)
        for part in range(2):
            path = tmp_path / f"part-{part}.{self.format}"
            if not path.exists():
                self.write(RECORDS[part * COUNT // 2 : (part + 1) * COUNT // 2], path)
        sizes: dict[str, Any] = {"block_bytes": 1024, "record_bytes": 4096, "batch_records": 50}
        return File(path=tmp_path / "*.*", stream="records", primary_key=["id"], **sizes)

    def broken(self, tmp_path: Path) -> File:
        path = tmp_path / f"other.{self.format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PK\x03\x04 is how a ZIP archive begins")
        return File(path=path)

    def write(self, records: pa.Table, path: Path) -> None:
        raise NotImplementedError


class TestCsv(Files):
    format = "csv"

    def write(self, records: pa.Table, path: Path) -> None:
        pa.csv.write_csv(records, path)


class TestJsonLines(Files):
    format = "jsonl.gz"

    def write(self, records: pa.Table, path: Path) -> None:
        import gzip
        import json

        path.write_bytes(gzip.compress("\n".join(map(json.dumps, records.to_pylist())).encode()))


class TestParquet(Files):
    format = "parquet"

    def write(self, records: pa.Table, path: Path) -> None:
        pq.write_table(records, path, row_group_size=70)


class TestArrow(Files):
    format = "arrow"

    def write(self, records: pa.Table, path: Path) -> None:
        with pa.ipc.new_file(str(path), records.schema) as writer:
            writer.write_table(records, max_chunksize=70)
