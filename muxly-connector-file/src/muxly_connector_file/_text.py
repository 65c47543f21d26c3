"""A text file as blocks of whole records, whatever its compression and encoding."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import frozen

from muxly.errors import StreamError
from muxly_connector_file._records import lines_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_OTHER = {
    b"PAR1": "a Parquet file: set format: parquet",
    b"ARROW1": "an Arrow file: set format: arrow",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"BZh": "compressed with bzip2: compress it with gzip or zstd instead",
    b"\xfd7zXZ": "compressed with xz: compress it with gzip or zstd instead",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document",
    b"\xff\xfe\x00\x00": "UTF-32 text: set encoding: utf-32",
    b"\x00\x00\xfe\xff": "UTF-32 text: set encoding: utf-32",
    b"\xff\xfe": "UTF-16 text: set encoding: utf-16",
    b"\xfe\xff": "UTF-16 text: set encoding: utf-16",
}
_UTF8 = {"utf-8", "utf-8-sig"}
_SHOWN_BYTES = 64 * 1024
_STEP = 1 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_FEED = re.compile(rb"\n")
_NOT_DECODED = "muxly_connector_file.not_decoded"


def compression_of(path: str) -> str | None:
    """What the file's name says: ``"gzip"``, ``"zstd"`` or None."""
    return next((kind for suffix, kind in _SUFFIXES.items() if path.lower().endswith(suffix)), None)


def without_compression(path: str) -> str:
    """The path without a suffix of compression."""
    suffix = next((one for one in _SUFFIXES if path.lower().endswith(one)), "")
    return path[: len(path) - len(suffix)]


@frozen
class Block:
    """Whole records of a file.

    Args:
        data: UTF-8 text, as far as it is valid.
        line: The number of its first line, counted from 1.
        end: How many bytes of decoded text lie before its end; reading can go on there.
        next_line: The number of the line after it.
    """

    data: bytes
    line: int
    end: int
    next_line: int


@frozen
class Overlong:
    """A record that is longer than the limit; only its first bytes are kept."""

    start: bytes
    line: int
    end: int
    next_line: int
    reason: str


def open_text(raw: BinaryIO, name: str, compression: str, encoding: str) -> Any:
    """A stream of UTF-8 bytes.

    Args:
        raw: The file, at its start.
        name: The file's name, for messages and its suffix.
        compression: ``"auto"`` (by the first bytes), ``"gzip"``, ``"zstd"`` or ``"none"``.
        encoding: Name of the text's encoding; anything but UTF-8 is translated.

    Raises:
        StreamError: The file is something else than text, or cut short.
    """
    kind = _compression(raw, name) if compression == "auto" else compression
    stream: Any = raw
    if kind != "none":
        stream = _Compressed(raw, kind, name)
    if codecs.lookup(encoding).name not in _UTF8:
        return _Translated(stream, encoding)
    return _Checked(stream, name)


def _compression(raw: BinaryIO, name: str) -> str:
    head = raw.read(4)
    raw.seek(0)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    told = compression_of(name)
    if told and any(magic.startswith(head) for magic, kind in _MAGIC.items() if kind == told):
        raise StreamError(f"{name} is cut short: it has {len(head)} bytes and no {told} content; write it again")
    return "none"


class _Compressed:
    """The content of a gzip or zstd file; decompressed as it is read, so a bomb stays small."""

    def __init__(self, raw: BinaryIO, kind: str, name: str) -> None:
        import pyarrow as pa

        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), kind)
        self._kind, self._name = kind, name

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            raise StreamError(
                f"{self._name} cannot be decompressed as {self._kind}: {str(error).lower()}; write it again"
            ) from error
        return data


