"""The spool: sealed segments in files that are never changed."""

from __future__ import annotations

from muxly.spool.folder import SpoolDraft, FolderSpool, SpoolLock
from muxly.spool.mapped import MappedSegment
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
