"""LOAD DATA LOCAL, from lines that are made while they are sent.

The server answers that statement by asking for a file, and a false server could ask for any. So no file
is ever opened: whatever name comes, the answer is the records that are being loaded; and outside of a
load PyMySQL itself refuses, for its ``local_infile`` is off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pymysql
from attrs import frozen
from pymysql.constants import COMMAND
from pymysql.protocol import OKPacketWrapper

from muxly_routers.sql.mysql import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pymysql.connections import Connection

__all__ = ["Answer", "load", "statement"]


@frozen
class Answer:
    """What the server says of a load.

    Args:
        records: How many it took.
        warnings: How many warnings it has.
    """

    records: int
    warnings: int


def statement(table: str, names: list[str], schema: pa.Schema) -> str:
    """What has the server ask for lines; binary columns come as hexadecimal, by way of a variable.

    Args:
        table: The table as it stands in SQL.
        names: Its columns as they stand in SQL, in the order of the schema.
        schema: Of the records.
    """
    binary = [text.is_binary(field.type) for field in schema]
    fields = [f"@v{number}" if binary[number] else name for number, name in enumerate(names)]
    made = [f"{name} = UNHEX(@v{number})" for number, name in enumerate(names) if binary[number]]
    settings = f" SET {', '.join(made)}" if made else ""
    return f"LOAD DATA LOCAL INFILE 'muxly' INTO TABLE {table} CHARACTER SET utf8mb4 ({', '.join(fields)}){settings}"


def load(connection: Connection[Any], sql: str, packets: Iterator[memoryview]) -> Answer:
    """Run a statement that ``statement`` made, and send these packets.

    PyMySQL can only send a file, so this speaks to the server by the parts that PyMySQL is made of.
    """
    wire: Any = connection
    wire._execute_command(COMMAND.COM_QUERY, sql)
    if not wire._read_packet().is_load_local_packet():
        wire._force_close()
        raise pymysql.InternalError(2027, "the server answered LOAD DATA with something else than a request")
    try:
        for packet in packets:
            wire.write_packet(packet)
    except Exception:
        if connection.open:
            # What was sent so far is taken in, and goes when the transaction is rolled back.
            _ended(wire)
        raise
    except BaseException:
        wire._force_close()
        raise
    return _ended(wire)


def _ended(wire: Any) -> Answer:
    """End the lines, and read what the server says of them."""
    wire.write_packet(b"")
    said: Any = OKPacketWrapper(wire._read_packet())
    wire.server_status = said.server_status
    return Answer(said.affected_rows, said.warning_count)
