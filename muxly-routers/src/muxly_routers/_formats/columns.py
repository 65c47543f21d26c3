"""Arrow types that each format can hold, conversions of the others, and records as Python values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

import muxly
from muxly_routers._formats.encoding import Format

__all__ = ["Conversion", "check_years", "conversion", "is_text", "leaves", "rows", "rows_within"]

_UTC = {"UTC", "Etc/UTC", "+00:00", "Z"}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# 0001-01-01 and 9999-12-31 in days from 1970: what RFC 3339 has a form for.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_SECONDS = 86_400


class _UnwritableError(Exception):
    """A type that the format cannot hold; the message says where inside the column it is."""


@frozen
class Conversion:
    """What is done to each batch before it is written."""

    schema: pa.Schema
    changed: tuple[int, ...]

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch in types that the format holds; the values are the same.

        Raises:
            RejectedError: A value does not survive the conversion.
        """
        if not self.changed:
            return batch
        columns = list(batch.columns)
        for index in self.changed:
            field = self.schema.field(index)
            try:
                columns[index] = _converted(columns[index], field.type)
            except (pa.ArrowException, ValueError) as error:
                raise muxly.RejectedError(f"column {field.name!r}: {error}") from error
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _converted(column: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    return column.cast(target)


def conversion(schema: pa.Schema, format: Format) -> Conversion:
    """How records of that schema are made ready for that format.

    Raises:
        RouteError: There are no columns, two of one name, or one of a type that has no form.
    """
    _check_names(schema, format)
    fields, changed = [], []
    for index, field in enumerate(schema):
        try:
            target = _target(field.type, format, field.name)
        except _UnwritableError as error:
            raise muxly.RouteError(
                f"column {field.name!r}: {format} cannot hold {error}; leave the column out with "
                f"columns: {{exclude: [{field.name}]}}, or choose another format"
            ) from None
        fields.append(field.with_type(target))
        if target != field.type:
            changed.append(index)
    return Conversion(pa.schema(fields, metadata=schema.metadata), tuple(changed))


def _check_names(schema: pa.Schema, format: Format) -> None:
    if not schema.names:
        raise muxly.RouteError(f"the records have no columns, which {format} cannot hold")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise muxly.RouteError(
            f"column {twice[0]!r} is there more than once, which {format} cannot hold; "
            "rename one with columns: {rename: ...}"
        )


def _target(kind: pa.DataType, format: Format, place: str) -> pa.DataType:
    """The type that the format holds in place of this one; mostly the same."""
    types = pa.types
    if types.is_union(kind) and format != "arrow":
        raise _UnwritableError(f"the union at {place}")
    if types.is_run_end_encoded(kind):
        # Readers mostly do not know run-end encoding.
        return _target(kind.value_type, format, place)
    if types.is_dictionary(kind) and format != "parquet":
        # An Arrow file cannot replace a dictionary between two batches, and text has none.
        return _target(kind.value_type, format, place)
    if format == "parquet":
        return _parquet_target(kind, place)
    return kind if format == "arrow" and not types.is_nested(kind) else _text_target(kind, format, place)


def _parquet_target(kind: pa.DataType, place: str) -> pa.DataType:
    if pa.types.is_interval(kind):
        raise _UnwritableError(f"the interval at {place}")
    if pa.types.is_struct(kind) and kind.num_fields == 0:
        raise _UnwritableError(f"the object without fields at {place}")
    return _rebuilt(kind, "parquet", place)


def _text_target(kind: pa.DataType, format: Format, place: str) -> pa.DataType:
    if format != "arrow":
        if pa.types.is_date64(kind):
            return pa.date32()
        if pa.types.is_timestamp(kind) and kind.tz is not None and kind.tz not in _UTC:
            return pa.timestamp(kind.unit, "UTC")
        if pa.types.is_map(kind) and not is_text(kind.key_type):
            raise _UnwritableError(f"the map at {place}, whose keys are {kind.key_type} and not text")
    return _rebuilt(kind, format, place)


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of a type are text."""
    types = pa.types
    return any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_string_view))


def _rebuilt(kind: pa.DataType, format: Format, place: str) -> pa.DataType:
    """The nested type with the targets of what it holds; a flat type as it is."""
    types = pa.types
    if types.is_struct(kind):
        fields = [field.with_type(_target(field.type, format, f"{place}.{field.name}")) for field in kind]
        return pa.struct(fields)
    if types.is_map(kind):
        key, item = kind.key_field, kind.item_field
        return pa.map_(
            key.with_type(_target(key.type, format, f"{place}.key")),
            item.with_type(_target(item.type, format, f"{place}.value")),
            keys_sorted=kind.keys_sorted,
        )
    for is_kind, make in (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_view),
        (types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            field = kind.value_field
            return make(field.with_type(_target(field.type, format, f"{place}[]")))
    if types.is_fixed_size_list(kind):
        field = kind.value_field
        return pa.list_(field.with_type(_target(field.type, format, f"{place}[]")), kind.list_size)
    return kind


def rows_within(records: pa.RecordBatch | pa.Table | pa.ChunkedArray, size: int) -> int:
    """How many of some records have about that size together, if all are alike.

    Args:
        records: With their size as Arrow holds them, ``nbytes``.
        size: In bytes.

    Returns:
        0 = one of them is larger; may be more than there are.
    """
    return int(len(records) * size // max(1, records.nbytes))


def leaves(place: str, column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The flat arrays inside a column, each with its place: ``"orders[].at"``."""
    types, kind = pa.types, column.type
    if types.is_struct(kind):
        for field, child in zip(kind, column.flatten(), strict=True):
            yield from leaves(f"{place}.{field.name}", child)
    elif types.is_map(kind):
        yield from leaves(f"{place}.value", column.items)
    elif types.is_nested(kind) and not types.is_union(kind):
        yield from leaves(f"{place}[]", column.flatten())
    else:
        yield place, column


def check_years(place: str, leaf: pa.Array) -> None:
    """Refuse times that have no four-digit year, for which neither writers nor Python have a form.

    Raises:
        RejectedError: There is one.
    """
    kind = leaf.type
    if pa.types.is_date32(kind):
        first, last, numbers = _FIRST_DAY, _LAST_DAY, leaf.view(pa.int32())
    elif pa.types.is_timestamp(kind):
        unit = _PER_SECOND[kind.unit] * _SECONDS
        first, last, numbers = _FIRST_DAY * unit, (_LAST_DAY + 1) * unit - 1, leaf.view(pa.int64())
    else:
        return
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is not None and (ends["min"] < first or ends["max"] > last):
        raise muxly.RejectedError(f"column {place!r}: a {kind} outside the years 1 to 9999 has no text form")


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The records of a batch.

    Raises:
        RejectedError: A value of one of them has no form in Python.
    """
    try:
        records: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise muxly.RejectedError(_explanation(batch, error)) from error
    return records


def _explanation(batch: pa.RecordBatch, error: Exception) -> str:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.to_pylist()
        except (ValueError, OverflowError, pa.ArrowException) as of_column:
            return f"column {name!r}: a value of type {column.type} has no form as a single value: {of_column}"
    return f"a record has no form as single values: {error}"
