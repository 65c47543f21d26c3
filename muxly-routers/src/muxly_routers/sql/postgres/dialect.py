"""PostgreSQL: what it says differently, and which of its types hold Arrow's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly_routers._failures import needs
from muxly_routers.sql import error_kinds, values
from muxly_routers.sql.dialect import Dialect
from muxly_routers.sql.quoting import CHANGE_IT, SEQUENCE, Column, Fault, Form, Merge

if TYPE_CHECKING:
    from sqlalchemy import URL

    from muxly_routers.sql.quoting import Place
    from muxly_routers.sql.session import Session, Waits

__all__ = ["Postgres"]

# Columns that every table has already (PostgreSQL manual, "System Columns").
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

# Days and microseconds from 1970 of 4714-11-24 BC, of 5874897-12-31, and of the last moment that Arrow has.
# Checked here, for beyond them another moment would be written, or infinity.
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905
_FIRST_MOMENT, _LAST_MOMENT = -210_866_803_200_000_000, 2**63 - 1

_WHOLE = ("smallint", "integer", "bigint")
_TEXTLIKE = re.compile(r"(text|character varying|character|citext|uuid|json|jsonb|xml|inet|cidr|macaddr)\b")
_OWN_NOT_TEXT = re.compile(r"(smallint|integer|bigint|numeric|real|double|boolean|date|time|interval|bytea)\b")
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")
_COPY_COLUMN = re.compile(r"^COPY .*, line \d+, column (.+?)(?:: .*)?$", re.MULTILINE)

_ADVICE = {
    "2BP01": "drop what depends on it, or choose another mode than replace, which makes a new table",
    "42P10": "give the table a unique index on the stream's primary key, or rename it, and a new one is made",
}
_SAID = re.compile(r"(?:ERROR|FATAL|PANIC):\s+([^\n]+)")

_NOT_RETRIED_CONNECTIONS = re.compile(
    r"password authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|certificate|"
    r"does not support SSL|not permitted to log in|permission denied|invalid (?:URI|connection option|sslmode)|"
    r"unrecognized configuration parameter"
)


class Postgres(Dialect):
    """The words of PostgreSQL."""

    name = "postgresql"
    temporary_end = " ON COMMIT DROP"

    def open(self, url: URL, waits: Waits) -> Session:
        with needs("postgres"):
            from muxly_routers.sql.postgres.session import PostgresSession

        return PostgresSession(self, lambda: _uri(url, waits), waits.lock_seconds)

    def reserved(self, name: str, *, table: bool = False) -> bool:
        return not table and name in _SYSTEM_COLUMNS

    def parameter(self, number: int) -> str:
        return f"${number}"

    def form(self, kind: pa.DataType, *, key: bool = False) -> Form | None:
        wire = _CAST_FIRST.get(kind, kind)
        if simple := _SIMPLE.get(wire):
            return Form(simple, wire) if wire == kind else Form(simple, wire, values.cast_to(wire))
        if types.is_fixed_size_binary(kind):
            return Form("bytea", kind)
        if types.is_decimal(kind):
            return _decimal_form(kind)
        return _time_form(kind) or _json_form(kind)

    def fault(self, error: Exception) -> Fault | None:
        from psycopg import Error

        if not isinstance(error, Error):
            return None
        said, state = error.diag, error.sqlstate
        message = said.message_primary or _said(str(error))
        if state is None:
            return Fault("denied" if _NOT_RETRIED_CONNECTIONS.search(str(error)) else "retry", message)
        copied = _COPY_COLUMN.search(said.context or "")
        column = said.column_name or (copied[1] if copied else None)
        # A message that breaks off inside a column was made for another type than the column has now.
        kind = "stale" if state == "08P01" and column else error_kinds.kind_of_state(state, message)
        return Fault(kind, f"{message} (SQLSTATE {state})", column, _ADVICE.get(state, CHANGE_IT))

    def widened(self, there: str, wanted: str) -> str | None:
        if there == wanted or (wanted == "text" and not _OWN_NOT_TEXT.match(there)):
            return there
        if there in ("text", "character varying") and wanted != "bytea":
            return there
        if wanted == "jsonb":
            return there if there == "json" else None
        if {there, wanted} == {"date", "timestamp without time zone"}:
            return "timestamp without time zone"
        return _wider_number(there, wanted)

    def loads_into(self, there: str, wanted: str) -> bool:
        return there == wanted or (wanted == "text" and there.startswith("character varying"))

    def ordered(self, expression: str, type: str) -> str:
        return f'{expression} COLLATE "C"' if type.startswith(("text", "character")) else expression

    def winners(self, merge: Merge) -> str:
        # Less than half of what a window costs; and the merge goes through the key's index in its order.
        key = [self.quoted(name) for name in merge.key]
        order = [*key, f"{self.quoted(SEQUENCE)} DESC"]
        if merge.cursor is not None:
            type = next(one.type for one in merge.columns if one.name == merge.cursor)
            order.insert(len(key), f"{self.ordered(self.cast(self.quoted(merge.cursor), type), type)} DESC NULLS LAST")
        columns = [f"{self.cast(self.quoted(one.name), one.type)} AS {self.quoted(one.name)}" for one in merge.columns]
        return (
            f"SELECT DISTINCT ON ({', '.join(key)}) {', '.join([*columns, self.quoted(SEQUENCE)])} "
            f"FROM {self.at(merge.stage)} ORDER BY {', '.join(order)}"
        )

    def change_type(self, place: Place, column: Column) -> list[str]:
        name = self.quoted(column.name)
        return [
            f"ALTER TABLE {self.at(place)} ALTER COLUMN {name} TYPE {column.type} USING CAST({name} AS {column.type})"
        ]


def _uri(url: URL, waits: Waits) -> str:
    """The address as libpq reads it, with time limits where it has none of its own."""
    limits = {
        "connect_timeout": str(waits.connect_seconds),
        "tcp_user_timeout": "30000",
        "keepalives_idle": "30",
        "application_name": "muxly",
        "client_encoding": "UTF8",
    }
    query = {key: ",".join(one) if isinstance(one, tuple) else one for key, one in url.query.items()}
    plain = url.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    # libpq refuses a space, which SQLAlchemy leaves as it is, and shows what is around it: maybe a password.
    plain = plain.replace(" ", "%20")
    # A plus sign, which SQLAlchemy writes there for a space, libpq takes as it is.
    return f"{plain}?{urlencode({**limits, **query}, quote_via=quote)}"


def _decimal_form(kind: pa.DataType) -> Form:
    precision, scale = values.digits(kind)  # other scales are known from PostgreSQL 15 only
    wide = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)
    name = f"numeric({precision},{scale})"
    known = types.is_decimal128(kind) or types.is_decimal256(kind)
    same = (kind.precision, kind.scale) == (precision, scale)
    return Form(name, kind) if known and same else Form(name, wide, values.cast_to(wide))


def _time_form(kind: pa.DataType) -> Form | None:
    """Times in microseconds; what is finer is refused rather than cut."""
    if types.is_timestamp(kind):
        zone = "without" if kind.tz is None else "with"
        wire = pa.timestamp("us", kind.tz)
        beyond = "a timestamp before the year 4714 BC"
        in_range = values.cast_within(wire, _FIRST_MOMENT, _LAST_MOMENT, beyond)
        return Form(f"timestamp {zone} time zone", wire, in_range)
    if types.is_date(kind):
        beyond = "a date outside the years 4714 BC to 5874897"
        return Form("date", pa.date32(), values.cast_within(pa.date32(), _FIRST_DAY, _LAST_DAY, beyond))
    if types.is_time(kind):
        return Form("time without time zone", pa.time64("us"), values.times)
    if types.is_duration(kind):
        return Form("interval", pa.duration("us"), values.cast_to(pa.duration("us")))
    return None


def _json_form(kind: pa.DataType) -> Form | None:
    if not types.is_nested(kind) or not values.has_json(kind):
        return None
    return Form("jsonb", pa.string(), _jsonb)


def _jsonb(array: pa.Array) -> pa.Array:
    """JSON as COPY's binary form wants it: behind the number of its version."""
    return pc.binary_join_element_wise("\x01", values.as_json(array), "")


def _wider_number(there: str, wanted: str) -> str | None:
    """The number type that holds what both hold."""
    if there in _WHOLE and wanted in _WHOLE:
        return max(there, wanted, key=_WHOLE.index)
    floats = ("real", "double precision")
    if there in floats or wanted in floats:
        other = wanted if there in floats else there
        return "double precision" if other in floats + _WHOLE else None
    old, new = _digits(there), _digits(wanted)
    if there == "numeric" or old is None or new is None:
        return "numeric" if there == "numeric" and new else None
    whole, scale = max(old[0], new[0]), max(old[1], new[1])
    return there if (whole, scale) == old else f"numeric({whole + scale},{scale})"


def _digits(type: str) -> tuple[int, int] | None:
    """Digits before and after the point that a type holds."""
    if type in _WHOLE:
        return (5, 10, 19)[_WHOLE.index(type)], 0
    found = _NUMERIC.fullmatch(type)
    return (int(found[1]) - int(found[2]), int(found[2])) if found else None


def _said(text: str) -> str:
    """What the server said, without what the driver puts before it."""
    found = _SAID.search(text)
    return found[1] if found else text.partition("\n")[0]
