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
from muxly_routers.sql.dialect import ColumnType

__all__ = ["column_type", "is_text", "reflected", "widened"]

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
# The smallest first: the type that holds two others is the first that does.
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
# Types that take any text that fits, and in the strict mode of the sessions refuse what does not.
_TEXTS = re.compile(r"(char|varchar|enum|set)\(.*\)|(tiny|medium|long)?text|uuid|inet[46]")
_BYTES = re.compile(r"(var)?binary\(.*\)|(tiny|medium|long)?blob")
# Coarser ones round silently, even in strict mode.
_TIMES = re.compile(r"(datetime|timestamp|time)(\([0-6]\))?")
_WIDTH = re.compile(r"^((?:small|medium|big)?int|tinyint(?!\(1\)))\(\d+\)")


def reflected(column_type: str) -> str:
    """A type of the information schema without the display width that only some servers show."""
    return _WIDTH.sub(r"\1", column_type.lower())


def is_text(column_type: str) -> bool:
    """Whether a column holds text, which two servers may order differently."""
    return _TEXTS.fullmatch(column_type) is not None


def column_type(arrow_type: pa.DataType, *, key: bool) -> ColumnType | None:
    """The column type for values of a plain Arrow type; None = there is none."""
    if types.is_nested(arrow_type):
        return ColumnType("json", pa.string(), values.as_json) if values.has_json(arrow_type) and not key else None
    if types.is_decimal(arrow_type):
        return _decimal(arrow_type)
    if types.is_temporal(arrow_type):
        return _temporal(arrow_type)
    if values.is_text(arrow_type):
        return ColumnType("varchar(255)" if key else "longtext", arrow_type)
    if values.is_binary(arrow_type):
        return ColumnType("varbinary(255)" if key else "longblob", arrow_type)
    if types.is_boolean(arrow_type):
        return ColumnType("tinyint(1)", arrow_type)
    if types.is_floating(arrow_type):
        return ColumnType("double", pa.float64(), _finite)
    return ColumnType(_INTEGERS[arrow_type], arrow_type) if arrow_type in _INTEGERS else None


def _decimal(arrow_type: pa.DataType) -> ColumnType | None:
    digits, scale = values.precision_and_scale(arrow_type)
    if digits > _MOST_DIGITS or scale > _MOST_SCALE:
        return None
    return ColumnType(f"decimal({digits},{scale})", arrow_type)


def _temporal(arrow_type: pa.DataType) -> ColumnType | None:
    if types.is_date(arrow_type):
        return ColumnType("date", pa.date32(), values.dates)
    if types.is_timestamp(arrow_type):
        return ColumnType("datetime(6)", pa.timestamp("us"), _utc_timestamps)
    if types.is_time(arrow_type):
        return ColumnType("time(6)", pa.time64("us"), values.times_in_microseconds)
    if types.is_duration(arrow_type):
        return ColumnType("bigint", pa.int64(), values.durations_as_integers)
    return None


def _utc_timestamps(array: pa.Array) -> pa.Array:
    return values.timestamps(array).cast(pa.timestamp("us"))


def _finite(array: pa.Array) -> pa.Array:
    wide = array.cast(pa.float64())
    if pc.any(pc.invert(pc.is_finite(wide))).as_py():
        raise ValueError("MySQL and MariaDB have no NaN and no infinity")
    return wide


def widened(existing: str, wanted: str) -> str | None:
    """The type that holds what a column holds and values of another type, if there is one."""
    if existing == wanted:
        return existing
    if existing in _RANGES and wanted in _RANGES:
        return _whole(existing, wanted)
    if wanted == "double" and (existing in _RANGES or existing == "float"):
        return "double"
    if (existing in _RANGES or _DECIMAL.fullmatch(existing)) and (wanted in _RANGES or _DECIMAL.fullmatch(wanted)):
        return _exact(existing, wanted)
    return _other(existing, wanted)


def _whole(existing: str, wanted: str) -> str:
    ends = (_RANGES[existing], _RANGES[wanted])
    least, greatest = min(first for first, _ in ends), max(last for _, last in ends)
    if _RANGES[existing] == (least, greatest):
        return existing
    holding = (name for name, (first, last) in _RANGES.items() if first <= least and greatest <= last)
    return next(holding, f"decimal({_INTEGER_DIGITS},0)")


def _exact(existing: str, wanted: str) -> str | None:
    (whole, scale), (other_whole, other_scale) = _digits(existing), _digits(wanted)
    whole, scale = max(whole, other_whole), max(scale, other_scale)
    return f"decimal({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


def _digits(type: str) -> tuple[int, int]:
    """Digits before and after the point."""
    if decimal := _DECIMAL.fullmatch(type):
        return int(decimal[1]) - int(decimal[2]), int(decimal[2])
    return len(str(max(-_RANGES[type][0], _RANGES[type][1]))), 0


def _other(existing: str, wanted: str) -> str | None:
    text, bytes_ = wanted in ("longtext", "varchar(255)"), wanted in ("longblob", "varbinary(255)")
    if (text and _TEXTS.fullmatch(existing)) or (bytes_ and _BYTES.fullmatch(existing)):
        return existing
    if existing == "json" and text:
        return "longtext"
    if wanted == "json" and existing == "longtext":
        return existing
    if time := _TIMES.fullmatch(existing):
        return _finer_time(time[1], existing, wanted)
    return "datetime(6)" if (existing, wanted) == ("date", "datetime(6)") else None


def _finer_time(kind: str, existing: str, wanted: str) -> str | None:
    if (kind == "time") != (wanted == "time(6)"):
        return None
    if wanted == "date":
        return existing
    return f"{kind}(6)" if wanted in ("time(6)", "datetime(6)") else None
