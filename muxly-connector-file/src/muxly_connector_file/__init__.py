"""Muxly connector for CSV, JSON Lines, Parquet and Arrow files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from attrs.validators import ge, optional

import muxly
from muxly_connector_file import _checks, _layout, _read, _seen, _type_names

__all__ = ["Csv", "File", "muxly_connector"]

_MIB = 1 << 20


class Csv(muxly.Options):
    """How CSV files are written."""

    delimiter: str | None = muxly.option(
        "What stands between cells; default a comma, in .tsv files a tab.",
        default=None,
        validator=optional(_checks.one_letter),
    )
    quote: str = muxly.option(
        "What a quoted cell begins and ends with, doubled inside it; empty = cells are never quoted.",
        default='"',
        validator=_checks.one_letter_or_none,
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
        "Encoding of CSV and JSON Lines files.", default="utf-8", validator=_checks.known_encoding
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
        f"Types of columns, in place of inferred ones: {_type_names.EXAMPLES}.",
        factory=dict,
        validator=_type_names.validate,
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
        "What the fsspec class of a URL takes, such as endpoint_url; credentials belong into its own environment.",
        factory=dict,
    )

    def open(self, run: muxly.Run) -> None:
        """Find out where the files are."""
        self._run: muxly.Run = run
        self._files: _layout.Files = _layout.place_of(str(self.path), self.storage)
        self._parts()

    def _parts(self) -> dict[str, _layout.Part]:
        return _layout.parts(self._files, str(self.path), self.stream, self.files)

    def streams(self) -> Iterable[muxly.Stream]:
        """One stream for each folder, pattern or file; see the options ``stream`` and ``files``."""
        parts = self._parts()
        if not parts:
            self._run.notice(muxly.Notice("no_files", _layout.nothing(str(self.path), self._files)))
        return [muxly.Stream(name, self.primary_key, cursor_field=self.cursor_field, sorted=True) for name in parts]

    def plan(self, stream: muxly.Stream, cursor: muxly.Cursor) -> muxly.Plan:
        """One partition for each new or changed file; the cursor says what files there are now."""
        part = self._parts().get(stream.name)
        found = part.find(self._files) if part else []
        if not found:
            message = _layout.nothing(part.shown if part else str(self.path), self._files)
            if part and self._files.kind(part.base) == "missing":
                # A pattern may match later; a path that somebody wrote out is wrong, or its file was lost.
                raise (muxly.StreamError if part.is_local_file(self._files) else muxly.StreamUnavailableError)(message)
            # Nothing at all is rather a folder that is away than one that was emptied.
            self._run.notice(muxly.Notice("no_files", message, stream=stream.name))
            return muxly.Plan((), cursor)
        for one in found:
            self._format(one.path)
        return muxly.Plan(map(_partition, _seen.unread(found, cursor)), _seen.cursor_of(found))

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        """The records of one file; a bad line becomes a dead letter that names file and line."""
        path = partition.payload["path"]
        planned = _seen.FoundFile(id=partition.id, **partition.payload)
        yield from _read.read(self, self._files, self._run, planned, self._format(path), stream.columns, cursor)

    def check(self) -> Iterator[muxly.Notice]:
        """Whether there are files, of known formats, that can be opened; how many and how large."""
        for name, part in self._parts().items():
            found = part.find(self._files)
            if not found:
                message = _layout.nothing(part.shown, self._files)
                level: Any = "error" if self._files.kind(part.base) == "missing" else "warning"
                yield muxly.Notice("no_files", message, level=level, stream=name)
                continue
            yield from _checks.unreadable(self._files, found, name)
            size = sum(one.size for one in found)
            yield muxly.Notice(
                "files",
                f"{name}: {len(found):,} {'file' if len(found) == 1 else 'files'}, {size:,} bytes",
                level="info",
                stream=name,
                facts={"files": len(found), "bytes": size},
            )

    def _format(self, path: str) -> _read.Format:
        if self.format != "auto":
            return self.format
        found = _layout.format_of(path)
        if found is None:
            raise muxly.ConfigurationError(
                f"the name of {path} does not tell its format; set format to csv, jsonl, parquet or arrow",
                path=("format",),
            )
        return found


def _partition(file: _seen.FoundFile) -> muxly.Partition:
    payload = {"path": file.path, "size": file.size, "version": file.version}
    return muxly.Partition(file.id, payload=payload)


@muxly.hookimpl
def muxly_connector() -> type[muxly.Connector]:
    """The connector of this plugin."""
    return File
