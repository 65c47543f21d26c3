"""Arrow types and column types of DuckDB.

=====================================  ================================================
Arrow type                             column type
=====================================  ================================================
bool                                   BOOLEAN
int8, int16, int32, int64              TINYINT, SMALLINT, INTEGER, BIGINT
uint8, uint16, uint32, uint64          UTINYINT, USMALLINT, UINTEGER, UBIGINT
float16, float32                       FLOAT
float64                                DOUBLE
decimal of up to 38 digits             DECIMAL
string                                 VARCHAR
binary                                 BLOB
date                                   DATE
timestamp                              TIMESTAMP, or TIMESTAMP WITH TIME ZONE
time                                   TIME
duration                               INTERVAL
list, struct, map                      JSON
=====================================  ================================================
"""

from __future__ import annotations

import re

import pyarrow as pa
from pyarrow import types

from muxly_routers.sql import values
from muxly_routers.sql.quoting import Form

__all__ = ["form", "widened"]

_SIMPLE = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
}
_CAST_FIRST = {pa.float16(): pa.float32()}
# Beyond lie what DuckDB takes for infinity, and what it cannot even show.
_FIRST_DAY, _LAST_DAY = -(2**31) + 2, 2**31 - 2
_FIRST_MOMENT, _LAST_MOMENT = -9_223_372_022_400_000_000, 2**63 - 2
_RANGES = {
    name: (0 if unsigned else -(2 ** (bits - 1)), 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1)
    for bits, word in ((8, "TINYINT"), (16, "SMALLINT"), (32, "INTEGER"), (64, "BIGINT"), (128, "HUGEINT"))
    for unsigned, name in ((False, word), (True, f"U{word}"))
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_MOST_DIGITS = 38


def form(kind: pa.DataType, *, key: bool) -> Form | None:
    """How values of a plain Arrow type are kept; None = they cannot be."""
    wire = _CAST_FIRST.get(kind, kind)
    if simple := _SIMPLE.get(wire):
        return Form(simple, wire) if wire == kind else Form(simple, wire, values.cast_to(wire))
    if types.is_fixed_size_binary(kind):
        return Form("BLOB", kind)
    if types.is_decimal(kind):
        return _decimal_form(kind)
    if types.is_nested(kind):
        return Form("JSON", pa.string(), values.as_json) if values.has_json(kind) and not key else None
    return _time_form(kind)


def widened(there: str, wanted: str) -> str | None:
    """The type that holds what a column holds and values of another type, if there is one."""
    if there == wanted or (there == "VARCHAR" and wanted == "JSON"):
        return there
    if there == "JSON" and wanted == "VARCHAR":
        return wanted
    if there == "DATE" and wanted == "TIMESTAMP":
        return wanted
    return there if (there, wanted) == ("TIMESTAMP", "DATE") else _wider_number(there, wanted)


def _decimal_form(kind: pa.DataType) -> Form | None:
    digits, scale = values.digits(kind)
    if digits > _MOST_DIGITS:
        return None
    wire = pa.decimal128(digits, scale)
    return Form(f"DECIMAL({digits},{scale})", wire, values.cast_to(wire))


def _time_form(kind: pa.DataType) -> Form | None:
    """Times in microseconds; what is finer is refused rather than cut."""
    if types.is_date(kind):
        beyond = "a date that DuckDB does not have"
        return Form("DATE", pa.date32(), values.cast_within(pa.date32(), _FIRST_DAY, _LAST_DAY, beyond))
    if types.is_timestamp(kind):
        wire = pa.timestamp("us", kind.tz)
        name = "TIMESTAMP" if kind.tz is None else "TIMESTAMP WITH TIME ZONE"
        beyond = "a timestamp that DuckDB does not have"
        return Form(name, wire, values.cast_within(wire, _FIRST_MOMENT, _LAST_MOMENT, beyond))
    if types.is_time(kind):
        return Form("TIME", pa.time64("us"), values.times)
    if types.is_duration(kind):
        return Form("INTERVAL", pa.duration("us"), values.cast_to(pa.duration("us")))
    return None


def _wider_number(there: str, wanted: str) -> str | None:
    """The number type that holds what both hold."""
    floats = ("FLOAT", "DOUBLE")
    if there in floats or wanted in floats:
        other = wanted if there in floats else there
        return "DOUBLE" if other in floats or other in _RANGES else None
    if there in _RANGES and wanted in _RANGES:
        least, greatest = (pick(_RANGES[one][end] for one in (there, wanted)) for end, pick in ((0, min), (1, max)))
        if _RANGES[there] == (least, greatest):
            return there
        return next(name for name, (low, high) in _RANGES.items() if low <= least and greatest <= high)
    return _wider_decimal(there, wanted)


def _wider_decimal(there: str, wanted: str) -> str | None:
    digits = [_digits(one) for one in (there, wanted)]
    if None in digits:
        return None
    whole, scale = (max(one[end] for one in digits if one) for end in (0, 1))
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


def _digits(type: str) -> tuple[int, int] | None:
    """Digits before and behind the point that a type holds."""
    if type in _RANGES:
        return len(str(_RANGES[type][1])), 0
    found = _DECIMAL.fullmatch(type)
    return (int(found[1]) - int(found[2]), int(found[2])) if found else None
