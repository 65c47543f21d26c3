"""The digest of a delivery inside the files that have a place for it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["marked", "read"]

_KEY = b"muxly.digest"


def marked(schema: pa.Schema, digest: str) -> pa.Schema:
    """The schema with the digest in its metadata, where both Parquet and Arrow keep it."""
    return schema.with_metadata({**(schema.metadata or {}), _KEY: digest.encode()})


def read(format: str, file: Any) -> str | None:
    """The digest that a file was written with.

    Raises:
        ValueError: The file is not whole, or not of that format.
    """
    try:
        metadata = _parquet_metadata(file) if format == "parquet" else pa.ipc.open_file(file).schema.metadata
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a whole {format} file: {error}") from error
    value = (metadata or {}).get(_KEY)
    return None if value is None else value.decode()


def _parquet_metadata(file: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.read_metadata(file).metadata
