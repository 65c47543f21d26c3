"""Muxly connector for CSV, JSON Lines, Parquet and Arrow files."""

import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from attrs.validators import ge, optional

import muxly
from muxly_connector_file import _layout, _source, _storage
from muxly_connector_file._source import CsvDialect, FileSource
from muxly_connector_file._storage import FileStore, FoundFile

__all__ = ["Csv", "File", "muxly_connector"]

_MIB = 1 << 20
_DENIED = {errno.EACCES, errno.EPERM}
# These pass by themselves, so that the same partition is read again.
_TRANSIENT = {errno.EAGAIN, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.ESTALE, errno.ETIMEDOUT}


class Csv(muxly.Options):
    """How CSV files are written."""

    delimiter: str | None = muxly.option(
        "What stands between cells; default a comma, in .tsv files a tab.",
        default=None,
        validator=optional(_source.one_letter),
    )
    quote: str = muxly.option(
        "What a quoted cell begins and ends with, doubled inside it; empty = cells are never quoted.",
        default='"',
        validator=_source.one_letter_or_none,
    )
    header: bool = muxly.option("Whether the first record names the columns.", default=True)
    columns: list[str] = muxly.option("Names of the columns, in place of those of the header.", factory=list)
    null_values: list[str] = muxly.option('Cells that mean "no value" when they are not quoted.', factory=lambda: [""])


