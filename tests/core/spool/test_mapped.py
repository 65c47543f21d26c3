"""Mapped segments: their memory is given back, and their bytes stay."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from muxly.spool import FolderSpool, MappedSegment, SegmentWriter, read_segment

BATCHES = 8
BATCH_BYTES = 4 << 20


def _sealed(spool: FolderSpool) -> MappedSegment:
    numbers = pa.array(range(BATCH_BYTES // 8), pa.int64())
    writer = SegmentWriter(pa.schema({"n": pa.int64()}), lambda: spool.draft(1))
    for _ in range(BATCHES):
        writer.append(pa.RecordBatch.from_arrays([numbers], names=["n"]))
    content = writer.finish()
    assert content.draft is not None
    return spool.open(spool.put(content.draft), 0, content.length)


def _mapped_bytes() -> int:
    """How much of mapped files this process has in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"RssFile:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what is in memory")
def test_memory_of_batches_that_were_read_is_given_back(tmp_path: Path) -> None:
    segment = _sealed(FolderSpool(tmp_path))
    before = _mapped_bytes()
    peak = 0
    for batch in read_segment(segment):
        assert pc.max(batch.column("n")).as_py() == BATCH_BYTES // 8 - 1
        peak = max(peak, _mapped_bytes() - before)
    assert 0 < peak < 3 * BATCH_BYTES


def test_batches_stay_readable_after_their_memory_was_given_back(tmp_path: Path) -> None:
    segment = _sealed(FolderSpool(tmp_path))
    kept = list(read_segment(segment))
    segment.forget(segment.buffer.size)
    assert len(kept) == BATCHES
    assert all(one.column("n")[-1].as_py() == BATCH_BYTES // 8 - 1 for one in kept)
    assert kept[0].equals(kept[-1])


def test_segment_outlives_its_spool_and_its_name(tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path)
    batches = read_segment(_sealed(spool))
    spool.delete(spool.list())
    assert sum(one.num_rows for one in batches) == BATCHES * BATCH_BYTES // 8
