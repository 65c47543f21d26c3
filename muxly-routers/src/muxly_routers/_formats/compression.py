"""Compressed text: a sink that compresses what goes through it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from muxly_routers._formats.encoding import Encoding, Sink

__all__ = ["compressing"]

_GZIP_LEVEL = 6
_GZIP_HEADER = 31


class _PlainSink:
    """Passes everything on."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, buffer: Any) -> None:
        self._sink.write(buffer)

    def finish(self) -> None:
        """Nothing follows."""


class _GzipSink:
    """One gzip member without a time stamp, so that equal records give equal bytes."""

    def __init__(self, sink: Sink, level: int | None) -> None:
        self._sink = sink
        self._stream = zlib.compressobj(level or _GZIP_LEVEL, zlib.DEFLATED, _GZIP_HEADER)

    def write(self, buffer: Any) -> None:
        if compressed := self._stream.compress(buffer):
            self._sink.write(compressed)

    def finish(self) -> None:
        self._sink.write(self._stream.flush())


class _ZstdSink:
    """One Zstandard frame: some readers stop after the first."""

    def __init__(self, sink: Sink) -> None:
        self._stream = pa.CompressedOutputStream(pa.PythonFile(sink, "w"), "zstd")

    def write(self, buffer: Any) -> None:
        self._stream.write(buffer)

    def finish(self) -> None:
        self._stream.close()


def compressing(encoding: Encoding, sink: Sink) -> _PlainSink | _GzipSink | _ZstdSink:
    """The sink behind the encoding's compression."""
    if encoding.compression == "gzip":
        return _GzipSink(sink, encoding.level)
    return _ZstdSink(sink) if encoding.compression == "zstd" else _PlainSink(sink)
