"""What Parquet and Arrow files share: checking foreign columns, and errors that name the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from muxly.batch import Batch, Rejected
from muxly.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxly_connector_file._format import Source

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}


@contextmanager
def damaged(source: Source, what: str) -> Iterator[None]:
    """Turn Arrow's complaint about bytes into an error that names the file.

    Raises:
        StreamError: The bytes are no such file, or not all of it.
    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split())[:200]
        raise StreamError(f"{source.name}: the {what} is damaged or cut short ({why}); write the file again") from error


def batch_of(source: Source, batch: pa.RecordBatch, cursor: Any, place: str) -> Batch:
    """A batch that came out of a file, checked and with the types that were given.

    Args:
        source: The file.
        batch: Foreign columns, not yet trusted.
        cursor: What is reached with it.
        place: Where in the file it is, for people.
    """
    rejected: tuple[Rejected, ...] = ()
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        batch, rejected = _without_bad_text(source, batch, place)
        batch.validate(full=True)
    return Batch(_typed(source, batch), cursor, rejected=rejected)


def _typed(source: Source, batch: pa.RecordBatch) -> pa.RecordBatch:
    for name, kind in source.types.items():
        index = batch.schema.get_field_index(name)
        if index < 0 or batch.schema.field(index).type == kind:
            continue
        try:
            values = batch.column(index).cast(kind)
        except pa.ArrowException as error:
            raise StreamError(
                f"{source.name}: column {name!r} is {batch.schema.field(index).type} and does not fit the type "
                f"{kind} given in types ({error}); leave the type out or choose a wider one"
            ) from error
        batch = batch.set_column(index, batch.schema.field(index).with_type(kind), values)
    return batch


def _without_bad_text(source: Source, batch: pa.RecordBatch, place: str) -> tuple[pa.RecordBatch, tuple[Rejected, ...]]:
    """Set aside records with text that is not UTF-8, which Parquet files may hold.

    Raises:
        pa.ArrowInvalid: Something else is wrong; then no value may be touched.
    """
    raw = batch
    for index, field in enumerate(batch.schema):
        if kind := _BYTES.get(field.type):
            raw = raw.set_column(index, field.name, batch.column(index).view(kind))
    raw.validate(full=True)
    why: dict[int, str] = {}
    for field, column in zip(batch.schema, raw.columns, strict=True):
        for row, value in enumerate(column.to_pylist() if field.type in _BYTES else ()):
            if value is not None and not _is_utf8(value):
                why.setdefault(row, f"column {field.name!r} is not UTF-8 text")
    keep = pa.array([row not in why for row in range(batch.num_rows)])
    rejected = tuple(
        Rejected(reason, record=raw.slice(row, 1).to_pylist()[0], place=f"{source.name}, {place}, record {row + 1}")
        for row, reason in why.items()
    )
    return batch.filter(keep), rejected


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