class File(muxly.Connector):
    """Reads CSV, JSON Lines, Parquet and Arrow files; of a folder only what is new or changed.

    Each file is one partition. The stream's cursor says which files have been read, by size and
    time of change; a changed file is read again as a whole. A file that is still being written
    is read as far as it has come, and again when it has changed: let writers use another name,
    or one with a leading dot, and rename the file when it is complete.
    """

    path: Path | str = muxly.option(
        "A file, a folder with its subfolders, a pattern (data/*.csv, data/**/*.parquet), or an fsspec URL."
    )
    format: Literal["auto", "csv", "jsonl", "parquet", "arrow"] = muxly.option(
        "Format of the files; auto = by suffix.", default="auto"
    )
    compression: Literal["auto", "none", "gzip", "zstd"] = muxly.option(
        "Compression of CSV and JSON Lines files; auto = by their first bytes.", default="auto"
    )
    encoding: str = muxly.option(
        "Encoding of CSV and JSON Lines files.", default="utf-8", validator=_source.known_encoding
    )
    stream: str | None = muxly.option(
        "One stream of this name for all files; default one for each folder, or the single file's name.",
        default=None,
    )
    files: dict[str, str] = muxly.option(
        "A pattern below the folder path for each stream: {weather: weather/*.csv}.", factory=dict
    )
    primary_key: list[str] = muxly.option("Columns whose values name one record.", factory=list)
    cursor_field: str | None = muxly.option("Column that grows with changes; decides upserts.", default=None)
    types: dict[str, str] = muxly.option(
        f"Types of columns, in place of inferred ones: {_source.EXAMPLES}.",
        factory=dict,
        validator=_source.known_types,
    )
    csv: Csv = muxly.option("How CSV files are written.", factory=Csv)
    damaged: Literal["stop", "reject"] = muxly.option(
        "What a damaged file does: stop its stream, or become a dead letter itself while the other files are read.",
        default="stop",
    )
    batch_records: int = muxly.option(
        "Most records of a batch, of Parquet and Arrow files.", default=65_536, validator=ge(1)
    )
    block_bytes: int = muxly.option(
        "How much text of CSV and JSON Lines files makes one batch.", default=4 * _MIB, validator=ge(16)
    )
    record_bytes: int = muxly.option(
        "Longest record of CSV and JSON Lines files; longer ones are rejected.", default=16 * _MIB, validator=ge(16)
    )
    storage: dict[str, str] = muxly.option(
        "What the fsspec class of a URL takes, such as endpoint_url; credentials belong in its own environment.",
        factory=dict,
    )

    def open(self, run: muxly.Run) -> None:
        """Find out where the files are."""
        self._run: muxly.Run = run
        self._files: FileStore = _storage.store_of(str(self.path), self.storage)
        self._parts()

    def _parts(self) -> dict[str, _layout.StreamFiles]:
        return _layout.parts(self._files, str(self.path), self.stream, self.files)

    def streams(self) -> Iterable[muxly.Stream]:
        """One stream for each folder, pattern or file; see the options ``stream`` and ``files``."""
        parts = self._parts()
        if not parts:
            self._run.notice(muxly.Notice("no_files", _layout.no_files_message(str(self.path), self._files)))
        return [muxly.Stream(name, self.primary_key, cursor_field=self.cursor_field, sorted=True) for name in parts]

    def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        """One partition for each new or changed file; the cursor says what files there are now."""
        part = self._parts().get(stream.name)
        files = part.find(self._files) if part else []
        if not files:
            message = _layout.no_files_message(part.shown if part else str(self.path), self._files)
            if part and self._files.kind(part.base) == "missing":
                # A pattern may match later; a path that somebody wrote out is wrong, or its file was lost.
                raise (muxly.StreamError if part.is_local_file(self._files) else muxly.StreamUnavailableError)(message)
            # Nothing at all is rather a folder that is away than one that was emptied.
            self._run.notice(muxly.Notice("no_files", message, stream=stream.name))
            return muxly.Plan((), cursor)
        for file in files:
            self._format(file.path)
        return muxly.Plan(map(_partition, _layout.unread(files, cursor)), _layout.cursor_of(files))

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        """The records of one file; a bad line becomes a dead letter that names file and line."""
        planned = FoundFile(id=partition.id, **partition.payload)
        try:
            if self._is_as_planned(planned):
                read = _reader(self._format(planned.path))
                yield from read(self._source(planned, stream.columns), cursor)
        except FileNotFoundError:
            reason = "the file vanished before all of it was read; if it comes back, it is read as a new one"
            yield muxly.Batch(rejected=[muxly.Rejected(reason, place=planned.id)])
        except OSError as error:
            raise _os_error(planned, error) from error
        except muxly.StreamError as error:
            if self.damaged == "stop":
                raise
            yield muxly.Batch(rejected=[muxly.Rejected(error.message, place=planned.id)])

    def _is_as_planned(self, planned: FoundFile) -> bool:
        """Whether the file is still the planned one; a changed one is left to the next plan.

        A cursor in the middle of the old content says nothing about the new one, and the next plan,
        which the runner makes right after this one, reads the new content as a whole.
        """
        now = self._files.look(planned.path, planned.id)
        if now is None:
            raise FileNotFoundError(errno.ENOENT, "gone", planned.path)
        if (now.size, now.version) == (planned.size, planned.version):
            return True
        message = f"{planned.path} changed after it was planned; it is read by the next plan"
        self._run.notice(muxly.Notice("file_changed", message))
        return False

    def _source(self, planned: FoundFile, columns: tuple[str, ...] | None) -> FileSource:
        from muxly_connector_file._types import arrow_type

        csv = self.csv
        delimiter = csv.delimiter or ("\t" if ".tsv" in planned.id.lower() else ",")
        return FileSource(
            name=planned.id,
            path=planned.path,
            files=self._files,
            types={name: arrow_type(kind) for name, kind in self.types.items()},
            columns=columns,
            compression=self.compression,
            encoding=self.encoding,
            block_bytes=self.block_bytes,
            record_bytes=max(self.record_bytes, self.block_bytes),
            batch_records=self.batch_records,
            dialect=CsvDialect(
                delimiter=delimiter.encode(),
                quote=csv.quote.encode(),
                header=csv.header,
                columns=tuple(csv.columns),
                null_values=tuple(csv.null_values),
            ),
            notice=self._run.notice,
        )

    def check(self) -> Iterator[muxly.Notice]:
        """Whether there are files, of known formats, that can be opened; how many and how large."""
        for name, part in self._parts().items():
            files = part.find(self._files)
            if not files:
                message = _layout.no_files_message(part.shown, self._files)
                level: Any = "error" if self._files.kind(part.base) == "missing" else "warning"
                yield muxly.Notice("no_files", message, level=level, stream=name)
                continue
            yield from _layout.unreadable(self._files, files, name)
            size = sum(file.size for file in files)
            yield muxly.Notice(
                "files",
                f"{name}: {len(files):,} {'file' if len(files) == 1 else 'files'}, {size:,} bytes",
                level="info",
                stream=name,
                facts={"files": len(files), "bytes": size},
            )

    def _format(self, path: str) -> _layout.Format:
        if self.format != "auto":
            return self.format
        format = _layout.format_of(path)
        if format is None:
            raise muxly.ConfigurationError(
                f"the name of {path} does not tell its format; set format to csv, jsonl, parquet or arrow",
                path=("format",),
            )
        return format


def _reader(format: _layout.Format) -> Callable[[FileSource, Any], Iterator[muxly.Batch]]:
    # Each of them loads Arrow, which `import muxly_connector_file` must not.
    if format == "csv":
        from muxly_connector_file._csv import read_csv

        return read_csv
    if format == "jsonl":
        from muxly_connector_file._jsonl import read_jsonl

        return read_jsonl
    from muxly_connector_file._columnar import read_arrow, read_parquet

    return read_parquet if format == "parquet" else read_arrow


def _os_error(planned: FoundFile, error: OSError) -> muxly.StreamError | muxly.RetryableError:
    why = error.strerror or " ".join(str(error).split())
    if error.errno in _TRANSIENT:
        return muxly.RetryableError(f"{planned.path} cannot be read just now: {why}")
    step = "grant read access to it" if error.errno in _DENIED else "check the disk or share it is on"
    return muxly.StreamError(f"{planned.path} cannot be read: {why}; {step}")


def _partition(file: FoundFile) -> muxly.Partition:
    payload = {"path": file.path, "size": file.size, "version": file.version}
    return muxly.Partition(file.id, payload=payload)


@muxly.hookimpl
def muxly_connector() -> type[muxly.Connector]:
    """The connector of this plugin."""
    return File
