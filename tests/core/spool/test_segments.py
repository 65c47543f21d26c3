"""Segments: Arrow IPC streams with a digest, in memory or in a draft."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxly.errors import CorruptSegmentError
from muxly.spool import FolderSpool, SegmentBytes, SegmentWriter, read_segment, verify
from muxly.spool.segments import SPILL_BYTES

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def batch(first: int, count: int, text: str = "x") -> pa.RecordBatch:
    """Records with consecutive ids."""
    return pa.RecordBatch.from_arrays(
        [pa.array(range(first, first + count), pa.int64()), pa.array([text] * count)], schema=SCHEMA
    )


def stored(spool: FolderSpool, found: SegmentBytes) -> str:
    """The segment in a file of its own."""
    draft = found.draft
    if draft is None:
        draft = spool.draft(1)
        for chunk in found.chunks:
            draft.write(chunk)
    return spool.put(draft)


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("counts", [[], [0], [1], [3, 4], [70_000, 70_000]])
def test_segment_comes_back_as_it_was_written(tmp_path: Path, counts: list[int], spill: bool) -> None:
    spool = FolderSpool(tmp_path)
    writer = SegmentWriter(SCHEMA, lambda: spool.draft(1))
    for number, count in enumerate(counts):
        writer.append(batch(number * 100_000, count))
    found = writer.finish(spill=spill)
    assert (found.records, found.draft is not None) == (sum(counts), spill or found.length > SPILL_BYTES)
    name = stored(spool, found)
    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == found.digest
    opened = spool.open(name, 0, found.length)
    verify(opened, found.digest, "it")
    expected = [batch(number * 100_000, count) for number, count in enumerate(counts)]
    assert pa.Table.from_batches(read_segment(opened), SCHEMA) == pa.Table.from_batches(expected, SCHEMA)


def test_large_segment_is_not_kept_in_memory_and_a_discarded_one_leaves_no_file(tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path)
    writer = SegmentWriter(SCHEMA, lambda: spool.draft(1))
    writer.append(batch(0, 10, "y" * SPILL_BYTES))
    assert len(list(tmp_path.iterdir())) == 1
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path: Path, place: int, bit: int) -> None:
    spool = FolderSpool(tmp_path)
    writer = SegmentWriter(SCHEMA, lambda: spool.draft(1))
    writer.append(batch(0, 20))
    found = writer.finish()
    name = stored(spool, found)
    content = bytearray((tmp_path / name).read_bytes())
    content[place % len(content)] ^= 1 << bit
    (tmp_path / name).write_bytes(content)
    opened: Any = spool.open(name, 0, found.length)
    with pytest.raises(CorruptSegmentError, match="the segment it differs from what was sealed"):
        verify(opened, found.digest, "it")
