"""JSON Lines files to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from attrs import frozen

from muxly.batch import Batch, Rejected
from muxly_connector_file import _json_values, _types
from muxly_connector_file._source import FileSource
from muxly_connector_file._text import DecodedBlock, OverlongRecord, TextBlock, read_blocks

DEPTH = 50
"""Brackets within brackets: Arrow files hold 64 levels, and Arrow's own parser crashes on many thousand."""
_MOST_RUNS = 32
_EXACT_FLOAT = 2.0**53
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[{\n"))
_REFUSED = (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)


def read_jsonl(source: FileSource, cursor: Any) -> Iterator[Batch]:
    """The records of a JSON Lines file from a cursor on: ``{"byte": ..., "line": ...}``."""
    at, line = (cursor["byte"], cursor["line"]) if cursor else (0, 1)
    head: pa.Schema | None = None
    for block in read_blocks(source, _last_line_end, at, line):
        if head is None:
            head = _head(source, block)
        decoded = (
            DecodedBlock.overlong(source, block) if isinstance(block, OverlongRecord) else decode(source, head, block)
        )
        yield from decoded.batches({"byte": block.end, "line": block.next_line}, source.columns)


def _last_line_end(block: bytes) -> int:
    """The index after the last line; a CR alone is white space inside an object."""
    return block.rfind(b"\n") + 1 or -1


def _head(source: FileSource, first: TextBlock | OverlongRecord) -> pa.Schema:
    """The types of the file's first block, by which the later ones are read.

    They depend on the file's beginning alone, so that reading that resumes gives the same batches.
    """
    if first.line > 1:
        again = next(read_blocks(source, _last_line_end), None)
        first = again if again is not None else first
    expected = pa.schema([pa.field(name, _native(kind)) for name, kind in source.types.items()])
    table = None if isinstance(first, OverlongRecord) else _fast(first.data, expected)
    if table is None:
        return expected
    return pa.schema([column for column in table.schema if not _has_null(column.type)])


def _native(kind: pa.DataType) -> pa.DataType:
    """The type to read a given type as: one that JSON itself can tell."""
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return kind
    return pa.float64() if pa.types.is_floating(kind) else pa.string()


def _has_null(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(_has_null(kind.field(n).type) for n in range(kind.num_fields))


def decode(source: FileSource, head: pa.Schema, block: TextBlock) -> DecodedBlock:
    """One block of lines as tables.

    First as the head of the file was; then with the types that this block suggests; then
    line by line, so that only the bad ones are set aside.
    """
    given = pa.schema([column for column in head if column.name in source.types])
    table = _fast(block.data, head)
    if table is None and len(head) > len(given):
        table = _fast(block.data, given)
    if table is not None:
        typed, bad = _given(source, table)
        if not bad:
            return DecodedBlock((typed,))
    return _LineByLine(source, block).decoded()


def _fast(data: bytes, expected: pa.Schema) -> pa.Table | None:
    """A block by Arrow's own parser; None if it refuses or might change a value."""
    # Arrow's parser crashes on deep nesting and on a null in place of the first object.
    records = _records_in(data)
    if records <= 0 or _deep(data):
        return None
    try:
        table = _parsed(data, expected)
        dated = pa.schema([column.with_type(_untimed(column.type)) for column in table.schema])
        if dated != table.schema:
            table = _parsed(data, dated)
        # Arrow lets text through that is not UTF-8, and makes broken lists of nulls.
        table.validate(full=True)
    except _REFUSED:
        return None
    if table.num_rows != records or any(_inexact(column) for column in table.columns):
        return None
    return table


def _parsed(data: bytes, expected: pa.Schema) -> pa.Table:
    return pa.json.read_json(
        pa.BufferReader(data),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=expected, unexpected_field_behavior="infer"),
    )


def _deep(data: bytes) -> bool:
    """Whether a line may have more brackets within brackets than can be read safely."""
    opening = data.translate(None, _NOT_BRACKETS)
    if len(opening) <= DEPTH:
        return False
    lines = set(opening.split(b"\n"))
    if max(map(len, lines)) <= DEPTH:
        return False
    return any(depth_of(line) > DEPTH for line in data.split(b"\n"))


def depth_of(line: bytes) -> int:
    """How many brackets stand open at once at most, letters in strings left out."""
    if line.count(b"[") + line.count(b"{") <= DEPTH:
        return 0
    depth = deepest = 0
    quoted = False
    letters = iter(line)
    for letter in letters:
        if letter == 0x22:
            quoted = not quoted
        elif quoted:
            if letter == 0x5C:
                next(letters, None)
        elif letter in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in b"]}":
            depth -= 1
    return deepest


def _records_in(data: bytes) -> int:
    """How many records the lines hold; -1 if a line cannot be one, such as ``null``."""
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if data.count(b"\n{") + data.startswith(b"{") == lines:
        return lines
    filled = [line for line in map(bytes.strip, data.split(b"\n")) if line]
    return len(filled) if all(line.startswith(b"{") for line in filled) else -1


def _untimed(kind: pa.DataType) -> pa.DataType:
    """The type with text in place of times: text in JSON stays text unless a type is given."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_untimed(field.type)) for field in kind])
    return pa.list_(_untimed(kind.value_type)) if pa.types.is_list(kind) else kind


def _inexact(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether a number may have been an integer that a float cannot hold."""
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.any(pc.greater_equal(pc.abs(column), _EXACT_FLOAT)).as_py() is True
    if not pa.types.is_nested(kind):
        return False
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = (part for chunk in chunks for part in (chunk.flatten() if pa.types.is_struct(kind) else [chunk.flatten()]))
    return any(map(_inexact, parts))


def _given(source: FileSource, table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """Convert columns with a given type; also says which records do not fit, and why."""
    bad: dict[int, str] = {}
    for name, kind in source.types.items():
        index = table.schema.get_field_index(name)
        if index < 0 or table.schema.field(index).type == kind:
            continue
        column = table.column(index).combine_chunks()
        if pa.types.is_floating(kind):
            converted = _types.ConvertedColumn(column.cast(kind, safe=False))
        else:
            converted = _types.convert(column.cast(pa.string()), kind, given=True)
        if converted.misfits is not None:
            for row in pc.indices_nonzero(converted.misfits).to_pylist():
                bad.setdefault(row, _types.misfit_reason(name, column[row].as_py(), kind))
        table = table.set_column(index, name, converted.values)
    return table, bad


@frozen(eq=False)
class _LineByLine:
    """A block line by line."""

    source: FileSource
    block: TextBlock

    def decoded(self) -> DecodedBlock:
        """All good lines as tables, in order, and all bad lines."""
        records, lines, rejected = self._parsed()
        tables: list[pa.Table] = []
        first = 0
        for kind, part in _json_values.runs([self._texts(record) for record in records], _MOST_RUNS):
            arrays = {
                key: pa.array([record.get(key) for record in part], _json_values.arrow_type(key_kind))
                for key, key_kind in kind.keys
            }
            table = pa.table(arrays) if arrays else pa.table({"_": pa.nulls(len(part))}).select([])
            typed, bad = _given(self.source, table)
            if bad:
                typed = typed.filter(pa.array([row not in bad for row in range(len(part))]))
                rejected += [(lines[first + row], why) for row, why in bad.items()]
            tables.append(typed)
            first += len(part)
        return DecodedBlock(tuple(tables), self._set_aside(rejected))

    def _parsed(self) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
        records, lines, rejected = [], [], []
        for number, line in enumerate(self.block.data.split(b"\n")):
            if not line.strip():
                continue
            try:
                if depth_of(line) > DEPTH:
                    raise ValueError(f"more than {DEPTH} brackets within brackets")  # noqa: TRY301
                records.append(_json_values.parse(line))
                lines.append(number)
            except ValueError as error:
                rejected.append((number, str(error)))
        return records, lines, rejected

    def _texts(self, record: dict[str, Any]) -> Mapping[str, Any]:
        """Values of columns with a given type as text, so that their kinds go together."""
        if not self.source.types:
            return record
        return {
            key: _json_values.as_text(value) if key in self.source.types else value for key, value in record.items()
        }

    def _set_aside(self, rejected: list[tuple[int, str]]) -> tuple[Rejected, ...]:
        if not rejected:
            return ()
        lines = self.block.data.split(b"\n")
        return tuple(self.source.rejected(why, lines[n], self.block.line + n) for n, why in sorted(rejected))
