"""Records of a batch as Python values, for destinations that take them one by one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

import muxly

__all__ = ["rows"]


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The records of a batch.

    Raises:
        RejectedError: A value of one of them has no form in Python.
    """
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise muxly.RejectedError(_told(batch, error)) from error
    return found


def _told(batch: pa.RecordBatch, error: Exception) -> str:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.to_pylist()
        except (ValueError, OverflowError, pa.ArrowException) as of_column:
            return f"column {name!r}: a value of type {column.type} has no form as a single value: {of_column}"
    return f"a record has no form as single values: {error}"
