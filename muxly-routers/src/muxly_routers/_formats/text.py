"""Records as text: JSON Lines and CSV, compressed or not.

JSON Lines are UTF-8, one object a line, every column in every object. Numbers are exact, decimals too; NaN and
infinity become null, since JSON has no text for them; bytes are hexadecimal; times are ISO 8601, with Z where they
have a time zone; durations are ISO 8601.

CSV is as RFC 4180 describes it: quotes only where they are needed, doubled inside. Lists, objects and maps are
written as JSON, bytes as hexadecimal, times as ISO 8601.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import muxly
from muxly_routers._formats import columns
from muxly_routers._formats.encoding import Encoding, Sink

__all__ = ["TextEncoder", "compressing", "csv_lines", "jsonl_lines"]

# What is turned into text at a time: a large batch never stands in memory a second time, and the other
# threads, whose turn comes only between two parts because arro3 holds the GIL, never wait long.
_PART_ROWS = 8_192
_PART_BYTES = 8 * 1024 * 1024


class TextEncoder:
    """Writes each batch as lines, a part at a time."""

    pending_bytes = 0

    def __init__(self, encoding: Encoding, schema: pa.Schema, sink: Sink) -> None:
        self._encoding = encoding
        self._conversion = columns.conversion(schema, encoding.format)
        self._sink = compressing(encoding, sink)
        self._begun = False
        self.nonfinite = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the batch as lines."""
        rows = max(1, min(_PART_ROWS, columns.rows_within(batch, _PART_BYTES)))
        for start in range(0, batch.num_rows, rows):
            self._write_part(self._conversion.apply(batch.slice(start, rows)))

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """End the compressed stream."""
        self._sink.finish()

    def _write_part(self, part: pa.RecordBatch) -> None:
        for name, column in zip(part.schema.names, part.columns, strict=True):
            for place, leaf in columns.leaves(name, column):
                self._check_leaf(place, leaf, inside=place != name)
        if self._encoding.format == "jsonl":
            self._sink.write(jsonl_lines(part))
        else:
            header = self._encoding.header and not self._begun
            self._sink.write(csv_lines(part, self._encoding, header=header))
        self._begun = True

    def _check_leaf(self, place: str, leaf: pa.Array, *, inside: bool) -> None:
        kind = leaf.type
        if pa.types.is_floating(kind):
            # CSV itself has a text for them, the JSON inside of it has none.
            if inside or self._encoding.format == "jsonl":
                self.nonfinite += pc.sum(pc.invert(pc.is_finite(leaf))).as_py() or 0
        elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            columns.check_years(place, leaf)


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


def jsonl_lines(part: pa.RecordBatch) -> bytes:
    """The records as lines, each with its line end.

    Raises:
        RejectedError: A value has no form in JSON.
    """
    import arro3.io

    out = io.BytesIO()
    try:
        arro3.io.write_ndjson(part, out, explicit_nulls=True)
    except Exception as error:
        raise muxly.RejectedError(f"jsonl cannot hold a value: {error}") from error
    return out.getvalue()


# What spreadsheets take for a formula: a sign that starts one, also behind white space or quotes and
# in its full-width form, or a tab or line end at the very front (OWASP, CSV injection).
_FORMULA = r"""^[\s"']*[=+\-@|%\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]|^[\t\r\n]"""
_NUMBER = r"^[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?$"
_JSON_NAME = "v"
_BEFORE_JSON = len('{"v":')


def csv_lines(part: pa.RecordBatch, encoding: Encoding, *, header: bool) -> bytes:
    """The records as lines, each with its line end.

    Args:
        part: Records in types that CSV holds.
        encoding: The settings.
        header: Whether the column names come first.

    Raises:
        RejectedError: A value has no form in CSV.
    """
    import arro3.io

    ready = _flat(part)
    if encoding.excel_safe:
        ready = _without_formulas(ready)
    out = io.BytesIO()
    try:
        arro3.io.write_csv(ready, out, header=header, delimiter=encoding.delimiter, null=encoding.null)
    except Exception as error:
        raise muxly.RejectedError(f"csv cannot hold a value: {error}") from error
    written = out.getvalue()
    return written if encoding.line_end == b"\n" else _with_crlf(written)


def _with_crlf(written: bytes) -> bytes:
    """The same lines ended by CRLF; line ends inside quotes belong to the value and stay."""
    if b'"' not in written:
        return written.replace(b"\n", b"\r\n")
    # Every second part lies outside quotes; a doubled quote only adds an empty part.
    parts = written.split(b'"')
    parts[::2] = [part.replace(b"\n", b"\r\n") for part in parts[::2]]
    return b'"'.join(parts)


def _flat(part: pa.RecordBatch) -> pa.RecordBatch:
    if not any(pa.types.is_nested(field.type) for field in part.schema):
        return part
    columns = [_as_json(column) if pa.types.is_nested(column.type) else column for column in part.columns]
    return pa.RecordBatch.from_arrays(columns, names=part.schema.names)


def _as_json(column: pa.Array) -> pa.Array:
    """A nested column as JSON text, cut out of lines of one value each."""
    if not len(column):
        return pa.array([], pa.large_string())
    written = bytes(jsonl_lines(pa.RecordBatch.from_arrays([column], names=[_JSON_NAME])))
    whole = pa.array([written[:-1]], pa.large_binary())
    rows = pc.split_pattern(whole, b"\n").values
    text = pc.binary_slice(rows, _BEFORE_JSON, -1).cast(pa.large_string())
    return pc.if_else(column.is_null(), pa.scalar(None, pa.large_string()), text)


def _without_formulas(part: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_harmless(column) for column in part.columns]
    names = _harmless(pa.array(part.schema.names, pa.string())).to_pylist()
    return pa.RecordBatch.from_arrays(columns, names=names)


def _harmless(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_string_view(kind):
        column = column.cast(pa.large_string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column
    risky = pc.and_not(pc.match_substring_regex(column, _FORMULA), pc.match_substring_regex(column, _NUMBER))
    if not pc.any(risky).as_py():
        return column
    marked = pc.binary_join_element_wise(pa.scalar("'", column.type), column, pa.scalar("", column.type))
    return pc.if_else(risky, marked, column)
