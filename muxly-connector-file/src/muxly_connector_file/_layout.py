"""Streams made of files, and the cursors that say which of them have been read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from attrs import frozen

from muxly.component import Notice
from muxly.errors import ConfigurationError
from muxly_connector_file import _storage
from muxly_connector_file._storage import FileStore, FoundFile, LocalFiles
from muxly_connector_file._text import without_compression

Format = Literal["csv", "jsonl", "parquet", "arrow"]

FORMATS: dict[str, Format] = {
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".csv": "csv",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tsv": "csv",
}


_SHOWN = 10


@frozen
class StreamFiles:
    """The files of one stream.

    Args:
        base: The folder that ids are relative to, or the one file itself.
        pattern: What is read below it; empty = the file.
        folder: Only files directly in this folder below the base; None = all.
        known_only: Whether files of unknown formats are left out, because nobody named them.
    """

    base: str
    pattern: str
    folder: str | None = None
    known_only: bool = False

    @property
    def shown(self) -> str:
        """The part as a path, for people."""
        return "/".join(filter(None, (self.base, self.folder, self.pattern)))

    def is_local_file(self, files: FileStore) -> bool:
        """Whether the part is one path of this machine, and no pattern."""
        return not self.pattern and isinstance(files, LocalFiles)

    def find(self, files: FileStore) -> list[FoundFile]:
        """The stream's files as they are now."""
        if not self.pattern:
            found = files.look(self.base, PurePosixPath(self.base).name)
            return [found] if found else []
        every = files.find(self.base, self.pattern, self.folder)
        return [file for file in every if not self.known_only or format_of(file.path)]


def no_files_message(shown: str, files: FileStore) -> str:
    """A sentence that says that there are no files, and what to do."""
    base, pattern = _storage.split_pattern(shown)
    if files.kind(base) == "missing":
        return f"{base} does not exist; correct path, or create it"
    what = f"no file below {base} matches {pattern}" if pattern else f"{base} holds no file of a known format"
    return f"{what}; nothing is read until there is one"


def format_of(path: str) -> Format | None:
    """The format that the file's name tells, or None."""
    return FORMATS.get(PurePosixPath(without_compression(path.lower())).suffix)


def parts(files: FileStore, path: str, stream: str | None, named: Mapping[str, str]) -> dict[str, StreamFiles]:
    """The streams, by name.

    Args:
        files: Where the files are.
        path: A file, a folder or a pattern.
        stream: One name for everything.
        named: A pattern below the folder ``path`` for each name.

    Raises:
        ConfigurationError: The options do not go together.
    """
    base, pattern = _storage.split_pattern(files.absolute(path))
    if named:
        return _named(base, pattern, named)
    # A name with brackets in it may be a plain file; if there is none, they are a pattern.
    kind = files.kind(files.absolute(path)) if not pattern or set(pattern) & set("[{") else "pattern"
    if kind == "file" or (kind == "missing" and not pattern):
        whole = files.absolute(path)
        return {stream or _stem(whole): StreamFiles(whole, "")}
    everything = StreamFiles(
        files.absolute(path) if kind == "folder" else base, pattern or "**", known_only=kind == "folder"
    )
    if stream:
        return {stream: everything}
    return _by_folder(everything, files)


def _named(base: str, pattern: str, named: Mapping[str, str]) -> dict[str, StreamFiles]:
    if pattern:
        raise ConfigurationError(
            f"path is a folder if files gives a pattern for each stream; move {pattern!r} into these patterns",
            path=("path",),
        )
    return {name: StreamFiles(base, below.strip("/")) for name, below in named.items()}


def _by_folder(everything: StreamFiles, files: FileStore) -> dict[str, StreamFiles]:
    folders = {file.id.rpartition("/")[0] for file in everything.find(files)}
    own = PurePosixPath(everything.base).name or "files"
    return {
        folder or own: StreamFiles(everything.base, everything.pattern, folder, everything.known_only)
        for folder in sorted(folders)
    }


def _stem(path: str) -> str:
    name = PurePosixPath(without_compression(path)).name
    return PurePosixPath(name).stem or name


def unreadable(files: FileStore, files_of_stream: Sequence[FoundFile], stream: str) -> Iterator[Notice]:
    """An error for each of the first files that cannot be opened."""
    shown = 0
    for file in files_of_stream:
        try:
            files.open(file.path).close()
        except OSError as error:
            message = f"{file.path} cannot be opened: {error.strerror or error}; grant read access to it"
            yield Notice("unreadable_file", message, level="error", stream=stream)
            shown += 1
        if shown == _SHOWN:
            return


READABLE = 1_000
"""Up to so many files the cursor is a mapping that people can read; beyond, one digest a file."""
_DIGEST_BYTES = 12


def cursor_of(files: Iterable[FoundFile]) -> dict[str, Any]:
    """The cursor that says: exactly these files, as they are, have been read."""
    known = sorted(files, key=lambda file: file.id)
    if len(known) <= READABLE:
        return {"files": {file.id: [file.size, file.version] for file in known}}
    digests = sorted(map(_digest, known))
    return {"digests": base64.b64encode(b"".join(digests)).decode()}


def unread(files: Iterable[FoundFile], cursor: Any) -> list[FoundFile]:
    """Those files that are new or changed since the cursor, in the order of their ids."""
    ordered = sorted(files, key=lambda file: file.id)
    if not cursor:
        return ordered
    if "files" in cursor:
        known = cursor["files"]
        return [file for file in ordered if known.get(file.id) != [file.size, file.version]]
    raw = base64.b64decode(cursor["digests"])
    digests = {raw[at : at + _DIGEST_BYTES] for at in range(0, len(raw), _DIGEST_BYTES)}
    return [file for file in ordered if _digest(file) not in digests]


def _digest(file: FoundFile) -> bytes:
    text = f"{file.size}\0{file.version}\0{file.id}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).digest()
