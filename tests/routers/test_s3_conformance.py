"""The S3 router keeps the contract of routers, on a real store, as another reader sees it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from muxly.testing import RouterConformance
from muxly_routers.s3 import S3
from tests.routers.s3_proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from types_boto3_s3.client import S3Client

    from tests.fixtures_s3 import Store


class Written(RouterConformance):
    """An S3 router whose objects another tool reads."""

    options: ClassVar[dict[str, Any]] = {}
    # Making a client is most of what a killed process does.
    crash_points = 4
    big_batches = 64
    store: ClassVar[Store]
    bucket: ClassVar[str]
    reader: ClassVar[S3Client]
    proxy: ClassVar[Proxy]
    prefix: str = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _reading(cls, seaweed: Store) -> Iterator[None]:
        cls.store, cls.bucket, cls.reader = seaweed, f"conformance-{uuid4().hex}", seaweed.client()
        cls.reader.create_bucket(Bucket=cls.bucket)
        with Proxy(seaweed.url) as cls.proxy:
            yield

    def router(self, tmp_path: Path) -> S3:
        # Each router has a place of its own, as each has a folder of its own elsewhere.
        self.prefix = uuid4().hex
        return S3(bucket=self.bucket, prefix=self.prefix, **self.store.options, **self.options)

    def broken(self, tmp_path: Path) -> S3:
        return S3(bucket=self.bucket, **{**self.store.options, "secret_access_key": "not-the-secret"}, **self.options)

    def slow(self, tmp_path: Path) -> S3:
        self.prefix = uuid4().hex
        busy = Fault(on=rf"^PUT .*{self.prefix}/numbers", status=503, code="SlowDown", headers={"Retry-After": "3"})
        self.proxy.faults.append(busy)
        options = {**self.store.options, "endpoint_url": self.proxy.url}
        return S3(bucket=self.bucket, prefix=self.prefix, **options, **self.options)

    def hanging(self, tmp_path: Path) -> S3:
        self.proxy.faults.append(Fault(on="/hangs/", times=9, how="stall"))
        options = {**self.store.options, "endpoint_url": self.proxy.url, "timeout_seconds": 0.3}
        return S3(bucket=self.bucket, prefix="hangs", **options, **self.options)

    def keys(self) -> list[str]:
        """What a reader looks at: the objects that a stream's manifest lists, or all where there is none."""
        pages = self.reader.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        found = [one["Key"] for page in pages for one in page.get("Contents", [])]
        there = [key for key in found if "/.muxly/" not in key]
        manifests = [key for key in there if key.endswith("/_manifest.json")]
        listed = [one["key"] for key in manifests for one in json.loads(self.content(key))["objects"]]
        folders = tuple(key.removesuffix("_manifest.json") for key in manifests)
        return [*listed, *(key for key in there if not folders or not key.startswith(folders))]

    def content(self, key: str) -> bytes:
        """The bytes of an object."""
        with self.reader.get_object(Bucket=self.bucket, Key=key)["Body"] as body:
            return body.read()


class TestParquet(Written):
    crash_points = 5
    memory_bytes = 152 << 20

    def arrived(self) -> list[dict[str, Any]]:
        return [row for key in self.keys() for row in pq.ParquetFile(io.BytesIO(self.content(key))).read().to_pylist()]


class TestParquetInFolders(TestParquet):
    crash_points = 2
    options: ClassVar[dict[str, Any]] = {"partition_by": ["month(day)", "day"], "max_folders": 5000}


class TestJsonLinesInParts(Written):
    """Every object is sent in parts."""

    options: ClassVar[dict[str, Any]] = {"format": "jsonl", "single_put_bytes": 0, "checksum": "sha256"}
    crash_points = 5

    def arrived(self) -> list[dict[str, Any]]:
        lines = [line for key in self.keys() for line in self.content(key).split(b"\n")[:-1]]
        return [json.loads(line) for line in lines]
