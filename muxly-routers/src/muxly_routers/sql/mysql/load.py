"""Records as text that MySQL and MariaDB read: the rows of an INSERT, or the lines of LOAD DATA LOCAL while it runs.

Arrow's kernels make text of whole columns at a time: no value is ever a Python object.

The server answers LOAD DATA LOCAL by asking for a file, and a false server could ask for any. So no file is ever
opened: whatever name comes, the answer is the records that are being loaded; and outside of a load PyMySQL itself
refuses, since its ``local_infile`` is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from attrs import frozen
from pymysql.connections import Connection
from pymysql.constants import COMMAND
from pymysql.protocol import OKPacketWrapper

from muxly_routers.sql.values import content, is_binary, is_text, offsets, slices

__all__ = ["LoadResult", "lines", "load", "parts", "rows", "statement"]

# How much is in memory as text at once.
_PART_ROWS = 16_384
_PART_BYTES = 4 * 1024 * 1024

# LOAD DATA and a quoted literal both decode these; the backslash comes first.
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"))
_TEXT = pa.large_string()


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices that are small as text."""
    return slices(batch, most_records=_PART_ROWS, most_bytes=_PART_BYTES)


def lines(part: pa.RecordBatch) -> pa.Buffer:
    r"""The records as LOAD DATA reads them by default: tabs, line feeds, ``\N`` for null.

    Args:
        part: At least one record, of plain columns; binary ones are written as hexadecimal.
    """
    inner = _joined([_escaped(column) for column in part.columns], "\t", null="\\N")
    return content(_enclosed("", inner, "\n"))


def rows(part: pa.RecordBatch) -> pa.Buffer:
    """The records as the rows after VALUES, each value a quoted literal.

    Args:
        part: As for ``lines``.
    """
    inner = _joined([_literal(column) for column in part.columns], ",", null="NULL")
    text = content(_enclosed("(", inner, "),"))
    return text.slice(0, text.size - 1)


def _joined(texts: list[pa.Array], separator: str, *, null: str) -> pa.Array:
    return pc.binary_join_element_wise(
        *texts, pa.scalar(separator, _TEXT), null_handling="replace", null_replacement=null
    )


def _escaped(column: pa.Array) -> pa.Array:
    text = _text(column)
    if is_text(column.type):
        # Most columns hold none of them, and searching the bytes costs next to nothing.
        searched = bytes(content(text))
        for special, escaped in _ESCAPES:
            if special.encode() in searched:
                text = pc.replace_substring(text, special, escaped)
    return text


def _literal(column: pa.Array) -> pa.Array:
    text = _escaped(column)
    if is_text(column.type):
        text = pc.replace_substring(text, "'", "\\'")
    return _enclosed("x'" if is_binary(column.type) else "'", text, "'")


def _enclosed(before: str, text: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(before, _TEXT), text, pa.scalar(after, _TEXT), pa.scalar("", _TEXT))


def _text(column: pa.Array) -> pa.Array:
    """The values as MySQL takes them for the type of their column."""
    type = column.type
    if pa.types.is_boolean(type):
        return column.cast(pa.int8()).cast(_TEXT)
    if pa.types.is_timestamp(type):
        return column.cast(pa.timestamp(type.unit)).cast(_TEXT)
    return _hexadecimal(column.cast(pa.large_binary())) if is_binary(type) else column.cast(_TEXT)


def _hexadecimal(column: pa.Array) -> pa.Array:
    bounds = offsets(column)
    digits = bytes(content(column)).hex().encode()
    doubled = pc.multiply(pc.subtract(bounds, bounds[0]), pa.scalar(2, pa.int64()))
    plain = pa.Array.from_buffers(_TEXT, len(column), [None, doubled.buffers()[1], pa.py_buffer(digits)])
    return pc.if_else(column.is_valid(), plain, pa.scalar(None, _TEXT))


@frozen
class LoadResult:
    """The server's answer to a load.

    Args:
        records: How many it accepted.
        warnings: How many warnings it has.
    """

    records: int
    warnings: int


def statement(table: str, names: list[str], schema: pa.Schema) -> str:
    """The statement that makes the server ask for lines; binary columns come as hexadecimal, through a variable.

    Args:
        table: The table as it stands in SQL.
        names: Its columns as they stand in SQL, in the order of the schema.
        schema: Of the records.
    """
    binary = [is_binary(field.type) for field in schema]
    fields = [f"@v{number}" if binary[number] else name for number, name in enumerate(names)]
    assigned = [f"{name} = UNHEX(@v{number})" for number, name in enumerate(names) if binary[number]]
    settings = f" SET {', '.join(assigned)}" if assigned else ""
    return f"LOAD DATA LOCAL INFILE 'muxly' INTO TABLE {table} CHARACTER SET utf8mb4 ({', '.join(fields)}){settings}"


def load(connection: Connection[Any], sql: str, packets: Iterator[memoryview]) -> LoadResult:
    """Run a statement that ``statement`` made, and send these packets.

    PyMySQL can only send a file, so this uses its internal methods. After an error the exchange is ended, so that
    the connection can take a rollback; after an interruption it is cut.
    """
    wire: Any = connection
    wire._execute_command(COMMAND.COM_QUERY, sql)
    if not wire._read_packet().is_load_local_packet():
        wire._force_close()
        raise pymysql.InternalError(2027, "the server answered LOAD DATA with something other than a request")
    try:
        for packet in packets:
            wire.write_packet(packet)
    except Exception:
        if connection.open:
            # The lines sent so far are accepted, and removed when the transaction is rolled back.
            _end_load(wire)
        raise
    except BaseException:
        wire._force_close()
        raise
    return _end_load(wire)


def _end_load(wire: Any) -> LoadResult:
    """End the lines, and read the server's answer."""
    wire.write_packet(b"")
    answer: Any = OKPacketWrapper(wire._read_packet())
    wire.server_status = answer.server_status
    return LoadResult(answer.affected_rows, answer.warning_count)
