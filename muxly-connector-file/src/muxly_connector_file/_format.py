"""What every format reads by: the file, the options that matter, and what a reading yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import field, frozen

from muxly.batch import Batch, Rejected
from muxly_connector_file._local import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from muxly.component import Notice
    from muxly_connector_file._layout import Files

_SHOWN_BYTES = 64 * 1024


@frozen(kw_only=True)
class Dialect:
    """How a CSV file is written; one byte each, an empty quote = cells are never quoted."""

    delimiter: bytes
    quote: bytes
    header: bool
    columns: tuple[str, ...]
    null_values: tuple[str, ...]


@frozen(kw_only=True)
class Source:
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
    files: Files
    types: Mapping[str, pa.DataType] = field(factory=dict)
    columns: tuple[str, ...] | None = None
    compression: str = "auto"
    encoding: str = "utf-8"
    block_bytes: int = 4 << 20
    record_bytes: int = 16 << 20
    batch_records: int = 65_536
    dialect: Dialect
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


@frozen
class Decoded:
    """What one block of text became: tables in the order of the file, and what was set aside."""

    tables: tuple[pa.Table, ...]
    rejected: tuple[Rejected, ...] = ()

    def batches(self, cursor: Any, columns: tuple[str, ...] | None) -> Iterator[Batch]:
        """The block as batches; the cursor comes with the last one."""
        tables = [_kept(table, columns) for table in self.tables if table.num_rows]
        for table in tables[:-1]:
            yield Batch(table)
        yield Batch(tables[-1] if tables else None, cursor, rejected=self.rejected)


def _kept(table: pa.Table, columns: tuple[str, ...] | None) -> pa.Table:
    return table if columns is None else table.select([one for one in table.column_names if one in columns])


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
