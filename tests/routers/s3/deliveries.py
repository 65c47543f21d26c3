"""What the tests of the S3 router share: routers on a store, and what lies in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import muxly
from muxly_routers.s3 import S3
from muxly_testing import delivery

if TYPE_CHECKING:
    import threading

    from types_boto3_s3.client import S3Client

    from tests.fixtures_s3 import Store

__all__ = ["Lake", "numbered"]


class Lake:
    """A bucket of a store, and routers that write to it; a context manager.

    Args:
        store: The store that the routers reach.
        direct: The same store, reached without what stands in between.
    """

    def __init__(self, store: Store, direct: Store | None = None) -> None:
        self.store = store
        self.bucket = f"lake-{uuid4().hex}"
        self.notices: list[muxly.Notice] = []
        self._stack = contextlib.ExitStack()
        self.client: S3Client = (direct or store).client()
        self.client.create_bucket(Bucket=self.bucket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def router(
        self,
        *,
        token: int = 1,
        route: str = "lake",
        guarded: bool = False,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> S3:
        """An opened router."""
        run = muxly.Run(
            f"01RUN{token}",
            "daily",
            route=route,
            token=token,
            guarded=guarded,
            stop=stop,
            on_notice=self.notices.append,
        )
        self._stack.callback(run.end)
        made = S3(**{"bucket": self.bucket, **self.store.options, **options})
        made.open(run)
        self._stack.callback(made.close)
        return made

    def keys(self, prefix: str = "", *, all: bool = False) -> list[str]:
        """The keys of the objects, those of the router's own work left out."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        found = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [key for key in found if all or "/.muxly/" not in f"/{key}"]

    def journal(self) -> list[str]:
        """The notes of uploads that were begun."""
        return [key for key in self.keys(all=True) if "/uploads/" in key]

    def uploads(self) -> list[str]:
        """The keys of the uploads that were begun and neither ended nor aborted."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    def content(self, key: str) -> bytes:
        """The bytes of an object."""
        with self.client.get_object(Bucket=self.bucket, Key=key)["Body"] as body:
            return body.read()

    def put(self, key: str, content: bytes = b"foreign") -> None:
        """Write an object as somebody else."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)


def numbered(*numbers: int, stream: Any = "numbers", **facts: Any) -> muxly.Delivery:
    """A delivery of small records."""
    records = [{"id": number, "day": f"2026-01-{number // 10 + 1:02}", "text": f"n{number}"} for number in numbers]
    return delivery(records, stream, **facts)
