"""CSV files to batches."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from attrs import frozen

from muxly.batch import Batch, Rejected
from muxly.component import Notice
from muxly.errors import StreamError
from muxly_connector_file import _text, _types
from muxly_connector_file._source import FileSource
from muxly_connector_file._text import DecodedBlock, OverlongRecord, TextBlock, is_utf8, last_record_end, read_blocks

_MOST_RUNS = 32
_MOST_COLUMNS = 65_536
_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}
"""What often stands between cells, each as it is written in a configuration."""


@frozen
class CsvHead:
    """What the beginning of a file tells: the columns, their types, and where records begin.

    The types depend on nothing else, so that reading that resumes gives the same batches.
    """

    names: tuple[str, ...]
    kinds: tuple[pa.DataType, ...]
    at: int
    line: int


def read_csv(source: FileSource, cursor: Any) -> Iterator[Batch]:
    """The records of a CSV file from a cursor on: ``{"byte": ..., "line": ...}``."""
    head = _head(source)
    if head is None:
        source.notice(Notice("empty_file", f"{source.name} is empty: it has not even a header", level="info"))
        return
    at, line = (cursor["byte"], cursor["line"]) if cursor else (head.at, head.line)
    for block in _blocks(source, at, line):
        decoded = (
            DecodedBlock.overlong(source, block) if isinstance(block, OverlongRecord) else decode(source, head, block)
        )
        yield from decoded.batches({"byte": block.end, "line": block.next_line}, source.columns)


def _blocks(source: FileSource, at: int = 0, line: int = 1) -> Iterator[TextBlock | OverlongRecord]:
    dialect = source.dialect
    cut = partial(last_record_end, delimiter=dialect.delimiter, quote=dialect.quote)
    return read_blocks(source, cut, at, line, lone_cr=True)


def _head(source: FileSource) -> CsvHead | None:
    dialect = source.dialect
    first = next(_blocks(source), None)
    if first is None:
        return None
    if isinstance(first, OverlongRecord):
        raise StreamError(f"{source.place(1)}: {first.reason}; is this a CSV file? It has no header")
    at, skipped = 0, 0
    names = list(dialect.columns)
    if dialect.header or not names:
        record = _first_record(source, first.data)
        cells = _cells(source, first.data[record.start : record.end])
        _warn_of_delimiter(source, cells)
        names = names or (cells if dialect.header else [f"column_{n + 1}" for n in range(len(cells))])
        if dialect.header:
            at, skipped = _after(first.data, record.end), _lines(first.data, record.end)
    names = _unique(source, names)
    body = TextBlock(first.data[at:], 1 + skipped, first.end, first.next_line)
    return CsvHead(tuple(names), tuple(_kinds(source, names, body)), at, body.line)


def _first_record(source: FileSource, block: bytes) -> _text.RecordSpan:
    dialect = source.dialect
    start = len(block) - len(block.lstrip(b"\r\n"))
    spans = _text.spans(block[start:], dialect.delimiter, dialect.quote, blank_lines=False, most=1)
    if not spans:
        raise StreamError(f"{source.name} has only empty lines; a CSV file starts with a header")
    return _text.RecordSpan(start + spans[0].start, start + spans[0].end, 0)


def _after(block: bytes, end: int) -> int:
    return end + (2 if block[end : end + 2] == b"\r\n" else 1)


def _lines(block: bytes, end: int) -> int:
    return _text.lines_in(block[: _after(block, end)])


def _cells(source: FileSource, record: bytes) -> list[str]:
    """The cells of one record, as text."""
    try:
        record.decode()
    except UnicodeDecodeError as error:
        raise StreamError(
            f"{source.place(1)}: the header is not {source.encoding} text (byte {error.start}); "
            "set encoding to the one the file is written in"
        ) from None
    if b"\0" in record:
        raise StreamError(f"{source.place(1)}: the header holds NUL bytes; this is not a CSV file")
    read_options = pa.csv.ReadOptions(autogenerate_column_names=True, use_threads=False, block_size=len(record) + 2)
    convert = pa.csv.ConvertOptions(default_column_type=pa.string())
    table = pa.csv.read_csv(
        pa.BufferReader(record + b"\n"),
        read_options=read_options,
        parse_options=_parse_options(source, one_column=False),
        convert_options=convert,
    )
    if table.num_columns > _MOST_COLUMNS:
        raise StreamError(
            f"{source.place(1)}: the header has {table.num_columns:,} columns; {_MOST_COLUMNS:,} are read"
        )
    return [column[0].as_py() for column in table.columns]


def _warn_of_delimiter(source: FileSource, cells: Sequence[str]) -> None:
    """Warn of a first record of one cell that looks as if another letter stood between its cells."""
    count, letter = max((cells[0].count(letter), letter) for letter in _DELIMITERS) if len(cells) == 1 else (0, "")
    if not count or letter == source.dialect.delimiter.decode():
        return
    option = f'csv: {{delimiter: "{_DELIMITERS[letter]}"}}'
    message = (
        f"{source.name} is read as one column, but looks as if {letter!r} separates its cells; if so, set {option}"
    )
    source.notice(Notice("delimiter", message, facts={"file": source.name, "delimiter": letter}))


def _unique(source: FileSource, names: Sequence[str]) -> list[str]:
    """Names that differ: an empty one is numbered, a repeated one gets a number behind it."""
    unique: list[str] = []
    taken = set(names)
    seen: Counter[str] = Counter()
    for number, name in enumerate(names, 1):
        seen[name] += 1
        new = name or f"column_{number}"
        while (seen[name] > 1 or not name) and new in taken:
            new, seen[name] = f"{name or 'column'}_{seen[name]}", seen[name] + 1
        taken.add(new)
        unique.append(new)
    changed = {new: name for new, name in zip(unique, names, strict=True) if new != name}
    if changed:
        shown = ", ".join(f"{name!r} as {new!r}" for new, name in list(changed.items())[:5])
        message = f"{source.name} names columns twice or not at all; they are read under new names: {shown}"
        source.notice(Notice("columns_renamed", message, facts={"columns": changed}))
    return unique


def _parse_options(source: FileSource, *, one_column: bool, on_row: Any = None) -> pa.csv.ParseOptions:
    dialect = source.dialect
    return pa.csv.ParseOptions(
        delimiter=dialect.delimiter.decode(),
        quote_char=dialect.quote.decode() or False,
        newlines_in_values=True,
        # In a file of one column an empty line is a null.
        ignore_empty_lines=not one_column,
        invalid_row_handler=on_row,
    )


def _kinds(source: FileSource, names: Sequence[str], body: TextBlock) -> Iterator[pa.DataType]:
    table = _CsvRows.of(source, names, body).table
    for name, column in zip(names, table.columns, strict=True):
        yield source.types.get(name) or _types.infer(column.combine_chunks())


def decode(source: FileSource, head: CsvHead, block: TextBlock) -> DecodedBlock:
    """One block of records as typed tables."""
    rows = _CsvRows.of(source, head.names, block)
    columns, misfits = {}, {}
    reasons: dict[int, str] = {}
    for name, kind, column in zip(head.names, head.kinds, rows.table.columns, strict=True):
        text = column.combine_chunks()
        given = name in source.types
        unknown = pa.types.is_null(kind) and not given
        converted = _types.convert(text, _types.infer(text) if unknown else kind, given=given)
        columns[name] = converted.values
        if converted.misfits is not None and given:
            _explain(reasons, name, kind, text, converted.misfits)
        elif converted.misfits is not None:
            misfits[name] = converted.misfits
    keep = _keep(rows.table.num_rows, reasons)
    table = pa.table(columns) if columns else rows.table
    tables = _divided(rows.table, table, misfits, keep) if misfits else [table.filter(keep) if reasons else table]
    return DecodedBlock(tuple(tables), rows.set_aside(reasons))


def _explain(reasons: dict[int, str], name: str, kind: pa.DataType, text: pa.Array, misfits: pa.Array) -> None:
    for index in pc.indices_nonzero(misfits).to_pylist():
        reasons.setdefault(index, _types.misfit_reason(name, text[index].as_py(), kind))


def _keep(length: int, reasons: dict[int, str]) -> pa.BooleanArray:
    return pa.array([index not in reasons for index in range(length)]) if reasons else pa.array([True] * length)


def _divided(
    text: pa.Table, typed: pa.Table, misfits: dict[str, pa.Array], keep: pa.BooleanArray
) -> Iterator[pa.Table]:
    """Records whose values have another type than the file's head apart from the others.

    The order of the records stays, so there may be many parts; if there are too many, the
    columns concerned take a type that holds all values of the block.
    """
    edges = _edges(misfits)
    if len(edges) > _MOST_RUNS:
        yield _retyped(typed, text, misfits).filter(keep)
        return
    for start, end in itertools.pairwise(edges):
        wrong = [name for name, mask in misfits.items() if mask[start].as_py()]
        part = _retyped(typed[start:end], text[start:end], wrong) if wrong else typed[start:end]
        yield part.filter(keep[start:end])


def _retyped(typed: pa.Table, text: pa.Table, names: Any) -> pa.Table:
    for name in names:
        column = text[name].combine_chunks()
        kind = _types.infer(column)
        values = _types.convert(column, kind, given=False).values
        typed = typed.set_column(typed.column_names.index(name), name, values)
    return typed


def _edges(misfits: dict[str, pa.Array]) -> list[int]:
    """The indices at which another set of columns begins not to fit, with both ends."""
    length = len(next(iter(misfits.values())))
    edges = {0, length}
    for mask in misfits.values():
        numbers = mask.cast(pa.int8())
        edges.update(index + 1 for index in pc.indices_nonzero(pc.not_equal(numbers[1:], numbers[:-1])).to_pylist())
    return sorted(edges)


@frozen(eq=False)
class _CsvRows:
    """The cells of a block as columns of text, with a way back to the lines.

    Args:
        table: One text column per name.
        source: The file.
        block: The block, or what is left of it without text that is not UTF-8.
        ragged: Records with another number of cells, by their number in the block.
        lines: Line numbers of what is left, if lines were taken out.
        rejected: What was taken out before, each with its line.
    """

    table: pa.Table
    source: FileSource
    block: TextBlock
    ragged: dict[int, int]
    width: int
    records: tuple[tuple[bytes, int], ...] | None
    rejected: tuple[tuple[int, Rejected], ...]

    @classmethod
    def of(cls, source: FileSource, names: Sequence[str], block: TextBlock) -> _CsvRows:
        data = block.data
        records: tuple[tuple[bytes, int], ...] | None = None
        rejected: tuple[tuple[int, Rejected], ...] = ()
        if not is_utf8(data):
            records, rejected = _apart(source, block, one_column=len(names) == 1)
            data = b"\n".join(record for record, _line in records) + b"\n" if records else b""
        ragged: dict[int, int] = {}

        def on_row(row: Any) -> str:
            ragged[row.number - 1] = row.actual_columns
            return "skip"

        table = _parsed(source, names, data, on_row)
        return cls(table, source, block, ragged, len(names), records, rejected)

    def set_aside(self, reasons: dict[int, str]) -> tuple[Rejected, ...]:
        """Everything of the block that is in no table, in the order of the file.

        Args:
            reasons: Why, by row of the table.
        """
        if not self.ragged and not reasons:
            return tuple(record for _line, record in self.rejected)
        records = self.records or _all_records(self.source, self.block, one_column=self.width == 1)
        kept = (number for number in range(len(records)) if number not in self.ragged)
        why = {number: reasons[row] for row, number in enumerate(kept) if row in reasons}
        for number, cells in self.ragged.items():
            why[number] = f"{cells:,} {'cell' if cells == 1 else 'cells'} where {self.width:,} columns are expected"
        more = [(records[number][1], self.source.rejected(why[number], *records[number])) for number in sorted(why)]
        return tuple(record for _line, record in sorted((*self.rejected, *more), key=lambda each: each[0]))


def _parsed(source: FileSource, names: Sequence[str], data: bytes, on_row: Any) -> pa.Table:
    if not data:
        return pa.table({name: pa.array([], pa.string()) for name in names})
    return pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(data) + 1),
        parse_options=_parse_options(source, one_column=len(names) == 1, on_row=on_row),
        convert_options=pa.csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=list(source.dialect.null_values),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _all_records(source: FileSource, block: TextBlock, *, one_column: bool) -> tuple[tuple[bytes, int], ...]:
    dialect = source.dialect
    spans = _text.spans(block.data, dialect.delimiter, dialect.quote, blank_lines=one_column)
    return tuple((block.data[span.start : span.end], block.line + span.line) for span in spans)


def _apart(
    source: FileSource, block: TextBlock, *, one_column: bool
) -> tuple[tuple[tuple[bytes, int], ...], tuple[tuple[int, Rejected], ...]]:
    """The records that are UTF-8, and those that are not, each with its line."""
    good, bad = [], []
    why = f"not {source.encoding} text; set encoding to the one the file is written in"
    for record, line in _all_records(source, block, one_column=one_column):
        if is_utf8(record):
            good.append((record, line))
        else:
            bad.append((line, source.rejected(why, record, line)))
    return tuple(good), tuple(bad)
