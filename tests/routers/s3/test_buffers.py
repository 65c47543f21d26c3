"""Bytes of an object on their way to S3: they come out as they went in, wherever they were kept."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_routers.s3.drafts import ObjectBuffer, TemporarySpool

MIB = 1024 * 1024


@pytest.mark.parametrize("memory", [MIB // 2, 16 * MIB])
@pytest.mark.parametrize("sizes", [(10, 2 * MIB, 10), (2 * MIB, 10), (10, 10), (MIB // 2, MIB // 2, 3 * MIB), ()])
def test_bytes_keep_their_order_and_their_checksum(memory: int, sizes: tuple[int, ...]) -> None:
    parts = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    check(memory, parts)


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 50))
def test_any_parts_keep_their_order(parts: list[bytes], memory: int) -> None:
    check(memory, parts)


def check(memory: int, parts: list[bytes]) -> None:
    spool = TemporarySpool()
    try:
        buffer = ObjectBuffer(spool, memory, "crc32")
        for part in parts:
            buffer.write(memoryview(part))
        whole = b"".join(parts)
        payload = buffer.payload()
        body = payload.body()
        read = bytes(body) if isinstance(body, bytes | bytearray) else b"".join(iter(lambda: body.read(4096), b""))
        assert read == whole
        assert payload.size == len(whole)
        assert int.from_bytes(payload.digest) == zlib.crc32(whole)
    finally:
        spool.close()
