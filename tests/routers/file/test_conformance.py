"""The file router keeps the contract of routers, in every format."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, ClassVar

import polars
import pyarrow.parquet as pq

from muxly_routers.file import File
from muxly_testing import RouterConformance

if TYPE_CHECKING:
    from pathlib import Path


class Written(RouterConformance):
    """A file router whose files another tool reads."""

    options: ClassVar[dict[str, Any]] = {}
    # The steps of a kill are the same in all formats, so that one class looks at many of them.
    crash_points = 6
    path: Path

    def router(self, tmp_path: Path) -> File:
        self.path = tmp_path / "inside" / "deep"
        return File(path=self.path, **self.options)

    def files(self, ending: str) -> list[Path]:
        """What stands in the folders of the streams; readers leave folders alone that begin with a dot."""
        return sorted(self.path.glob(f"[!.]*/**/*{ending}"))


class TestParquet(Written):
    crash_points = 14
    # The first Parquet file of a process, however small, takes 60 to 90 MiB in pyarrow itself.
    memory_bytes = 152 << 20

    def arrived(self) -> list[dict[str, Any]]:
        return [row for file in self.files(".parquet") for row in pq.ParquetFile(file).read().to_pylist()]


class TestParquetInFolders(TestParquet):
    crash_points = 8
    options: ClassVar[dict[str, Any]] = {"partition_by": ["month(day)", "day"], "max_folders": 5000}


class TestJsonLines(Written):
    options: ClassVar[dict[str, Any]] = {"format": "jsonl"}

    def arrived(self) -> list[dict[str, Any]]:
        lines = [line for file in self.files(".jsonl") for line in file.read_bytes().split(b"\n")[:-1]]
        return [json.loads(line) for line in lines]


class TestCsv(Written):
    options: ClassVar[dict[str, Any]] = {"format": "csv"}

    def arrived(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        csv.field_size_limit(1 << 20)
        for path in self.files(".csv"):
            with path.open(encoding="utf-8", newline="") as file:
                rows.extend(csv.DictReader(file, strict=True))
        return rows


class TestArrow(Written):
    options: ClassVar[dict[str, Any]] = {"format": "arrow"}

    def arrived(self) -> list[dict[str, Any]]:
        return [row for file in self.files(".arrow") for row in polars.read_ipc(file).to_dicts()]
