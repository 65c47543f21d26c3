"""A batch of records on its way from a connector to the spool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Batch", "Cursor", "Rejected"]

Cursor = Any
"""How far reading has come: JSON values plus date, datetime, Decimal; None = no cursor."""


@frozen
class Rejected:
    """A record that could not be read or delivered, kept as a dead letter.

    Args:
        reason: What is wrong with it, in one sentence, without secrets.
        index: Its number in the delivery, counted from 0 (routers).
        record: The raw record: a mapping, text or bytes (connectors).
        place: Where it stands in the source, such as ``"a.csv:12"``.
    """

    reason: str
    index: int | None = field(default=None, kw_only=True)
    record: Any = field(default=None, kw_only=True)
    place: str | None = field(default=None, kw_only=True)


def _content(value: Any) -> Any:
    if value is None or hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
        return value
    if isinstance(value, Mapping):
        raise TypeError("a batch takes a list of records; put the one record into a list: Batch([record])")
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(
            "a batch takes records (a list of dicts), an Arrow batch or table, or an object with "
            f"__arrow_c_stream__, such as a data frame; not {type(value).__name__}"
        )
    records = value if isinstance(value, list) else list(value)
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise TypeError(f"record {number} of the batch is {type(record).__name__}, not a dict")
    return records


@frozen(eq=False)
class Batch:
    """Records of one stream, plus the cursor that is reached with them.

    Args:
        data: A list of dicts, a ``pyarrow.RecordBatch`` or ``Table``, or any object with the
            Arrow PyCapsule methods (polars, pandas, DuckDB, arro3); None = no records.
        cursor: Where reading can go on after this batch; None = not after this batch.
        stream: The stream, if it is a child of the one being read.
        replaces: Values of the stream's overwrite key that these records replace, also when
            no record carries them any more; tuples where the key has several columns.
        rejected: Records of the source that could not become part of ``data``.
    """

    data: Any = field(default=None, converter=_content)
    cursor: Cursor = None
    stream: str | None = field(default=None, kw_only=True)
    replaces: tuple[Any, ...] = field(default=(), kw_only=True, converter=tuple[Any, ...])
    rejected: tuple[Rejected, ...] = field(default=(), kw_only=True, converter=tuple[Rejected, ...])

    def to_arrow(self, schema: pa.Schema | None = None) -> tuple[pa.Table, list[Rejected]]:
        """The records as columns.

        Args:
            schema: Types to convert records to where a column's name is found in it; columns
                that it does not name are inferred. Arrow input keeps its own types.

        Returns:
            The table, and the records that do not fit their column, each with its ``record``.
        """
        from muxly import _arrow_columns

        table, misfits = _arrow_columns.to_table(self.data, schema)
        return table, [Rejected(reason, record=record) for reason, record in misfits]
