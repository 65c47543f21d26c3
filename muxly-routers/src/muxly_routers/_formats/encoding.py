"""Encodings, formats with all their settings; the options that they come from; and the contract of encoders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
from attrs import frozen

import muxly

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
    "check_compression",
    "check_level",
    "has_ending",
    "resolve",
]

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


Compression = Literal["auto", "none", "gzip", "lz4", "snappy", "zstd"]

# The first is what "auto" means. lz4 costs an Arrow file a fifth of zstd's time; text stays plain
# because every tool opens it.
_FITTING: dict[Format, tuple[str, ...]] = {
    "csv": ("none", "gzip", "zstd"),
    "jsonl": ("none", "gzip", "zstd"),
    "parquet": ("zstd", "snappy", "gzip", "lz4", "none"),
    "arrow": ("lz4", "zstd", "none"),
}
_LEVELS = {"gzip": range(1, 10), "zstd": range(1, 23)}


def _one_character(instance: Any, attribute: Any, value: str) -> None:
    if len(value.encode()) != 1 or value in '"\r\n':
        raise ValueError(f"delimiter is one ASCII character other than a quote or a line end, not {value!r}")


def _plain_text(instance: Any, attribute: Any, value: str) -> None:
    if any(letter in value for letter in '"\r\n'):
        raise ValueError(f"null is text without quotes and line ends, not {value!r}")


class Csv(muxly.Options):
    """How CSV is written: RFC 4180, UTF-8 without a byte order mark."""

    delimiter: str = muxly.option("Between two fields.", default=",", validator=_one_character)
    header: bool = muxly.option("Whether each file begins with the column names.", default=True)
    null: str = muxly.option(
        "Text of a missing value; when it is empty, missing and empty text look the same.",
        default="",
        validator=_plain_text,
    )
    line_end: Literal["crlf", "lf"] = muxly.option(
        "Ends a record; RFC 4180 wants CRLF. Line ends inside text are never changed.", default="crlf"
    )
    excel_safe: bool = muxly.option(
        "Put ' before text that a spreadsheet would run as a formula; numbers are not touched.",
        default=False,
    )


class Parquet(muxly.Options):
    """How Parquet is written."""

    row_group_rows: int = muxly.option(
        "Most records in a row group; it is smaller where they are large.",
        default=131_072,
        validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(16_777_216)),
    )


def check_compression(instance: Any, attribute: Any, value: str) -> None:
    """Validate ``compression`` of a router that has ``format`` too."""
    fitting = _FITTING.get(instance.format, ())
    if value != "auto" and fitting and value not in fitting:
        raise ValueError(f"{instance.format} is compressed with {', '.join(sorted(fitting))}, not {value!r}")


def check_level(instance: Any, attribute: Any, value: int | None) -> None:
    """Validate ``compression_level`` of a router that has ``format`` and ``compression`` too."""
    if value is None or instance.format not in _FITTING:
        return
    kind = _resolved(instance.format, instance.compression)
    levels = _LEVELS.get(kind)
    if levels is None or (kind == "zstd" and instance.format != "parquet"):
        raise ValueError(
            f"{instance.format} with compression {kind} has no levels; levels are for gzip and parquet's zstd"
        )
    if value not in levels:
        raise ValueError(f"{kind} has the levels {levels[0]} to {levels[-1]}, not {value}")


def _resolved(format: Format, compression: str) -> str:
    return _FITTING[format][0] if compression == "auto" else compression


def resolve(format: Format, compression: Compression, level: int | None, csv: Csv, parquet: Parquet) -> Encoding:
    """The options as one value that says everything about the bytes to be written."""
    return Encoding(
        format=format,
        compression=_resolved(format, compression),
        level=level,
        delimiter=csv.delimiter,
        header=csv.header,
        null=csv.null,
        line_end=b"\r\n" if csv.line_end == "crlf" else b"\n",
        excel_safe=csv.excel_safe,
        row_group_rows=parquet.row_group_rows,
    )
