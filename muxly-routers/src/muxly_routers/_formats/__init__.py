"""Records as bytes: CSV, JSON Lines, Parquet and Arrow IPC, written column by column.

A router makes an ``Encoding`` from its options and opens an ``Encoder`` for it; where the bytes go (a file, an
upload) is the router's own affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxly_routers._formats.encoding import Compression, Csv, Encoder, Encoding, Format, Parquet, Sink, resolve

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Compression",
    "Csv",
    "Encoder",
    "Encoding",
    "Format",
    "Parquet",
    "Sink",
    "open_encoder",
    "read_digest",
    "resolve",
]

# Each module loads pyarrow or a writer, which `import muxly_routers.file` must not: hence the imports inside.


def open_encoder(encoding: Encoding, schema: pa.Schema, sink: Sink, *, digest: str) -> Encoder:
    """An encoder for records of one schema.

    Args:
        encoding: The format with its settings.
        schema: Of all batches to come.
        sink: Where the bytes go.
        digest: Names the content; stored inside the file where the format has a place for it.

    Raises:
        RouteError: A column's type has no form in this format.
    """
    if encoding.format == "parquet":
        from muxly_routers._formats import binary

        return binary.ParquetEncoder(encoding, schema, sink, digest)
    if encoding.format == "arrow":
        from muxly_routers._formats import binary

        return binary.ArrowEncoder(encoding, schema, sink, digest)
    from muxly_routers._formats import text

    return text.TextEncoder(encoding, schema, sink)


def read_digest(encoding: Encoding, file: Any) -> str | None:
    """The digest stored in a file of this format; None where the format stores none.

    Args:
        encoding: The format.
        file: A readable, seekable binary file.

    Raises:
        ValueError: The file is not whole, or not of this format.
    """
    if encoding.format not in ("parquet", "arrow"):
        return None
    from muxly_routers._formats import binary

    return binary.stored_digest(encoding.format, file)
