"""The S3 router keeps the contract of routers, on a real store, as another reader sees it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

import muxly
from muxly_routers.s3 import S3, bucket
from muxly_routers.s3.client import Clients
from muxly_testing import RouterConformance
from tests.routers.s3.proxy import Fault, Proxy

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
    holding: ClassVar[list[muxly.Run]] = []
    contents: ClassVar[dict[tuple[str, str], bytes]] = {}
    prefix: str = ""
    busy: Fault | None = None

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _reading(cls, seaweed: Store) -> Iterator[None]:
        cls.store, cls.bucket, cls.reader = seaweed, f"conformance-{uuid4().hex}", seaweed.client()
        cls.reader.create_bucket(Bucket=cls.bucket)
        with Proxy(seaweed.url) as cls.proxy, pytest.MonkeyPatch.context() as patch:
            patch.setattr(bucket, "_LONGEST_WAIT_SECONDS", 0.5)
            yield
        cls._let_go()

    @pytest.fixture(autouse=True)
    def _one_client(self, request: pytest.FixtureRequest) -> None:
        """All tests share the clients, as the runs of a server do; but for the one about letting go of them."""
        if request.node.originalname == "test_close_lets_go_of_threads_and_files":
            self._let_go()
        elif not self.holding:
            self.holding.append(muxly.Run("01A", "all"))
            self.holding[0].shared("muxly_routers.s3.clients", Clients)

    @classmethod
    def _let_go(cls) -> None:
        while cls.holding:
            cls.holding.pop().end()

    def router(self, tmp_path: Path) -> S3:
        # Each router has a place of its own, as each has a folder of its own elsewhere.
        self.prefix = uuid4().hex
        return S3(bucket=self.bucket, prefix=self.prefix, **self.store.options, **self.options)

    def broken(self, tmp_path: Path) -> S3:
        return S3(bucket=self.bucket, **{**self.store.options, "secret_access_key": "not-the-secret"}, **self.options)

    def slow(self, tmp_path: Path) -> S3:
        self.prefix = uuid4().hex
        self.busy = Fault(on=rf"^PUT .*{self.prefix}/conf", status=503, code="SlowDown", headers={"Retry-After": "1"})
        self.proxy.faults.append(self.busy)
        options = {**self.store.options, "endpoint_url": self.proxy.url}
        return S3(bucket=self.bucket, prefix=self.prefix, **options, **self.options)

    def hanging(self, tmp_path: Path) -> S3:
        self.proxy.faults.append(Fault(on="/hangs/", times=9, how="stall"))
        options = {**self.store.options, "endpoint_url": self.proxy.url, "timeout_seconds": 0.1}
        return S3(bucket=self.bucket, prefix="hangs", **options, **self.options)

    @pytest.fixture(autouse=True)
    def _has_asked(self) -> Iterator[None]:
        """The store that asks to wait has done so."""
        yield
        assert self.busy is None or self.busy.times == 0

    def found(self) -> list[bytes]:
        """What a reader looks at: the objects that a stream's manifest lists, or all where there is none."""
        pages = self.reader.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        found = {one["Key"]: one["ETag"] for page in pages for one in page.get("Contents", [])}
        there = {key: etag for key, etag in found.items() if "/.muxly/" not in key}
        manifests = [key for key in there if key.endswith("/_manifest.json")]
        listed = [one["key"] for key in manifests for one in json.loads(self.content(key, there[key]))["objects"]]
        folders = tuple(key.removesuffix("_manifest.json") for key in manifests)
        shown = [*listed, *(key for key in there if not folders or not key.startswith(folders))]
        return [self.content(key, there[key]) for key in shown]

    def content(self, key: str, etag: str) -> bytes:
        """The bytes of an object, which are asked for once."""
        if (key, etag) not in self.contents:
            with self.reader.get_object(Bucket=self.bucket, Key=key)["Body"] as body:
                self.contents[key, etag] = body.read()
        return self.contents[key, etag]


class TestParquet(Written):
    crash_points = 5
    memory_bytes = 152 << 20

    def arrived(self) -> list[dict[str, Any]]:
        return [row for one in self.found() for row in pq.ParquetFile(io.BytesIO(one)).read().to_pylist()]


class TestParquetInFolders(TestParquet):
    crash_points = 2
    options: ClassVar[dict[str, Any]] = {"partition_by": ["month(day)", "day"], "max_folders": 5000}


class TestJsonLinesInParts(Written):
    """Every object is sent in parts."""

    options: ClassVar[dict[str, Any]] = {"format": "jsonl", "single_put_bytes": 0, "checksum": "sha256"}
    crash_points = 5

    def arrived(self) -> list[dict[str, Any]]:
        lines = [line for one in self.found() for line in one.split(b"\n")[:-1]]
        return [json.loads(line) for line in lines]
