"""The spool: sealed segments in files that are never changed."""

from __future__ import annotations

from muxly.spool.folder import Draft, FolderSpool, SpoolLock
from muxly.spool.mapped import MappedSegment
from muxly.spool.segments import SegmentBytes, SegmentWriter, read_segment, verify

__all__ = [
    "Draft",
    "FolderSpool",
    "MappedSegment",
    "SegmentBytes",
    "SegmentWriter",
    "SpoolLock",
    "read_segment",
    "verify",
]
