"""JSON Lines: UTF-8, one object a line, every column in every object.

Numbers are exact, decimals too; NaN and infinity become null, for JSON has no text for them; bytes
are hexadecimal; times are ISO 8601, with Z where they have a time zone; durations are ISO 8601.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["lines"]


def lines(part: pa.RecordBatch) -> bytes:
    """The records as lines, each with its line end.

    Raises:
        RejectedError: A value has no form in JSON.
    """
    import arro3.io

    out = io.BytesIO()
    try:
        arro3.io.write_ndjson(part, out, explicit_nulls=True)
    except Exception as error:
        raise muxly.RejectedError(f"jsonl cannot hold a value: {error}") from error
    return out.getvalue()
