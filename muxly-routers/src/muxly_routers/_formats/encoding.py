"""What an encoding is: a format with all its settings, and the encoder that follows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Protocol

from attrs import frozen

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Encoder", "Encoding", "Format", "Sink", "has_ending"]

Format = Literal["csv", "jsonl", "parquet", "arrow"]

_ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_WRITTEN = re.compile(r".+\.(csv|jsonl|parquet|arrow)(\.gz|\.zst)?")


def has_ending(name: str) -> bool:
    """Whether a file is named like those that encodings write."""
    return _WRITTEN.fullmatch(name) is not None


class Sink(Protocol):
    """Where encoded bytes go; ``write`` takes all of them or raises."""

    def write(self, buffer: Any, /) -> int:
        """Write the whole buffer."""


class Encoder(Protocol):
    """Writes batches of one schema to one sink; nothing is complete before ``finish``."""

    pending_bytes: int
    """Size of the records that wait for more before they are written."""

    nonfinite: int
    """How many NaN and infinite values were written as null because the format has no text for them."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take records.

        Raises:
            RejectedError: A value has no form in this format.
        """

    def flush(self) -> None:
        """Write the records that wait."""

    def finish(self) -> None:
        """Write what is left, then the end of the format; the sink stays open."""


@frozen(kw_only=True)
class Encoding:
    """A format with all settings that decide about the bytes; equal encodings write equal bytes."""

    format: Format
    compression: str = "none"
    level: int | None = None
    delimiter: str = ","
    header: bool = True
    null: str = ""
    line_end: bytes = b"\r\n"
    excel_safe: bool = False
    row_group_rows: int = 131_072

    @property
    def suffix(self) -> str:
        """The end of a file's name: ``.jsonl.gz``; Parquet and Arrow compress inside the file."""
        inside = self.format in ("parquet", "arrow")
        return f".{self.format}" + ("" if inside else _ENDINGS[self.compression])

    def open(self, schema: pa.Schema, sink: Sink, *, digest: str) -> Encoder:
        """An encoder for records of that schema.

        Args:
            schema: Of all batches to come.
            sink: Where the bytes go.
            digest: Names the content; kept inside the file where the format has a place for it.

        Raises:
            RouteError: A column's type has no form in this format.
        """
        # Each module loads pyarrow or a writer, which `import muxly_routers.file` must not.
        if self.format == "parquet":
            from muxly_routers._formats import parquet

            return parquet.ParquetEncoder(self, schema, sink, digest)
        if self.format == "arrow":
            from muxly_routers._formats import arrow

            return arrow.ArrowEncoder(self, schema, sink, digest)
        from muxly_routers._formats import text

        return text.TextEncoder(self, schema, sink)

    def digest_in(self, file: Any) -> str | None:
        """The digest kept in a file of this format; None where the format keeps none.

        Args:
            file: A readable, seekable binary file.

        Raises:
            ValueError: The file is not whole, or not of this format.
        """
        if self.format not in ("parquet", "arrow"):
            return None
        from muxly_routers._formats import digests

        return digests.read(self.format, file)
