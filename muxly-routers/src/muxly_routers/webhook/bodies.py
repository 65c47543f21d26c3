"""Bodies of requests: records as JSON, always the same bytes for the same record, cut the same way each time.

Requests are cut greedily from the first record of the delivery; one that has to be smaller is halved,
and halved again. So a request is named by its first record and their number, also after a crash in
the middle, and no name ever stands for two different bodies.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from attrs import frozen

import muxly
from muxly_routers import _values
from muxly_routers._formats import Encoding
from muxly_routers._formats.columns import rows
from muxly_routers._formats.text import TextEncoder
from muxly_routers._templates import Template

__all__ = [
    "BodyFormat",
    "BodyShape",
    "Decimals",
    "EncodedRecord",
    "RecordEncoder",
    "RecordSpan",
    "TemplateEncoder",
    "Unencodable",
    "after",
    "spans",
]

Decimals = Literal["string", "number"]
_JSON_LINES = Encoding(format="jsonl")
# What is encoded at a time, so that a large batch never stands in memory a second time.
_PART_ROWS, _PART_BYTES = 1024, 4 * 1024 * 1024
# Of decimals that Arrow writes without an exponent.
_PLAIN_SCALES = range(7)


@frozen
class Unencodable:
    """A record that has no form in JSON, and why."""

    reason: str


EncodedRecord = bytes | Unencodable


class RecordEncoder:
    """Encodes records natively: every column in every object.

    Args:
        decimals: Decimals as exact text, or as exact JSON numbers.
    """

    def __init__(self, decimals: Decimals) -> None:
        self._decimals = decimals
        self.nonfinite = 0

    def encode(self, batch: pa.RecordBatch) -> Iterator[EncodedRecord]:
        """The records of a batch, in their order.

        Raises:
            RouteError: A column's type has no form in JSON.
        """
        rows = max(1, min(_PART_ROWS, batch.num_rows * _PART_BYTES // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            yield from self._part(batch.slice(start, rows))

    def _part(self, part: pa.RecordBatch) -> list[EncodedRecord]:
        try:
            return self._lines(part)
        except muxly.RejectedError as error:
            if part.num_rows == 1:
                return [Unencodable(str(error))]
        half = part.num_rows // 2
        return self._part(part.slice(0, half)) + self._part(part.slice(half))

    def _lines(self, part: pa.RecordBatch) -> list[EncodedRecord]:
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
        return pa.struct([child.with_type(_target(child.type, decimals)) for child in kind])
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
    """Return whether Arrow cannot write it: bytes, and decimals that it would write as 0E-9."""
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
        return {key: _plain(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, decimals) for item in value)
    return value


class TemplateEncoder:
    """Encodes records by filling a template with each.

    Args:
        template: A text or a JSON document.
        decimals: Decimals that stand alone: as exact text, or as exact JSON numbers.
        as_text: Whether a template that is a text gives the text itself, and not a JSON string.
    """

    def __init__(self, template: Template, decimals: Decimals, *, as_text: bool) -> None:
        self._template, self._decimals, self._as_text = template, decimals, as_text
        self.nonfinite = 0

    def encode(self, batch: pa.RecordBatch) -> Iterator[EncodedRecord]:
        """The records of a batch, in their order."""
        try:
            records = rows(batch)
        except muxly.RejectedError as error:
            if batch.num_rows == 1:
                yield Unencodable(str(error))
                return
            half = batch.num_rows // 2
            yield from self.encode(batch.slice(0, half))
            yield from self.encode(batch.slice(half))
            return
        yield from (self._piece(record) for record in records)

    def _piece(self, record: dict[str, Any]) -> EncodedRecord:
        try:
            found = self._template.render(record, number=self._number)
        except ValueError as error:
            return Unencodable(str(error))
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
            + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{_json(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(_json(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


BodyShape = Literal["array", "record", "ndjson"]


@frozen
class BodyFormat:
    """Joins the records of a request to its body.

    Args:
        shape: An array, one record, or a line for each.
        prefix: Bytes before an array: ``{"records":`` for an envelope.
        suffix: Bytes after it.
    """

    shape: BodyShape = "array"
    prefix: bytes = b""
    suffix: bytes = b""

    def body(self, records: list[bytes]) -> bytes:
        """The body; for the shape ``record`` there is one record."""
        if self.shape == "record":
            return records[0]
        if self.shape == "ndjson":
            return b"".join(record + b"\n" for record in records)
        return b"%s[%s]%s" % (self.prefix, b",".join(records), self.suffix)

    @property
    def overhead(self) -> int:
        """Bytes of a body besides its records, each with the one byte that separates it."""
        return len(self.prefix) + len(self.suffix) + 2


@frozen
class RecordSpan:
    """Consecutive records of a delivery for one request.

    Args:
        first: Number of the first one in the delivery.
        records: The records.
    """

    first: int
    records: tuple[EncodedRecord, ...]

    @property
    def end(self) -> int:
        """Number of the record after the last."""
        return self.first + len(self.records)

    @property
    def size(self) -> int:
        """Bytes of its encoded records."""
        return sum(len(record) for record in self.records if isinstance(record, bytes))

    def sendable(self) -> list[bytes]:
        """The records that have a form in JSON."""
        return [record for record in self.records if isinstance(record, bytes)]

    def number(self, place: int) -> int:
        """The number in the delivery of the record at that place of the body."""
        numbers = [self.first + at for at, record in enumerate(self.records) if isinstance(record, bytes)]
        return numbers[place]

    def halves(self) -> tuple[RecordSpan, RecordSpan]:
        """The same records as two spans; of two records or more."""
        middle = len(self.records) // 2
        return RecordSpan(self.first, self.records[:middle]), RecordSpan(self.first + middle, self.records[middle:])


def spans(
    records: Iterable[EncodedRecord], *, most_records: int, most_bytes: int, overhead: int = 0
) -> Iterator[RecordSpan]:
    """Cut a delivery's records, from its first on.

    Args:
        records: All of them.
        most_records: In a span.
        most_bytes: Of a body; one record that is larger stands alone.
        overhead: Bytes of a body besides its records and their separators.
    """
    kept: list[EncodedRecord] = []
    first, size = 0, overhead
    for record in records:
        more = len(record) + 1 if isinstance(record, bytes) else 0
        if kept and (len(kept) >= most_records or size + more > most_bytes):
            yield RecordSpan(first, tuple(kept))
            first, kept, size = first + len(kept), [], overhead
        kept.append(record)
        size += more
    if kept:
        yield RecordSpan(first, tuple(kept))


def after(span: RecordSpan, delivered: int) -> Iterator[RecordSpan]:
    """The part of a span that is not delivered yet, in spans that halving it may have made."""
    if span.first >= delivered:
        yield span
    elif span.end > delivered:
        for half in span.halves():
            yield from after(half, delivered)
