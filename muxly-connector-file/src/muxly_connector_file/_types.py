"""Columns of text to columns of typed values, without losing anything."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from muxly_connector_file import _source

_MISFIT = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
_EXACT_FLOAT = 2.0**53
_PROBE = 64

_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"
_WHOLE = r"^(0|-?[1-9]\d*)$"
_NUMBER = r"^-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^(nan|NaN|-?inf|-?Infinity)$"
_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_CODE = r"^(\+|-?0\d)"
"""Text that looks like a number but would not come back the same: 007, +49."""

CANDIDATES: tuple[pa.DataType, ...] = (
    pa.bool_(),
    pa.int64(),
    pa.decimal128(38, 0),
    pa.decimal256(76, 0),
    pa.float64(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a name in the ``types`` option."""
    parts = _source.parse_type(name)
    if parts[0] == "decimal":
        return (pa.decimal128 if parts[1] <= 38 else pa.decimal256)(*parts[1:])
    if parts[0] == "timestamp":
        return pa.timestamp(*parts[1:])
    plain = {"bool": pa.bool_(), "date": pa.date32(), "time": pa.time64("us")}
    return plain.get(parts[0]) or getattr(pa, parts[0])()


@frozen
class ConvertedColumn:
    """A column after conversion.

    Args:
        values: What fits; null where ``misfits`` is true.
        misfits: Boolean array, or None if everything fits.
    """

    values: pa.Array
    misfits: pa.BooleanArray | None = None


