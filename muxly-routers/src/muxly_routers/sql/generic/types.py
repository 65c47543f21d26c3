"""Arrow types and SQLAlchemy's: which holds which, exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from pyarrow import types

from muxly_routers.sql import values

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.types import TypeEngine

__all__ = ["bound_type", "type_of"]

_KEY_LENGTH = 255


def type_of(
    kind: pa.DataType, words: sa.Dialect, *, key: bool
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    """The SQL type, the Arrow type that becomes the driver's Python objects, and the way there."""
    text = sa.Unicode(_KEY_LENGTH) if key else sa.UnicodeText()
    if types.is_boolean(kind):
        return sa.Boolean(), kind, _unchanged
    if types.is_integer(kind) and not types.is_uint64(kind):
        return sa.BigInteger(), kind, _unchanged
    if types.is_floating(kind):
        return sa.Double(), pa.float64(), values.cast_to(pa.float64())
    if types.is_uint64(kind) or types.is_decimal(kind):
        return _exact_type(kind, words, text)
    if values.is_text(kind):
        return text, kind, _unchanged
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return sa.LargeBinary(), kind, _unchanged
    if types.is_nested(kind):
        return (sa.UnicodeText(), pa.string(), values.as_json) if values.has_json(kind) else None
    return _time_type(kind, words)


def bound_type(wire: pa.DataType) -> TypeEngine[Any]:
    """What the driver is told of values that it has several forms for."""
    if types.is_timestamp(wire):
        return sa.DateTime(timezone=wire.tz is not None)
    if types.is_decimal(wire):
        return sa.Numeric(wire.precision, wire.scale)
    known = ((types.is_date, sa.Date), (types.is_time, sa.Time), (types.is_boolean, sa.Boolean))
    return next((made() for is_kind, made in known if is_kind(wire)), sa.types.NullType())


def _unchanged(array: pa.Array) -> pa.Array:
    return array


def _exact_type(
    kind: pa.DataType, words: sa.Dialect, text: TypeEngine[Any]
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]]:
    """Numbers that must not become floats: as text, where the driver would make them so."""
    wire = pa.decimal128(20, 0) if types.is_uint64(kind) else kind
    number = sa.Numeric(wire.precision, wire.scale)
    bound = number.dialect_impl(words).bind_processor(words)
    if bound is not None and not isinstance(bound(Decimal(1)), Decimal):
        return text, pa.string(), values.as_text
    return number, wire, values.cast_to(wire)


def _time_type(
    kind: pa.DataType, words: sa.Dialect
) -> tuple[TypeEngine[Any], pa.DataType, Callable[[pa.Array], pa.Array]] | None:
    if types.is_date(kind):
        return sa.Date(), pa.date32(), values.days
    if types.is_time(kind):
        if words.name == "oracle":  # which has no type for a time of day
            return sa.Unicode(18), pa.string(), lambda array: values.as_text(values.in_day(array))
        return sa.Time(), pa.time64("us"), values.times
    if types.is_duration(kind):
        return sa.BigInteger(), pa.int64(), lambda array: array.cast(pa.duration("us")).cast(pa.int64())
    if not types.is_timestamp(kind):
        return None
    moment = _moment(words, zoned=kind.tz is not None)
    if kind.tz is not None and moment.compile(dialect=words) == _moment(words, zoned=False).compile(dialect=words):
        # This database has no times with a zone; their text has one.
        return sa.UnicodeText(), pa.string(), values.moments_text
    return moment, pa.timestamp("us", None if kind.tz is None else "UTC"), values.moments


def _moment(words: sa.Dialect, *, zoned: bool) -> TypeEngine[Any]:
    """The type of a timestamp with microseconds; the usual one has less in two databases."""
    if words.name == "oracle":
        return sa.TIMESTAMP(timezone=zoned)
    if words.name == "mssql":
        from sqlalchemy.dialects import mssql

        return mssql.DATETIMEOFFSET() if zoned else mssql.DATETIME2()  # type: ignore[no-untyped-call]
    return sa.DateTime(timezone=zoned)
