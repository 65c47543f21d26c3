"""One batch against the schema contract of its stream: evolve, freeze, discard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from muxly._runner.schema.types import canonical, either, fitted, join, unchanged
from muxly.batch import Rejected
from muxly.errors import StreamError
from muxly.pipeline import StreamRules

__all__ = ["TableConformer", "DELETED_AT", "VARIANT", "variant"]


DELETED_AT = "_deleted_at"
"""The reserved column of tombstones: a timestamp, null = alive."""
# A time that Python cannot represent: year 0 or 10000, or nanoseconds without pandas.
_NOT_IN_PYTHON = (ValueError, OverflowError, pa.ArrowException)


class TableConformer:
    """The state of one batch on its way into the stream's schema.

    Args:
        table: The batch.
        before: The stream's schema; None = any is accepted.
        rules: The stream's rules.
        stream: The stream's name.
    """

    def __init__(self, table: pa.Table, before: pa.Schema | None, rules: StreamRules, stream: str) -> None:
        self.table = table
        self.rules = rules
        self.stream = stream
        self.first = before is None
        self.kinds: dict[str, pa.DataType] = {field.name: field.type for field in before or ()}
        self.values: dict[str, pa.ChunkedArray] = {}
        self.dropped: list[tuple[pa.Array, str]] = []
        self.noted: list[tuple[pa.Array, str]] = []

    def conform(self) -> tuple[pa.Table, tuple[Rejected, ...]]:
        """The records that are kept, and those that are reported."""
        self._check_names()
        for name, column in zip(self.table.column_names, self.table.columns, strict=True):
            if name == DELETED_AT:
                self._check_tombstone(column)
            if name in self.kinds:
                self._known_column(name, column)
            else:
                self._new_column(name, column)
        return self._assembled(), tuple(self._rejected())

    def _check_names(self) -> None:
        names = self.table.column_names
        if "" in names:
            self._stop(f"column {names.index('') + 1} of {len(names)} has no name; name every column")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            self._stop(f"two columns are named {twice!r}; rename or drop one of them in the connector")
        for field in self.table.schema:
            if types.is_nested(field.type) and (twin := _twin_field(field.type)) is not None:
                self._stop(f"column {field.name!r} has two fields named {twin!r}; rename one of them")

    def _check_tombstone(self, column: pa.ChunkedArray) -> None:
        kind = canonical(column.type)
        if not (types.is_timestamp(kind) or types.is_null(kind)):
            self._stop(f"column {DELETED_AT!r} is {kind}; it is reserved for the deletion time and must be a timestamp")

    def _new_column(self, name: str, column: pa.ChunkedArray) -> None:
        rule = "evolve" if self.first or name == DELETED_AT else self.rules.new_columns
        if rule == "evolve":
            self.kinds[name] = kind = canonical(column.type)
            self._take(name, column, kind)
        elif column.null_count < len(column):
            why = f"column {name!r} ({column.type}) is not in the schema of the stream"
            self._breach(why, _mask(column.is_valid()), "new_columns")

    def _known_column(self, name: str, column: pa.ChunkedArray) -> None:
        before = self.kinds[name]
        if column.type.equals(before):
            self.values[name] = column
            return
        kind = join(before, canonical(column.type), grow=self.rules.new_columns == "evolve") or before
        if not kind.equals(before) and (narrow := unchanged(column, before)) is not None:
            self.values[name] = narrow
            return
        self.kinds[name] = kind
        self._take(name, column, kind)

    def _take(self, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> None:
        self.values[name], wrong = fitted(column, kind)
        if wrong is None or not (mask := _mask(wrong)).true_count:
            return
        why = f"column {name!r} is {kind} and got {column.type}"
        grown = join(kind, canonical(column.type))
        setting = "new_types" if grown is None or grown.equals(kind) else "new_columns"
        if setting == "new_types" and self.rules.new_types == "evolve":
            self._variant(name, column, mask)
        else:
            self._breach(why, mask, setting)

    def _variant(self, name: str, column: pa.ChunkedArray, mask: pa.Array) -> None:
        """The values of the mask, in a column beside their own that takes them."""
        for word, values in variant(column, mask):
            number = 1
            while True:
                beside = VARIANT.format(column=name, type=word) + (f"_{number}" if number > 1 else "")
                if self._fits_beside(beside, values):
                    return
                number += 1
        self._stop(f"column {name!r} got a value of {column.type} that no other column can hold")

    def _fits_beside(self, name: str, values: pa.ChunkedArray) -> bool:
        if name in self.values or name in self.table.column_names:
            return False
        kind = join(self.kinds.get(name, pa.null()), values.type)
        if kind is None:
            return False
        taken, wrong = fitted(values, kind)
        if wrong is not None and _mask(wrong).true_count:
            return False
        self.kinds[name], self.values[name] = kind, taken
        return True

    def _breach(self, why: str, mask: pa.Array, setting: str) -> None:
        rule = getattr(self.rules, setting)
        if rule == "freeze":
            first = pc.index(mask, True).as_py() + 1
            self._stop(
                f"{why} in record {first} of the batch, and {setting} is freeze; "
                f"set `{setting}: evolve` (or discard_record, discard_value) for the stream, "
                "or fix the source; nothing from this batch was kept"
            )
        target = self.dropped if rule == "discard_record" else self.noted
        target.append((mask, f"{why}; {setting} is {rule}"))

    def _stop(self, why: str) -> NoReturn:
        raise StreamError(f"stream {self.stream!r}: {why}")

    def _assembled(self) -> pa.Table:
        if not self.kinds:
            return self.table.select([])
        length = self.table.num_rows
        columns = [
            self.values[name] if name in self.values else pa.nulls(length, kind) for name, kind in self.kinds.items()
        ]
        whole = pa.Table.from_arrays(columns, schema=pa.schema(list(self.kinds.items())))
        out = either(mask for mask, _ in self.dropped)
        return whole if out is None else whole.filter(pc.invert(out))

    def _rejected(self) -> Iterator[Rejected]:
        reasons: dict[int, list[str]] = {}
        for mask, why in self.dropped + self.noted:
            for index in pc.indices_nonzero(mask).to_pylist():
                reasons.setdefault(index, []).append(why)
        places = sorted(reasons)
        records = _records(self.table.take(pa.array(places, pa.int64()))) if places else []
        for index, record in zip(places, records, strict=True):
            yield Rejected("; ".join(reasons[index]), record=record)


def _mask(mask: pa.ChunkedArray | pa.Array) -> pa.Array:
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask


def _twin_field(kind: pa.DataType) -> str | None:
    """The name that two fields of one struct have, at any depth."""
    if types.is_struct(kind):
        names = [child.name for child in kind]
        if len(set(names)) < len(names):
            return str(next(name for name in names if names.count(name) > 1))
        inner = [child.type for child in kind]
    elif types.is_map(kind):
        inner = [kind.key_type, kind.item_type]
    else:
        inner = [kind.value_type] if hasattr(kind, "value_type") else []
    return next((twin for child in inner if (twin := _twin_field(child)) is not None), None)


def _records(rows: pa.Table) -> list[dict[str, Any]]:
    try:
        records: list[dict[str, Any]] = rows.to_pylist()
    except _NOT_IN_PYTHON:
        columns = [[_value(scalar) for scalar in column] for column in rows.columns]
        records = [dict(zip(rows.column_names, values, strict=True)) for values in zip(*columns, strict=True)]
    return records


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NOT_IN_PYTHON:
        return str(scalar.cast(pa.int64()).as_py()) if types.is_temporal(scalar.type) else _shown(scalar)


def _shown(scalar: pa.Scalar) -> str:
    """As Arrow prints it, which holds more times than Python does."""
    text: str = pa.array([scalar], scalar.type).to_string(skip_new_lines=True)
    return text


VARIANT = "{column}__v_{type}"
"""The name of a variant column, as dlt has it."""


def variant(column: pa.ChunkedArray, mask: pa.Array) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The values of a mask, each way in which they can be kept, the best first.

    Args:
        column: The column as it came.
        mask: Which values do not fit.

    Yields:
        The word for the variant column's name, and the values, null outside of the mask.
    """
    word, kind = _word(canonical(column.type))
    if word == "json":
        with suppress(ValueError, OverflowError, pa.ArrowException):  # a time that Python does not have
            yield word, _as_json(column, mask)
        return
    values, wrong = fitted(column, kind)
    if wrong is None or not pc.any(pc.and_(wrong.combine_chunks(), mask)).as_py():
        yield word, pa.chunked_array([_only(values, mask)], type=kind)
    elif types.is_temporal(column.type) and column.type.bit_width == 64:
        # Out of the range of microseconds: the number as it is in Arrow, in its own unit.
        raw = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], type=pa.int64())
        yield "bigint", pa.chunked_array([_only(raw, mask)], type=pa.int64())


