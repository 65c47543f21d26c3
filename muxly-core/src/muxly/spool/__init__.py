"""The spool: sealed segments in files that are never changed."""

from __future__ import annotations

from muxly.spool.folder import FolderSpool, MappedSegment, SpoolDraft, SpoolLock
from muxly.spool.segments import SegmentBytes, SegmentWriter, read_segment, verify

__all__ = [
    "SpoolDraft",
    "FolderSpool",
    "MappedSegment",
    "SegmentBytes",
    "SegmentWriter",
    "SpoolLock",
    "read_segment",
    "verify",
]
