"""A text file as blocks of whole records, whatever its compression and encoding.

A block's edges depend only on where it starts, so that reading which resumes gives the same batches. Where the
records of CSV text begin and end is decided here too, by pure functions of bytes: a quoted cell may hold line ends,
and a block may be cut anywhere.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from attrs import frozen

from muxly.batch import Batch, Rejected
from muxly.errors import StreamError
from muxly_connector_file._source import FileSource

if TYPE_CHECKING:
    import pyarrow as pa


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
    suffix = next((ending for ending in _SUFFIXES if path.lower().endswith(ending)), "")
    return path[: len(path) - len(suffix)]


@frozen
class TextBlock:
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
class OverlongRecord:
    """A record that is longer than the limit; only its first bytes are kept."""

    start: bytes
    line: int
    end: int
    next_line: int
    reason: str


@frozen
class DecodedBlock:
    """What one block of text became: tables in the order of the file, and what was set aside."""

    tables: tuple[pa.Table, ...]
    rejected: tuple[Rejected, ...] = ()

    @classmethod
    def overlong(cls, source: FileSource, record: OverlongRecord) -> Self:
        """No table, and a record that is set aside because it is too long."""
        return cls((), (source.rejected(record.reason, record.start, record.line),))

    def batches(self, cursor: Any, columns: tuple[str, ...] | None) -> Iterator[Batch]:
        """The block as batches; the cursor comes with the last one."""
        tables = [_kept(table, columns) for table in self.tables if table.num_rows]
        for table in tables[:-1]:
            yield Batch(table)
        yield Batch(tables[-1] if tables else None, cursor, rejected=self.rejected)


def _kept(table: pa.Table, columns: tuple[str, ...] | None) -> pa.Table:
    return table if columns is None else table.select([name for name in table.column_names if name in columns])


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
        stream = _DecompressedStream(raw, kind, name)
    if codecs.lookup(encoding).name not in _UTF8:
        return _TranscodedStream(stream, encoding)
    return _Utf8Stream(stream, name)


def _compression(raw: BinaryIO, name: str) -> str:
    head = raw.read(4)
    raw.seek(0)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    expected = compression_of(name)
    if expected and any(magic.startswith(head) for magic, kind in _MAGIC.items() if kind == expected):
        raise StreamError(f"{name} is cut short: it has {len(head)} bytes and no {expected} content; write it again")
    return "none"


class _DecompressedStream:
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


class _Utf8Stream:
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
        if not size or isinstance(self._stream, _DecompressedStream) or not self._stream.seekable():
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


class _TranscodedStream:
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
) -> Iterator[TextBlock | OverlongRecord]:
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
    source = _ByteWindow(stream, at, _LINE_END if lone_cr else _LINE_FEED)
    count = lines_in if lone_cr else _line_feeds
    wanted = block_bytes
    while buffer := source.fill(wanted):
        ended = len(buffer) < wanted
        end = cut(buffer)
        if ended and end < len(buffer):
            end = _last_end(buffer, end, cut)
        if end > 0:
            block: TextBlock | OverlongRecord = TextBlock(
                buffer[:end], line, source.at + end, line + (count(buffer[:end]) or 1)
            )
            source.drop(end)
        elif not ended and wanted < record_bytes:
            wanted = min(record_bytes, wanted * 4)
            continue
        else:
            block = source.overlong(line, record_bytes, unclosed=ended or b"\n" in buffer)
        yield block
        line, wanted = block.next_line, block_bytes


def read_blocks(
    source: FileSource, cut: Callable[[bytes], int], at: int = 0, line: int = 1, *, lone_cr: bool = False
) -> Iterator[TextBlock | OverlongRecord]:
    """The blocks of a file, in the sizes that its options ask for; see ``blocks``."""
    with source.open() as raw:
        yield from blocks(
            open_text(raw, source.name, source.compression, source.encoding),
            cut,
            block_bytes=source.block_bytes,
            record_bytes=max(source.record_bytes, source.block_bytes),
            at=at,
            line=line,
            lone_cr=lone_cr,
        )


def _last_end(buffer: bytes, end: int, cut: Callable[[bytes], int]) -> int:
    """The end of the last records of a file, whose last line may have no line end."""
    rest = buffer[max(end, 0) :] + b"\n"
    return len(buffer) if cut(rest) == len(rest) else end


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 text."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _line_feeds(data: bytes) -> int:
    return data.count(b"\n")


class _ByteWindow:
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

    def overlong(self, line: int, limit: int, *, unclosed: bool) -> OverlongRecord:
        """Take one line that is no whole record, keeping only its first bytes."""
        kept, size, end = b"", 0, 0
        while not end and self.fill(_STEP):
            start = self._buffer
            line_end = self._line_end.search(start)
            end = line_end.end() if line_end else 0
            part = start[: end or len(start)]
            kept += part[: max(0, _SHOWN_BYTES - len(kept))]
            size += len(part)
            self.drop(len(part))
        reason = (
            "a quote that opens a cell in this line is never closed"
            if unclosed and size <= limit
            else f"the line has {size:,} bytes, more than record_bytes allows ({limit:,}); only its start is kept"
        )
        return OverlongRecord(kept, line, self.at, line + 1, reason)


_TRIES = 64


@frozen
class RecordSpan:
    """One record in a block: its bytes without the line end, and the line it starts on, from 0."""

    start: int
    end: int
    line: int


def lines_in(data: bytes) -> int:
    """How many line ends there are; a lone CR is one only in text that has no LF."""
    return data.count(b"\n") or data.count(b"\r")


def last_line_end(block: bytes, start: int = 0, stop: int | None = None) -> int:
    """The index after the last line end, or -1."""
    stop = len(block) if stop is None else stop
    end = block.rfind(b"\n", start, stop)
    if end < 0 and (end := block.rfind(b"\r", start, stop)) == len(block) - 1:
        # The LF that belongs to this CR may follow in the next block.
        end = block.rfind(b"\r", start, end) if end >= 0 else -1
    return end + 1 if end >= 0 else -1


def last_record_end(block: bytes, delimiter: bytes, quote: bytes) -> int:
    """The index after the last complete record of a block that starts with a record, or -1.

    A quote opens a quoted cell only where a cell begins, and is doubled inside one; elsewhere
    it is an ordinary letter (RFC 4180, read as leniently as Arrow does).
    """
    if not quote or quote not in block:
        return last_line_end(block)
    edge = last_line_end(block)
    if edge < 0:
        return -1
    start = _outside(block, edge, delimiter, quote)
    cut = _cut(block, start, delimiter, quote)
    return _cut(block, 0, delimiter, quote) if cut < 0 and start else cut


def _cut(block: bytes, start: int, delimiter: bytes, quote: bytes) -> int:
    """The index after the last record end behind an index that lies outside quotes, or -1."""
    cut, last = -1, start
    for opened, closed in _quoted(block, start, delimiter, quote):
        if (end := last_line_end(block, last, opened)) >= 0:
            cut = end
        if closed < 0:
            return cut
        last = closed
    return max(cut, last_line_end(block, last))


def _outside(block: bytes, edge: int, delimiter: bytes, quote: bytes) -> int:
    """An index late in the block that surely lies outside quotes, inside a cell; else 0.

    A quote between an ordinary letter and something else than a quote ends a quoted cell if
    one is open, and is a letter if none is: either way the bytes after it are outside.
    """
    edges = quote + delimiter + b"\r\n"
    at = edge
    for _ in range(_TRIES):
        at = block.rfind(quote, 0, at)
        if at <= 0:
            return 0
        if block[at - 1] not in edges and block[at + 1 : at + 2] not in {quote, b""}:
            return at + 1
    return 0


def _quoted(block: bytes, start: int, delimiter: bytes, quote: bytes) -> Iterator[tuple[int, int]]:
    """The quoted cells from an index outside quotes on: begin, and end or -1 if never closed."""
    edges = delimiter + b"\r\n"
    at = start
    while (at := block.find(quote, at)) >= 0:
        if at and block[at - 1] not in edges:
            at += 1
            continue
        opened, at = at, _closing(block, at + 1, quote)
        yield opened, at
        if at < 0:
            return


def _closing(block: bytes, at: int, quote: bytes) -> int:
    """The index after the quote that ends a cell, or -1."""
    while (at := block.find(quote, at)) >= 0:
        if block[at + 1 : at + 2] != quote:
            return at + 1
        at += 2
    return -1


def spans(
    block: bytes, delimiter: bytes, quote: bytes, *, blank_lines: bool, most: int = sys.maxsize
) -> list[RecordSpan]:
    """Every record of a block of whole records, in order.

    Args:
        block: Starts with a record.
        delimiter: One byte.
        quote: One byte, or empty = cells are never quoted.
        blank_lines: Whether an empty line is a record.
        most: How many records are wanted.
    """
    record = _record(delimiter, quote)
    newline = b"\n" if b"\n" in block else b"\r"
    records: list[RecordSpan] = []
    start, line = 0, 0
    while start < len(block) and len(records) < most:
        matched = record.match(block, start)
        assert matched is not None
        if matched.end(1) > start or blank_lines:
            records.append(RecordSpan(start, matched.end(1), line))
        line += block.count(newline, start, matched.end())
        start = matched.end()
    return records


@lru_cache(maxsize=16)
def _record(delimiter: bytes, quote: bytes) -> re.Pattern[bytes]:
    edge, mark = re.escape(delimiter), re.escape(quote)
    plain = b"[^%s\r\n]*+" % edge
    cell = b"(?:%(q)s[^%(q)s]*+(?:%(q)s%(q)s[^%(q)s]*+)*+(?:%(q)s|\\Z))?+" % {b"q": mark} + plain if quote else plain
    return re.compile(b"(%s(?:%s%s)*+)(?:\r\n|\n|\r|\\Z)" % (cell, edge, cell))