class _Checked:
    """UTF-8 text as it is, without a byte-order mark; other kinds of file are refused."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        head = stream.read(16)
        for magic, kind in _OTHER.items():
            if head.startswith(magic):
                raise StreamError(f"{name} is not UTF-8 text but {kind}")
        self._head: bytes = head.removeprefix(codecs.BOM_UTF8)
        self._mark = len(head) - len(self._head)

    def skip(self, size: int) -> int:
        """Go forward as far as can be done without reading; returns how far that is."""
        if not size or isinstance(self._stream, _Compressed) or not self._stream.seekable():
            return 0
        self._head = b""
        self._stream.seek(self._mark + size)
        return size

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        data: bytes = self._stream.read(size)
        return data


class _Translated:
    """Text of another encoding as UTF-8; what cannot be decoded becomes invalid UTF-8.

    So that the line it stands in is found and set aside later, like any other bad line.
    """

    def __init__(self, stream: Any, encoding: str) -> None:
        codecs.register_error(_NOT_DECODED, _not_decoded)
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_NOT_DECODED)
        self._ready = b""
        self._ended = False

    def skip(self, _size: int) -> int:
        """Nothing: how many bytes the text will have is known by decoding it."""
        return 0

    def read(self, size: int) -> bytes:
        while not self._ready and not self._ended:
            data = self._stream.read(max(size, 4))
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._ready = text.encode("utf-8", "surrogatepass")
        data, self._ready = self._ready[:size], self._ready[size:]
        return data


def _not_decoded(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


def blocks(
    stream: Any,
    cut: Callable[[bytes], int],
    *,
    block_bytes: int,
    record_bytes: int,
    at: int = 0,
    line: int = 1,
    lone_cr: bool = False,
) -> Iterator[Block | Overlong]:
    """Divide a stream into blocks of whole records.

    A block's edges depend only on where it starts, so reading that resumes at a block's end
    gives the same blocks as reading that never stopped.

    Args:
        stream: Has ``read(size)``; stands at its start.
        cut: The index after the last whole record of a block, or -1.
        block_bytes: Size of a block that holds at least one record.
        record_bytes: Records longer than this are set aside; at least ``block_bytes``.
        at: Where to begin: the ``end`` of a block.
        line: Number of the line there.
        lone_cr: Whether a CR without an LF ends a line too.
    """
    source = _Source(stream, at, _LINE_END if lone_cr else _LINE_FEED)
    count = lines_in if lone_cr else _line_feeds
    wanted = block_bytes
    while buffer := source.fill(wanted):
        ended = len(buffer) < wanted
        end = cut(buffer)
        if ended and end < len(buffer):
            end = _last_end(buffer, end, cut)
        if end > 0:
            found: Block | Overlong = Block(buffer[:end], line, source.at + end, line + (count(buffer[:end]) or 1))
            source.drop(end)
        elif not ended and wanted < record_bytes:
            wanted = min(record_bytes, wanted * 4)
            continue
        else:
            found = source.overlong(line, record_bytes, unclosed=ended or b"\n" in buffer)
        yield found
        line, wanted = found.next_line, block_bytes


def _last_end(buffer: bytes, end: int, cut: Callable[[bytes], int]) -> int:
    """The end of the last records of a file, whose last line may have no line end."""
    rest = buffer[max(end, 0) :] + b"\n"
    return len(buffer) if cut(rest) == len(rest) else end


def _line_feeds(data: bytes) -> int:
    return data.count(b"\n")


class _Source:
    """The bytes that come next, with their place in the stream."""

    def __init__(self, stream: Any, at: int, line_end: re.Pattern[bytes]) -> None:
        self._stream, self._buffer, self.at, self._line_end = stream, b"", at, line_end
        left = at - stream.skip(at)
        while left > 0 and (data := stream.read(min(left, _STEP))):
            left -= len(data)

    def fill(self, size: int) -> bytes:
        """The next ``size`` bytes, or all that are left."""
        parts, have = [self._buffer], len(self._buffer)
        while have < size and (data := self._stream.read(size - have)):
            parts.append(data)
            have += len(data)
        self._buffer = b"".join(parts) if len(parts) > 1 else self._buffer
        return self._buffer[:size] if have > size else self._buffer

    def drop(self, size: int) -> None:
        self._buffer = self._buffer[size:]
        self.at += size

    def overlong(self, line: int, limit: int, *, unclosed: bool) -> Overlong:
        """Take one line that is no whole record, keeping only its first bytes."""
        kept, size, end = b"", 0, 0
        while not end and self.fill(_STEP):
            start = self._buffer
            found = self._line_end.search(start)
            end = found.end() if found else 0
            part = start[: end or len(start)]
            kept += part[: max(0, _SHOWN_BYTES - len(kept))]
            size += len(part)
            self.drop(len(part))
        reason = (
            "a quote that opens a cell in this line is never closed"
            if unclosed and size <= limit
            else f"the line has {size:,} bytes, more than record_bytes allows ({limit:,}); only its start is kept"
        )
        return Overlong(kept, line, self.at, line + 1, reason)
