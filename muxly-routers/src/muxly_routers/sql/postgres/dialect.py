"""The dialect of PostgreSQL.

=====================================  ================================================
Arrow type                             column type
=====================================  ================================================
bool                                   boolean
int8, int16, int32, int64              smallint, smallint, integer, bigint
uint8, uint16, uint32, uint64          smallint, integer, bigint, numeric(20,0)
float16, float32, float64              real, real, double precision
decimal                                numeric
string                                 text
binary                                 bytea
date                                   date
timestamp                              timestamp without, or with, time zone
time                                   time without time zone
duration                               interval
list, struct, map                      jsonb
=====================================  ================================================
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from sqlalchemy import URL

from muxly_routers._failures import needs
from muxly_routers.sql import values
from muxly_routers.sql.dialect import (
    SEQUENCE,
    Column,
    ColumnType,
    Merge,
    SessionTimeouts,
    SqlDialect,
    SqlSession,
)
from muxly_routers.sql.errors import CHANGE_IT, DatabaseFault, kind_of_state
from muxly_routers.sql.names import TableName

__all__ = ["PostgresDialect"]

# Columns that every table has (PostgreSQL manual, "System Columns").
_SYSTEM_COLUMNS = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}

_SIMPLE = {
    pa.bool_(): "boolean",
    pa.int8(): "smallint",
    pa.uint8(): "smallint",
    pa.int16(): "smallint",
    pa.uint16(): "integer",
    pa.int32(): "integer",
    pa.uint32(): "bigint",
    pa.int64(): "bigint",
    pa.uint64(): "numeric(20,0)",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.large_string(): "text",
    pa.binary(): "bytea",
    pa.large_binary(): "bytea",
}
_CAST_FIRST = {pa.float16(): pa.float32()}

# Days and microseconds from 1970 of 4714-11-24 BC, of 5874897-12-31, and of the last timestamp that Arrow has.
# Checked here: in a binary COPY a value beyond them would become another one, or infinity.
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905
_FIRST_TIMESTAMP, _LAST_TIMESTAMP = -210_866_803_200_000_000, 2**63 - 1

_WHOLE = ("smallint", "integer", "bigint")
_OWN_NOT_TEXT = re.compile(r"(smallint|integer|bigint|numeric|real|double|boolean|date|time|interval|bytea)\b")
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_COPY_COLUMN = re.compile(r"^COPY .*, line \d+, column (.+?)(?:: .*)?$", re.MULTILINE)

_ADVICE = {
    "2BP01": "drop what depends on it, or choose another mode than replace, which makes a new table",
    "42P10": "give the table a unique index on the stream's primary key, or rename it, and a new one is made",
}
_SERVER_MESSAGE = re.compile(r"(?:ERROR|FATAL|PANIC):\s+([^\n]+)")

_NOT_RETRIED_CONNECTIONS = re.compile(
    r"password authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|certificate|"
    r"does not support SSL|not permitted to log in|permission denied|invalid (?:URI|connection option|sslmode)|"
    r"unrecognized configuration parameter"
)


class PostgresDialect(SqlDialect):
    """SQL, types and errors of PostgreSQL; an upsert is ``SqlDialect.merge``."""

    name = "postgresql"
    temporary_options = " ON COMMIT DROP"

    def open(self, url: URL, timeouts: SessionTimeouts) -> SqlSession:
        with needs("postgres"):
            from muxly_routers.sql.postgres.session import PostgresSession

        return PostgresSession(self, lambda: _uri(url, timeouts), timeouts.lock_seconds)

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return not table and name in _SYSTEM_COLUMNS

    def parameter(self, number: int) -> str:
        return f"${number}"

    def column_type(self, arrow_type: pa.DataType, *, key: bool = False) -> ColumnType | None:
        wire = _CAST_FIRST.get(arrow_type, arrow_type)
        if simple := _SIMPLE.get(wire):
            return ColumnType(simple, wire) if wire == arrow_type else ColumnType(simple, wire, values.cast_to(wire))
        if types.is_fixed_size_binary(arrow_type):
            return ColumnType("bytea", arrow_type)
        if types.is_decimal(arrow_type):
            return _decimal_type(arrow_type)
        return _time_type(arrow_type) or _json_type(arrow_type)

    def fault(self, error: Exception) -> DatabaseFault | None:
        from psycopg import Error

        if not isinstance(error, Error):
            return None
        diagnostics, state = error.diag, error.sqlstate
        message = diagnostics.message_primary or _server_message(str(error))
        if state is None:
            return DatabaseFault("denied" if _NOT_RETRIED_CONNECTIONS.search(str(error)) else "retry", message)
        copied = _COPY_COLUMN.search(diagnostics.context or "")
        column = diagnostics.column_name or (copied[1] if copied else None)
        # COPY data that ends inside a column was encoded for another type than the column has now.
        kind = "stale" if state == "08P01" and column else kind_of_state(state, message)
        return DatabaseFault(kind, f"{message} (SQLSTATE {state})", column, _ADVICE.get(state, CHANGE_IT))

    def widened(self, existing: str, wanted: str) -> str | None:
        if existing == wanted or (wanted == "text" and not _OWN_NOT_TEXT.match(existing)):
            return existing
        if existing in ("text", "character varying") and wanted != "bytea":
            return existing
        if wanted == "jsonb":
            return existing if existing == "json" else None
        if {existing, wanted} == {"date", "timestamp without time zone"}:
            return "timestamp without time zone"
        return _wider_number(existing, wanted)

    def loads_into(self, existing: str, wanted: str) -> bool:
        return existing == wanted or (wanted == "text" and existing.startswith("character varying"))

    def collated(self, expression: str, type: str) -> str:
        return f'{expression} COLLATE "C"' if type.startswith(("text", "character")) else expression

    def winning_rows(self, merge: Merge) -> str:
        # It costs less than half of a window, and gives the merge its rows in the order of the key's index.
        key = [self.quoted(name) for name in merge.key]
        order = [*key, f"{self.quoted(SEQUENCE)} DESC"]
        if merge.cursor is not None:
            type = merge.type_of(merge.cursor)
            order.insert(len(key), f"{self.collated(self.cast(self.quoted(merge.cursor), type), type)} DESC NULLS LAST")
        return (
            f"SELECT DISTINCT ON ({', '.join(key)}) {self.staged_columns(merge)} "
            f"FROM {self.qualified(merge.stage)} ORDER BY {', '.join(order)}"
        )

    def change_type(self, table: TableName, column: Column) -> list[str]:
        name, type = self.quoted(column.name), column.type
        return [f"ALTER TABLE {self.qualified(table)} ALTER COLUMN {name} TYPE {type} USING CAST({name} AS {type})"]


def _uri(url: URL, timeouts: SessionTimeouts) -> str:
    """The address as libpq reads it, with time limits where it has none of its own."""
    limits = {
        "connect_timeout": str(timeouts.connect_seconds),
        "tcp_user_timeout": "30000",
        "keepalives_idle": "30",
        "application_name": "muxly",
        "client_encoding": "UTF8",
    }
    query = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in url.query.items()}
    plain = url.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    # libpq refuses a space, which SQLAlchemy leaves as it is, and its message shows the text around: maybe a password.
    plain = plain.replace(" ", "%20")
    # SQLAlchemy writes a plus sign for a space in the query; libpq would take it for a plus sign.
    return f"{plain}?{urlencode({**limits, **query}, quote_via=quote)}"


def _decimal_type(arrow_type: pa.DataType) -> ColumnType:
    precision, scale = values.precision_and_scale(arrow_type)  # PostgreSQL has other scales from version 15 only
    wide = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)
    name = f"numeric({precision},{scale})"
    known = types.is_decimal128(arrow_type) or types.is_decimal256(arrow_type)
    unchanged = (arrow_type.precision, arrow_type.scale) == (precision, scale)
    return ColumnType(name, arrow_type) if known and unchanged else ColumnType(name, wide, values.cast_to(wide))


def _time_type(arrow_type: pa.DataType) -> ColumnType | None:
    """Times in microseconds; what is finer is refused rather than cut."""
    if types.is_timestamp(arrow_type):
        zone = "without" if arrow_type.tz is None else "with"
        wire = pa.timestamp("us", arrow_type.tz)
        message = "a timestamp before the year 4714 BC"
        in_range = values.cast_within(wire, _FIRST_TIMESTAMP, _LAST_TIMESTAMP, message)
        return ColumnType(f"timestamp {zone} time zone", wire, in_range)
    if types.is_date(arrow_type):
        message = "a date outside the years 4714 BC to 5874897"
        return ColumnType("date", pa.date32(), values.cast_within(pa.date32(), _FIRST_DAY, _LAST_DAY, message))
    if types.is_time(arrow_type):
        return ColumnType("time without time zone", pa.time64("us"), values.times_in_microseconds)
    if types.is_duration(arrow_type):
        return ColumnType("interval", pa.duration("us"), values.cast_to(pa.duration("us")))
    return None


def _json_type(arrow_type: pa.DataType) -> ColumnType | None:
    if not types.is_nested(arrow_type) or not values.has_json(arrow_type):
        return None
    return ColumnType("jsonb", pa.string(), _jsonb)


def _jsonb(array: pa.Array) -> pa.Array:
    """JSON in the binary form of COPY: after the number of its version."""
    return pc.binary_join_element_wise("\x01", values.as_json(array), "")


def _wider_number(existing: str, wanted: str) -> str | None:
    """The number type that holds the values of both; None = there is none."""
    if existing in _WHOLE and wanted in _WHOLE:
        return max(existing, wanted, key=_WHOLE.index)
    floats = ("real", "double precision")
    if existing in floats or wanted in floats:
        other = wanted if existing in floats else existing
        return "double precision" if other in floats + _WHOLE else None
    old, new = _digits(existing), _digits(wanted)
    if existing == "numeric" or old is None or new is None:
        return "numeric" if existing == "numeric" and new else None
    whole, scale = max(old[0], new[0]), max(old[1], new[1])
    return existing if (whole, scale) == old else f"numeric({whole + scale},{scale})"


def _digits(type: str) -> tuple[int, int] | None:
    """Digits before and after the point that a type holds."""
    if type in _WHOLE:
        return (5, 10, 19)[_WHOLE.index(type)], 0
    numeric = _NUMERIC.fullmatch(type)
    return (int(numeric[1]) - int(numeric[2]), int(numeric[2])) if numeric else None


def _server_message(text: str) -> str:
    """The server's own message, without the driver's text before it."""
    message = _SERVER_MESSAGE.search(text)
    return message[1] if message else text.partition("\n")[0]