def _only(values: pa.ChunkedArray, mask: pa.Array) -> pa.Array:
    return pc.if_else(mask, values.combine_chunks(), pa.scalar(None, values.type))


def _word(kind: pa.DataType) -> tuple[str, pa.DataType]:
    """The word for a canonical type, and the type of its variant column."""
    if types.is_integer(kind):
        return ("decimal", pa.decimal128(20, 0)) if types.is_uint64(kind) else ("bigint", pa.int64())
    if types.is_floating(kind):
        return "double", pa.float64()
    if types.is_timestamp(kind):
        return ("timestamp_naive" if kind.tz is None else "timestamp"), kind
    for word, is_kind in (
        ("text", types.is_string),
        ("bool", types.is_boolean),
        ("decimal", types.is_decimal),
        ("date", types.is_date),
        ("time", types.is_time),
        ("duration", types.is_duration),
        ("binary", types.is_binary),
    ):
        if is_kind(kind):
            return word, kind
    return "json", pa.string()


def _as_json(column: pa.ChunkedArray, mask: pa.Array) -> pa.ChunkedArray:
    """Each value of the mask as JSON. Row by row: it is what a stream does that changes its shape."""
    texts = pa.array([_json(value) for value in column.filter(mask).to_pylist()], pa.string())
    # The number of masked values before each one is its place among the texts.
    places = pc.cumulative_sum(mask.cast(pa.int64()))
    places = pc.if_else(mask, pc.subtract(places, 1), pa.scalar(None, pa.int64()))
    return pa.chunked_array([texts.take(places)])


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_jsonable(value), ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    """A value that JSON has, and text for one that it does not have."""
    if isinstance(value, dict):
        return {str(key): _jsonable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(child) for child in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
