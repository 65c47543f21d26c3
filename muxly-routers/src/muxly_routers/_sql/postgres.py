"""PostgreSQL: binary COPY from Arrow through ADBC, and all else over the same connection."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly_routers._extras import needs
from muxly_routers._sql import faults, values
from muxly_routers._sql.adbc import AdbcSession, is_driver_error
from muxly_routers._sql.dialect import Dialect
from muxly_routers._sql.terms import CHANGE_IT, SEQUENCE, Column, Fault, Form, Merge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL

    from muxly_routers._sql.session import Session, Waits
    from muxly_routers._sql.terms import Place

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
    pa.date32(): "date",
    pa.string(): "text",
    pa.large_string(): "text",
    pa.binary(): "bytea",
    pa.large_binary(): "bytea",
}
_CAST_FIRST = {pa.float16(): pa.float32(), pa.date64(): pa.date32()}

# Microseconds from 1970 of 4714-11-24 BC and of the end of 294276: what a timestamp holds. Checked here,
# for beyond it the driver breaks off without saying which column it was.
_FIRST_MOMENT, _LAST_MOMENT = -210_866_803_200_000_000, 9_224_318_015_999_999_999

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

_COLUMNS = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = COALESCE($1::text, current_schema()) AND c.relname = $2::text
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = COALESCE($1::text, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# Within this transaction only, so that a pool that gives each transaction another connection does no harm.
_SETTINGS = """
SELECT set_config('lock_timeout', $1::text, true), CASE WHEN current_setting('synchronous_commit') = 'off'
THEN set_config('synchronous_commit', 'on', true) END
"""
_MAY_CREATE = """
SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = COALESCE($1::text, current_schema()))
THEN has_schema_privilege(COALESCE($1::text, current_schema()), 'CREATE')
ELSE has_database_privilege(current_database(), 'CREATE') END
"""


class Postgres(Dialect):
    """The words of PostgreSQL."""

    name = "postgresql"
    temporary_end = " ON COMMIT DROP"

    def open(self, url: URL, waits: Waits) -> Session:
        with needs("postgres"):
            import adbc_driver_postgresql

        return _Session(self, adbc_driver_postgresql._driver_path(), lambda: {"uri": _uri(url, waits)}, waits)

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
        if not is_driver_error(error):
            return None
        state = getattr(error, "sqlstate", None)
        parts = getattr(error, "details", None) or ()
        details = {_text(key): _text(value) for key, value in parts}
        message = details.get("PG_DIAG_MESSAGE_PRIMARY") or _said(str(error))
        if state is None:
            refused = isinstance(error, OSError) is False and _NOT_RETRIED_CONNECTIONS.search(str(error))
            return Fault("denied" if refused else "retry", message)
        copied = _COPY_COLUMN.search(details.get("PG_DIAG_CONTEXT", ""))
        column = details.get("PG_DIAG_COLUMN_NAME") or (copied[1] if copied else None)
        # A message that breaks off inside a column was made for another type than the column has now.
        kind = "stale" if state == "08P01" and column else faults.kind_of_state(state, message)
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


class _Session(AdbcSession):
    # COPY cannot be told of every statement, and its errors come late, while the answer is read.
    asking: ClassVar[Mapping[str, str]] = {"adbc.postgresql.use_copy": "false"}

    def __init__(self, words: Postgres, driver: str, options: Callable[[], Mapping[str, str]], waits: Waits) -> None:
        super().__init__(driver, options)
        self._words = words
        self._lock_timeout = f"{waits.lock_seconds}s"

    def begin(self) -> None:
        super().begin()
        self.query(_SETTINGS, self._lock_timeout)

    def interrupt(self) -> None:
        # Never a commit: while it waits for a standby, to be cancelled would be to succeed without one.
        if self._kept.acquire(blocking=False):
            try:
                if self._connection is not None:
                    with suppress(self._adbc.Error):
                        self._connection.cancel()
            finally:
                self._kept.release()

    def hold(self, place: Place) -> None:
        self.execute(f"LOCK TABLE {self._words.at(place)} IN ROW EXCLUSIVE MODE")

    def columns(self, place: Place) -> dict[str, str]:
        return dict(self.query(_COLUMNS, place.schema, place.table))

    def tables(self, schema: str | None) -> list[str]:
        return [name for (name,) in self.query(_TABLES, schema)]

    def has_schema(self, schema: str) -> bool:
        return bool(self.query("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", schema))

    def version(self) -> str:
        return f"PostgreSQL {self.query('SHOW server_version')[0][0]}"

    def may_create(self, schema: str | None) -> bool:
        return bool(self.query(_MAY_CREATE, schema)[0][0])


def _uri(url: URL, waits: Waits) -> str:
    """The address as libpq reads it, with time limits where it has none of its own."""
    limits = {
        "connect_timeout": str(waits.connect_seconds),
        "tcp_user_timeout": "30000",
        "keepalives_idle": "30",
        "application_name": "muxly",
    }
    query = {key: ",".join(one) if isinstance(one, tuple) else one for key, one in url.query.items()}
    plain = url.set(drivername="postgresql", query={**limits, **query})
    return plain.render_as_string(hide_password=False)


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
        return Form(f"timestamp {zone} time zone", wire, _in_range(wire))
    if types.is_time(kind):
        return Form("time without time zone", pa.time64("us"), values.times)
    if types.is_duration(kind):
        return Form("interval", pa.duration("us"), values.cast_to(pa.duration("us")))
    return None


def _in_range(wire: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    def converted(array: pa.Array) -> pa.Array:
        cast = array.cast(wire)
        beyond = "a timestamp outside the years 4713 BC to 294276"
        values.check_range(cast.view(pa.int64()), _FIRST_MOMENT, _LAST_MOMENT, beyond)
        return cast

    return converted


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


def _text(part: str | bytes) -> str:
    return part if isinstance(part, str) else part.decode(errors="replace")


def _said(text: str) -> str:
    """What the server said, without the statement that the driver puts before it."""
    found = _SAID.search(text)
    return found[1] if found else text.partition("\n")[0]
