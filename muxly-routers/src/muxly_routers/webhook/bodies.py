"""Records as pieces of JSON, one each, always the same bytes for the same record."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from attrs import frozen

import muxly
from muxly_routers import _values
from muxly_routers._formats import Encoding
from muxly_routers._formats.columns import rows
from muxly_routers._formats.text import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_routers._templates import Template

__all__ = ["Decimals", "Piece", "Pieces", "Refusal", "TemplatePieces"]

Decimals = Literal["string", "number"]
_JSON_LINES = Encoding(format="jsonl")
# What is encoded at a time, so that a large batch never stands in memory a second time.
_PART_ROWS, _PART_BYTES = 1024, 4 * 1024 * 1024
# Of decimals that Arrow writes without an exponent.
_PLAIN_SCALES = range(7)


@frozen
class Refusal:
    """A record that has no form in JSON, and why."""

    reason: str


Piece = bytes | Refusal


class Pieces:
    """Encodes records natively: every column in every object.

    Args:
        decimals: Decimals as exact text, or as exact JSON numbers.
    """

    def __init__(self, decimals: Decimals) -> None:
        self._decimals = decimals
        self.nonfinite = 0

    def of(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The records of a batch, in their order.

        Raises:
            RouteError: A column's type has no form in JSON.
        """
        rows = max(1, min(_PART_ROWS, batch.num_rows * _PART_BYTES // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            yield from self._part(batch.slice(start, rows))

    def _part(self, part: pa.RecordBatch) -> list[Piece]:
        try:
            return self._lines(part)
        except muxly.RejectedError as error:
            if part.num_rows == 1:
                return [Refusal(str(error))]
        half = part.num_rows // 2
        return self._part(part.slice(0, half)) + self._part(part.slice(half))

    def _lines(self, part: pa.RecordBatch) -> list[Piece]:
        sink = io.BytesIO()
        fitting = pa.RecordBatch.from_arrays(
            [_fitting(column, self._decimals) for column in part.columns], names=part.schema.names
        )
        encoder = TextEncoder(_JSON_LINES, fitting.schema, sink)
        encoder.write(fitting)
        self.nonfinite += encoder.nonfinite
        return list(sink.getvalue().split(b"\n")[:-1])


def _fitting(column: pa.Array, decimals: Decimals) -> pa.Array:
    """The column with bytes as base64, and decimals as text if that is wanted."""
    target = _target(column.type, decimals)
    if target == column.type:
        return column
    if _is_by_hand(column.type, decimals):
        return pa.array([_plain(value, decimals) for value in column.to_pylist()], type=target)
    return column.cast(target)


def _target(kind: pa.DataType, decimals: Decimals) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(kind):
        value = _target(kind.value_type, decimals)
        return kind if value == kind.value_type else value
    if _is_bytes(kind) or (decimals == "string" and types.is_decimal(kind)):
        return pa.large_string()
    if types.is_struct(kind):
        return pa.struct([one.with_type(_target(one.type, decimals)) for one in kind])
    if types.is_map(kind):
        return pa.map_(kind.key_type, _target(kind.item_type, decimals))
    if types.is_nested(kind) and kind.num_fields == 1 and not types.is_union(kind):
        value = _target(kind.value_type, decimals)
        return kind if value == kind.value_type else pa.large_list(value)
    return kind


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        is_kind(kind)
        for is_kind in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def _is_by_hand(kind: pa.DataType, decimals: Decimals) -> bool:
    """Whether Arrow cannot write it: bytes, and decimals that it would write as 0E-9."""
    if pa.types.is_dictionary(kind):
        return _is_by_hand(kind.value_type, decimals)
    if pa.types.is_decimal(kind):
        return decimals == "string" and kind.scale not in _PLAIN_SCALES
    return _is_bytes(kind) or any(_is_by_hand(kind.field(number).type, decimals) for number in range(kind.num_fields))


def _plain(value: Any, decimals: Decimals) -> Any:
    """A Python value with its bytes as base64, and decimals as text if that is wanted."""
    if isinstance(value, bytes):
        return _values.scalar_text(value)
    if isinstance(value, Decimal) and decimals == "string":
        return _values.decimal_text(value)
    if isinstance(value, dict):
        return {key: _plain(one, decimals) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one, decimals) for one in value)
    return value


class TemplatePieces:
    """Encodes records by filling a template with each.

    Args:
        template: A text or a JSON document.
        decimals: Decimals that stand alone: as exact text, or as exact JSON numbers.
        as_text: Whether a template that is a text gives the text itself, and not a JSON string.
    """

    def __init__(self, template: Template, decimals: Decimals, *, as_text: bool) -> None:
        self._template, self._decimals, self._as_text = template, decimals, as_text
        self.nonfinite = 0

    def of(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The records of a batch, in their order."""
        try:
            records = rows(batch)
        except muxly.RejectedError as error:
            if batch.num_rows == 1:
                yield Refusal(str(error))
                return
            half = batch.num_rows // 2
            yield from self.of(batch.slice(0, half))
            yield from self.of(batch.slice(half))
            return
        yield from (self._piece(record) for record in records)

    def _piece(self, record: dict[str, Any]) -> Piece:
        try:
            found = self._template.render(record, number=self._number)
        except ValueError as error:
            return Refusal(str(error))
        return (found if self._as_text and isinstance(found, str) else _json(found)).encode()

    def _number(self, value: _values.Number) -> Any:
        if isinstance(value, float):
            self.nonfinite += 1
            return None
        return value if self._decimals == "number" else _values.decimal_text(value)


def _json(value: Any) -> str:
    """A value as JSON; the standard library has no exact decimals."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{_json(one)}" for key, one in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(_json(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)
