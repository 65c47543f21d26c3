"""CSV as RFC 4180 describes it: quotes only where they are needed, doubled inside.

Lists, objects and maps are written as JSON, bytes as hexadecimal, times as ISO 8601.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

import muxly
from muxly_routers._formats import jsonl

if TYPE_CHECKING:
    from muxly_routers._formats.encoding import Encoding

__all__ = ["lines"]

# What spreadsheets take for a formula: a sign that starts one, also behind white space or quotes and
# in its full-width form, or a tab or line end at the very front (OWASP, CSV injection).
_FORMULA = r"""^[\s"']*[=+\-@|%\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]|^[\t\r\n]"""
_NUMBER = r"^[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?$"
_JSON_NAME = "v"
_BEFORE_JSON = len('{"v":')


def lines(part: pa.RecordBatch, encoding: Encoding, *, header: bool) -> bytes:
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
    # Every second piece lies outside quotes; a doubled quote only adds an empty piece.
    pieces = written.split(b'"')
    pieces[::2] = [piece.replace(b"\n", b"\r\n") for piece in pieces[::2]]
    return b'"'.join(pieces)


def _flat(part: pa.RecordBatch) -> pa.RecordBatch:
    if not any(pa.types.is_nested(field.type) for field in part.schema):
        return part
    columns = [_as_json(column) if pa.types.is_nested(column.type) else column for column in part.columns]
    return pa.RecordBatch.from_arrays(columns, names=part.schema.names)


def _as_json(column: pa.Array) -> pa.Array:
    """A nested column as JSON text, cut out of lines of one value each."""
    if not len(column):
        return pa.array([], pa.large_string())
    written = bytes(jsonl.lines(pa.RecordBatch.from_arrays([column], names=[_JSON_NAME])))
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
