"""Writes the measured records: 12 columns, the same bytes every time, as one Parquet or Arrow file."""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_RECORDS = 100_000
_MICROSECONDS = 1_000_000
_COUNTRIES = pa.array(["DE", "FR", "US", "GB", "PL", "IT"])
_STATUSES = pa.array(["new", "paid", "sent", "done"])


def records(start: int, stop: int) -> pa.Table:
    """Records ``start`` to ``stop``: whole numbers, amounts, times, words of few and of many values."""
    number = np.arange(start, stop, dtype=np.int64)
    created = number * _MICROSECONDS + _epoch(2024, 1)
    updated = (number * 31 % 999_983) * _MICROSECONDS + _epoch(2024, 6)
    day = (number % 365 + date(2024, 1, 1).toordinal() - date(1970, 1, 1).toordinal()).astype(np.int32)
    cents = pa.array(number * 104_729 % 1_000_000).cast(pa.decimal128(19, 0))
    return pa.table(
        {
            "id": number,
            "amount": (number * 7919 % 100_000) / 100,
            "price": _hundredths(cents),
            "created_at": pa.array(created).cast(pa.timestamp("us", "UTC")),
            "updated_at": pa.array(updated).cast(pa.timestamp("us", "UTC")),
            "day": pa.array(day).cast(pa.date32()),
            "active": number % 3 == 0,
            "country": _COUNTRIES.take(pa.array(number % len(_COUNTRIES))),
            "status": _STATUSES.take(pa.array(number % len(_STATUSES))),
            "name": [f"customer {one}" for one in number * 2_654_435_761 % 1_000_003],
            "email": [f"user{one}@example.com" for one in number * 40_503 % 1_000_003],
            "score": (number * 13 % 101).astype(np.int32),
        }
    )


def write(stop: int, path: Path, start: int = 0) -> None:
    """Write records ``start`` to ``stop``, as Parquet or, if the name ends so, as Arrow; an existing file is left."""
    if path.exists():
        return
    draft = path.with_suffix(".tmp")
    schema = records(0, 1).schema
    arrow = path.suffix == ".arrow"
    with pa.ipc.new_file(draft, schema) if arrow else pq.ParquetWriter(draft, schema) as writer:
        for first in range(start, stop, ROW_GROUP_RECORDS):
            writer.write_table(records(first, min(stop, first + ROW_GROUP_RECORDS)))
    draft.rename(path)


def _epoch(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * _MICROSECONDS


def _hundredths(cents: pa.Array) -> pa.Array:
    """Whole cents as decimals with two places: the same bytes, another scale."""
    shifted = pa.Array.from_buffers(pa.decimal128(19, 2), len(cents), cents.buffers())
    return shifted.cast(pa.decimal128(12, 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stop", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--start", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.stop, arguments.path, arguments.start)
