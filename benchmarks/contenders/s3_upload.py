"""Puts one object of so many bytes into a bucket, and prints as JSON what the upload took.

Muxly's way is a whole run that ends in S3, with its delivery clocked; the peer's is boto3's own
`upload_file` of the same bytes. Both clocks run from before boto3 is loaded. The records do not
compress, and are not compressed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

RECORD_BYTES, BATCH_RECORDS = 1024, 8192


def write(path: Path, size: int) -> None:
    """An Arrow file of random records; the same every time."""
    source = random.Random(7)
    kind = pa.binary(RECORD_BYTES)
    with pa.ipc.new_file(path, pa.schema([("content", kind)])) as writer:
        for _ in range(size // RECORD_BYTES // BATCH_RECORDS):
            content = pa.py_buffer(source.randbytes(RECORD_BYTES * BATCH_RECORDS))
            column = pa.Array.from_buffers(kind, BATCH_RECORDS, [None, content])
            writer.write_batch(pa.record_batch({"content": column}))


def with_muxly(source: Path, endpoint: str, bucket: str, user: str, password: str) -> dict[str, float]:
    import muxly
    from muxly_connector_file import File
    from muxly_routers.s3 import S3

    router = S3(
        bucket=bucket,
        prefix=f"muxly-{time.time_ns()}",
        endpoint_url=endpoint,
        region="us-east-1",
        access_key_id=user,
        secret_access_key=muxly.Secret(password),
        format="arrow",
        compression="none",
    )
    route = muxly.Route("archive", router, batch={"bytes": 1 << 30, "records": 1 << 30})
    pipeline = muxly.Pipeline("upload", File(path=source, stream="content"), routes=[route])
    taken: dict[str, float] = {}
    S3.deliver = clocked(S3.deliver, taken)  # type: ignore[method-assign]
    muxly.run(pipeline).raise_for_status()
    return taken


def with_boto3(source: Path, endpoint: str, bucket: str, user: str, password: str) -> dict[str, float]:
    taken: dict[str, float] = {}

    def upload() -> None:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=user,
            aws_secret_access_key=password,
        )
        client.upload_file(str(source), bucket, f"boto3-{time.time_ns()}")

    clocked(upload, taken)()
    return taken


def clocked(function: Callable[..., Any], taken: dict[str, float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return function(*given, **named)
        finally:
            taken["clocked_cpu_seconds"] = taken.get("clocked_cpu_seconds", 0) + time.process_time() - cpu
            taken["clocked_wall_seconds"] = taken.get("clocked_wall_seconds", 0) + time.perf_counter() - wall
            taken["deliveries"] = taken.get("deliveries", 0) + 1

    return timed


if __name__ == "__main__":
    way, endpoint, bucket, user, password, size = sys.argv[1:]
    source = Path("content.arrow")
    write(source, int(size))
    done = {"muxly": with_muxly, "boto3": with_boto3}[way](source, endpoint, bucket, user, password)
    print(json.dumps(done))
