"""Arrow types and column types of MySQL and MariaDB.

=====================================  ================================================
Arrow type                             column type
=====================================  ================================================
bool                                   tinyint(1)
int8, int16, int32, int64              tinyint, smallint, int, bigint
uint8, uint16, uint32, uint64          smallint, int, bigint, bigint unsigned
float16, float32, float64              double; NaN and infinity are refused
decimal of up to 65 digits             decimal
string                                 longtext; varchar(255) in a key
binary                                 longblob; varbinary(255) in a key
date                                   date
timestamp                              datetime(6); in UTC where it has a time zone
time                                   time(6)
duration                               bigint, microseconds
list, struct, map                      json
=====================================  ================================================
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly_routers.sql import values
from muxly_routers.sql.quoting import Form

__all__ = ["form", "is_text", "reflected", "widened"]

_MOST_DIGITS, _MOST_SCALE = 65, 38
_INTEGERS = {
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    pa.uint64(): "bigint unsigned",
}
# The smallest first: which of them holds two others is looked up in this order.
_RANGES = {
    "tinyint": (-(2**7), 2**7 - 1),
    "tinyint unsigned": (0, 2**8 - 1),
    "smallint": (-(2**15), 2**15 - 1),
    "smallint unsigned": (0, 2**16 - 1),
    "mediumint": (-(2**23), 2**23 - 1),
    "mediumint unsigned": (0, 2**24 - 1),
    "int": (-(2**31), 2**31 - 1),
    "int unsigned": (0, 2**32 - 1),
    "bigint": (-(2**63), 2**63 - 1),
    "bigint unsigned": (0, 2**64 - 1),
}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_INTEGER_DIGITS = 20
# What takes any text that fits, and refuses, by the strict mode of our sessions, what does not.
_TEXTS = re.compile(r"(char|varchar|enum|set)\(.*\)|(tiny|medium|long)?text|uuid|inet[46]")
_BYTES = re.compile(r"(var)?binary\(.*\)|(tiny|medium|long)?blob")
# Coarser times round without a word, even in strict mode.
_MOMENTS = re.compile(r"(datetime|timestamp|time)(\([0-6]\))?")
_WIDTH = re.compile(r"^((?:small|medium|big)?int|tinyint(?!\(1\)))\(\d+\)")


def reflected(column_type: str) -> str:
    """A type of the information schema without the display width that only some servers show."""
    return _WIDTH.sub(r"\1", column_type.lower())


def is_text(column_type: str) -> bool:
    """Whether a column holds text, which two servers may order differently."""
    return _TEXTS.fullmatch(column_type) is not None


def form(kind: pa.DataType, *, key: bool) -> Form | None:
    """How values of a plain Arrow type are kept; None = they cannot be."""
    if types.is_nested(kind):
        return Form("json", pa.string(), values.as_json) if values.has_json(kind) and not key else None
    if types.is_decimal(kind):
        return _decimal(kind)
    if types.is_temporal(kind):
        return _temporal(kind)
    if values.is_text(kind):
        return Form("varchar(255)" if key else "longtext", kind)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return Form("varbinary(255)" if key else "longblob", kind)
    if types.is_boolean(kind):
        return Form("tinyint(1)", kind)
    if types.is_floating(kind):
        return Form("double", pa.float64(), _finite)
    return Form(_INTEGERS[kind], kind) if kind in _INTEGERS else None


def _decimal(kind: pa.DataType) -> Form | None:
    digits, scale = values.digits(kind)
    if digits > _MOST_DIGITS or scale > _MOST_SCALE:
        return None
    return Form(f"decimal({digits},{scale})", kind)


def _temporal(kind: pa.DataType) -> Form | None:
    if types.is_date(kind):
        return Form("date", pa.date32(), values.days)
    if types.is_timestamp(kind):
        return Form("datetime(6)", pa.timestamp("us"), _moments)
    if types.is_time(kind):
        return Form("time(6)", pa.time64("us"), values.times)
    if types.is_duration(kind):
        return Form("bigint", pa.int64(), lambda array: array.cast(pa.duration("us")).cast(pa.int64()))
    return None


def _moments(array: pa.Array) -> pa.Array:
    return values.moments(array).cast(pa.timestamp("us"))


def _finite(array: pa.Array) -> pa.Array:
    wide = array.cast(pa.float64())
    if pc.any(pc.invert(pc.is_finite(wide))).as_py():
        raise ValueError("MySQL and MariaDB have no NaN and no infinity")
    return wide


def widened(there: str, wanted: str) -> str | None:
    """The type that holds what a column holds and values of another type, if there is one."""
    if there == wanted:
        return there
    if there in _RANGES and wanted in _RANGES:
        return _whole(there, wanted)
    if wanted == "double" and (there in _RANGES or there == "float"):
        return "double"
    if (there in _RANGES or _DECIMAL.fullmatch(there)) and (wanted in _RANGES or _DECIMAL.fullmatch(wanted)):
        return _exact(there, wanted)
    return _other(there, wanted)


def _whole(there: str, wanted: str) -> str:
    ends = (_RANGES[there], _RANGES[wanted])
    least, greatest = min(one[0] for one in ends), max(one[1] for one in ends)
    if _RANGES[there] == (least, greatest):
        return there
    holding = (name for name, (first, last) in _RANGES.items() if first <= least and greatest <= last)
    return next(holding, f"decimal({_INTEGER_DIGITS},0)")


def _exact(there: str, wanted: str) -> str | None:
    digits = [_digits(one) for one in (there, wanted)]
    whole, scale = max(one[0] for one in digits), max(one[1] for one in digits)
    return f"decimal({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


def _digits(type: str) -> tuple[int, int]:
    """Digits before and behind the point."""
    if found := _DECIMAL.fullmatch(type):
        return int(found[1]) - int(found[2]), int(found[2])
    return len(str(max(-_RANGES[type][0], _RANGES[type][1]))), 0


def _other(there: str, wanted: str) -> str | None:
    text, bytes_ = wanted in ("longtext", "varchar(255)"), wanted in ("longblob", "varbinary(255)")
    if (text and _TEXTS.fullmatch(there)) or (bytes_ and _BYTES.fullmatch(there)):
        return there
    if there == "json" and text:
        return "longtext"
    if wanted == "json" and there == "longtext":
        return there
    if found := _MOMENTS.fullmatch(there):
        return _moment(found[1], there, wanted)
    return "datetime(6)" if (there, wanted) == ("date", "datetime(6)") else None


def _moment(word: str, there: str, wanted: str) -> str | None:
    if (word == "time") != (wanted == "time(6)"):
        return None
    if wanted == "date":
        return there
    return f"{word}(6)" if wanted in ("time(6)", "datetime(6)") else None
