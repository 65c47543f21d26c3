"""A file to be read: the options that say how, their checks, and the names of types.

Nothing here loads Arrow, which is not needed to check a configuration.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import field, frozen

from muxly.batch import Rejected
from muxly.component import Notice
from muxly.suggest import suggest
from muxly_connector_file._storage import FileStore, LocalFiles

if TYPE_CHECKING:
    import pyarrow as pa


_SHOWN_BYTES = 64 * 1024


@frozen(kw_only=True)
class CsvDialect:
    """How a CSV file is written; one byte each, an empty quote = cells are never quoted."""

    delimiter: bytes
    quote: bytes
    header: bool
    columns: tuple[str, ...]
    null_values: tuple[str, ...]


@frozen(kw_only=True)
class FileSource:
    """One file to be read, and how.

    Args:
        name: What places are named after: the path below the root.
        path: Where it is.
        files: What opens it.
        types: Types that were given, by column.
        columns: Columns to keep; None = all.
        compression: Of text files: ``"auto"``, ``"gzip"``, ``"zstd"`` or ``"none"``.
        encoding: Of text files.
        block_bytes: How much text makes one batch.
        record_bytes: The longest record of a text file.
        batch_records: How many records make one batch, in formats that count them.
        dialect: Of CSV files.
        notice: Tells people something.
    """

    name: str
    path: str
    files: FileStore
    types: Mapping[str, pa.DataType] = field(factory=dict)
    columns: tuple[str, ...] | None = None
    compression: str = "auto"
    encoding: str = "utf-8"
    block_bytes: int = 4 << 20
    record_bytes: int = 16 << 20
    batch_records: int = 65_536
    dialect: CsvDialect
    notice: Callable[[Notice], None] = lambda notice: None

    def open(self) -> BinaryIO:
        """The file, at its start."""
        return self.files.open(self.path)

    def open_arrow(self) -> Any:
        """The file for Arrow's own readers, at its start."""
        import pyarrow as pa

        if isinstance(self.files, LocalFiles):
            return pa.OSFile(self.path)
        return pa.PythonFile(self.files.open(self.path), mode="r")

    def place(self, line: int) -> str:
        """Where a line is, for people."""
        return f"{self.name}:{line}"

    def rejected(self, reason: str, raw: bytes, line: int) -> Rejected:
        """A record of a text file that is set aside; a very long one is cut short."""
        raw = raw.rstrip(b"\r\n")
        if len(raw) > _SHOWN_BYTES:
            raw, reason = raw[:_SHOWN_BYTES], f"{reason}; only the start of the record is kept"
        return Rejected(reason, record=_text(raw), place=self.place(line))


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def one_letter(_instance: Any, attribute: Any, value: str) -> None:
    """A single ASCII letter that does not end a line, for attrs."""
    if len(value.encode()) != 1 or value in "\r\n":
        raise ValueError(f"{attribute.name} is one ASCII letter, not {value!r}")


def one_letter_or_none(instance: Any, attribute: Any, value: str) -> None:
    """The same, or empty text."""
    if value:
        one_letter(instance, attribute, value)


def known_encoding(_instance: Any, attribute: Any, value: str) -> None:
    """An encoding of text that Python has, for attrs."""
    try:
        if codecs.lookup(value)._is_text_encoding:
            return
    except LookupError:
        pass
    raise ValueError(f"{attribute.name}: there is no encoding {value!r}; try utf-8, cp1252 or utf-16")


_PLAIN = (
    "binary", "bool", "date", "float32", "float64", "int8", "int16", "int32", "int64", "string", "time",
    "timestamp", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_DECIMAL = re.compile(r"decimal\(\s*([1-9]\d?)\s*(?:,\s*(\d{1,2})\s*)?\)\Z")
_TIMESTAMP = re.compile(r"timestamp\(\s*(s|ms|us|ns)\s*(?:,\s*([A-Za-z][A-Za-z0-9_+/-]*)\s*)?\)\Z")
EXAMPLES = "string, int64, float64, bool, date, timestamp, timestamp(us, UTC) or decimal(12, 2)"


def parse_type(name: str) -> tuple[Any, ...]:
    """The parts of a type's name: ``("decimal", 12, 2)``, ``("timestamp", "us", "UTC")``, ``("date",)``.

    Raises:
        ValueError: There is no such type; says what there is.
    """
    if name in _PLAIN:
        return ("timestamp", "us", None) if name == "timestamp" else (name,)
    if match := _DECIMAL.match(name):
        digits, scale = int(match[1]), int(match[2] or 0)
        if digits <= 76 and scale <= digits:
            return ("decimal", digits, scale)
        raise ValueError(f"{name!r} is too wide: a decimal has at most 76 digits, and its scale is not more than these")
    if match := _TIMESTAMP.match(name):
        return ("timestamp", match[1], match[2])
    near = suggest(name, [*_PLAIN, "decimal(12, 2)"])
    hint = f"; did you mean {near!r}?" if near else ""
    raise ValueError(f"there is no type {name!r}; use {EXAMPLES}{hint}")


def known_types(_instance: Any, attribute: Any, value: dict[str, str]) -> None:
    """Check all types of an option, for attrs.

    Raises:
        ValueError: Names the first column whose type is not one.
    """
    for column, name in value.items():
        try:
            parse_type(name)
        except ValueError as error:
            raise ValueError(f"{attribute.name}.{column}: {error}") from None