def misfit_reason(column: str, value: Any, kind: pa.DataType) -> str:
    """Why a record is set aside: a value of it that does not fit the type that was given."""
    text = ascii(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f"column {column!r}: {shown} is no {kind}"


def infer(text: pa.StringArray) -> pa.DataType:
    """The narrowest type that holds all values exactly; null if there are none."""
    text = text.drop_null()
    if not len(text):
        return pa.null()
    probe = text[:_PROBE]
    for kind in CANDIDATES:
        if _all_fit(probe, kind) and _all_fit(text, kind):
            return kind
    return pa.string()


def convert(text: pa.StringArray, kind: pa.DataType, *, given: bool) -> ConvertedColumn:
    """A column of text as another type.

    Args:
        text: May hold nulls, which stay null.
        kind: The type.
        given: Whether a person chose the type. Then every spelling of a value will do
            (``007``, ``+5``, blanks around it); an inferred type only takes text that says
            the same when it is written again.
    """
    if pa.types.is_null(kind):
        misfits = text.is_valid()
        return ConvertedColumn(pa.nulls(len(text)), misfits if misfits.true_count else None)
    if given:
        text = _tidy(text, kind)
    if (values := _fitting(text, kind, given=given)) is not None:
        return ConvertedColumn(values)
    misfits = _misfits(text, kind, given=given)
    return ConvertedColumn(_cast(_without(text, misfits), kind), misfits)


def _tidy(text: pa.StringArray, kind: pa.DataType) -> pa.StringArray:
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return text
    text = pc.utf8_trim_whitespace(text)
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        text = pc.replace_substring_regex(text, r"^\+", "")
    return text


def _all_fit(text: pa.StringArray, kind: pa.DataType) -> bool:
    return _fitting(text, kind, given=False) is not None


def _fitting(text: pa.StringArray, kind: pa.DataType, *, given: bool) -> pa.Array | None:
    """The values, if all of them fit."""
    if pa.types.is_decimal(kind) and not _every(text, _shape(kind, given=given)):
        return None
    try:
        values = _cast(text, kind)
    except _MISFIT:
        return None
    if given:
        return None if pa.types.is_integer(kind) and _any(text, r"[xX]") else values
    return values if _same(text, values, kind) else None


def _same(text: pa.StringArray, values: pa.Array, kind: pa.DataType) -> bool:
    """Whether the values say exactly what the text says."""
    if pa.types.is_integer(kind):
        return pc.all(pc.equal(values.cast(pa.string()), text)).as_py() is not False
    if pa.types.is_boolean(kind):
        return not _any(text, r"^[01]$")
    if pa.types.is_floating(kind):
        return not _any(text, _CODE) and not _inexact(text, values)
    # That a time without a zone is meant in UTC is not for us to guess.
    return not (pa.types.is_timestamp(kind) and kind.tz) or _every(text, rf":\d.*{_ZONE}")


def _inexact(text: pa.StringArray, values: pa.Array) -> bool:
    large = pc.fill_null(pc.greater_equal(pc.abs(values), _EXACT_FLOAT), False)
    if not large.true_count:
        return False
    suspects = text.filter(large)
    return _any(suspects, _WHOLE) or _any(suspects.filter(pc.is_inf(values.filter(large))), r"\d")


def _any(text: pa.StringArray, pattern: str) -> bool:
    return pc.any(pc.match_substring_regex(text, pattern)).as_py() is True


def _every(text: pa.StringArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(text, pattern)).as_py() is not False


def _cast(text: pa.StringArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_time(kind):
        dated = pc.binary_join_element_wise("1970-01-01T", text, "")
        return dated.cast(pa.timestamp("us")).cast(kind)
    if pa.types.is_timestamp(kind) and kind.tz:
        return _zoned(text, kind)
    return text.cast(kind)


def _zoned(text: pa.StringArray, kind: pa.TimestampType) -> pa.Array:
    """Times with a zone; where the text has none, the type's zone is meant."""
    has_zone = pc.match_substring_regex(text, _ZONE)
    dates = pc.match_substring_regex(text, _DATE)
    if pc.all(pc.and_(has_zone, pc.invert(dates))).as_py() is not False:
        return text.cast(kind)
    absolute = pc.if_else(pc.and_(has_zone, pc.invert(dates)), text, pa.scalar(None, pa.string()))
    local = pc.if_else(pc.and_(has_zone, pc.invert(dates)), pa.scalar(None, pa.string()), text)
    placed = pc.assume_timezone(local.cast(pa.timestamp(kind.unit)), kind.tz)
    return pc.coalesce(absolute.cast(kind), placed)


def _without(text: pa.StringArray, misfits: pa.BooleanArray) -> pa.StringArray:
    return pc.if_else(misfits, pa.scalar(None, pa.string()), text)


def _misfits(text: pa.StringArray, kind: pa.DataType, *, given: bool) -> pa.BooleanArray:
    """Which values do not fit; each different text is judged once."""
    different = text.drop_null().unique()
    shaped = different.filter(pc.match_substring_regex(different, _shape(kind, given=given)))
    wrong = list(_wrong(shaped, kind, given=given))
    good = pc.if_else(pc.is_in(shaped, pa.array(wrong, pa.string())), pa.scalar(None, pa.string()), shaped)
    return pc.and_(text.is_valid(), pc.invert(pc.is_in(text, good.drop_null())))


def _wrong(text: pa.StringArray, kind: pa.DataType, *, given: bool) -> Any:
    """Find the misfits by halving; few are left after the look at their shape."""
    if not len(text) or _fitting(text, kind, given=given) is not None:
        return
    if len(text) == 1:
        yield text[0].as_py()
        return
    half = len(text) // 2
    yield from _wrong(text[:half], kind, given=given)
    yield from _wrong(text[half:], kind, given=given)


def _decimal(kind: pa.DataType) -> str:
    """Decimals within the precision: Arrow does not notice all that overflow."""
    whole = kind.precision - kind.scale
    return rf"^-?(0*\d{{1,{whole}}}(\.\d*)?|0*\.\d+)$" if whole else r"^-?0*(\.\d*)?$"


def _shape(kind: pa.DataType, *, given: bool) -> str:
    """What text of the type looks like; whatever looks otherwise is a misfit for sure."""
    if pa.types.is_boolean(kind):
        return r"^(?i:true|false|[01])$" if given else r"^(?i:true|false)$"
    if pa.types.is_integer(kind):
        return r"^-?\d+$" if given else _WHOLE
    if pa.types.is_decimal(kind):
        return _decimal(kind) if given else rf"^(0|-?[1-9]\d{{0,{kind.precision - 1}}})$"
    if pa.types.is_floating(kind):
        return "" if given else _NUMBER
    if pa.types.is_date(kind):
        return _DATE
    return f"{_TIME})?{_ZONE[:-1]}?$" if pa.types.is_timestamp(kind) else ""
