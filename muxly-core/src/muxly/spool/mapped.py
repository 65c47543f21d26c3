"""A segment mapped into memory, whose pages are given back once they are read."""

from __future__ import annotations

import mmap
from functools import cache
from typing import TYPE_CHECKING, Any

from attrs import frozen

from muxly.errors import CorruptSegmentError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


@frozen(eq=False)
class MappedSegment:
    """A part of a file that never changes.

    Args:
        buffer: Its bytes, mapped; valid for as long as anybody holds them.
    """

    buffer: pa.Buffer

    @classmethod
    def of(cls, path: Path, offset: int, length: int) -> MappedSegment:
        """Map a part of a file.

        Raises:
            CorruptSegmentError: The file is shorter.
            OSError: It cannot be opened.
        """
        import pyarrow as pa

        # Unlike Python's own mapping this one holds no descriptor: a delivery may have a thousand segments.
        with pa.memory_map(str(path), "r") as file:
            if file.size() < offset + length:
                raise CorruptSegmentError(f"the spool file {path} is {file.size()} bytes long, not {offset + length}")
            file.seek(offset)
            return cls(file.read_buffer(length))

    def forget(self, length: int) -> None:
        """Give back the memory of its first bytes: routes that are apart must not fill it with segments.

        The bytes stay readable; the system fetches them again from the file.

        Args:
            length: How many bytes.
        """
        address = self.buffer.address
        start, end = (one // mmap.PAGESIZE * mmap.PAGESIZE for one in (address, address + length))
        if start < end:
            # Only advice: if it is refused, the memory is given back with the mapping.
            _madvise()(start, end - start, mmap.MADV_DONTNEED)


@cache
def _madvise() -> Any:
    """The system's own function: Python has it only for mappings that it made itself."""
    import ctypes

    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
