"""Which files make which stream."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

from attrs import frozen

from muxly.errors import ConfigurationError
from muxly_connector_file import _pattern
from muxly_connector_file._local import LocalFiles
from muxly_connector_file._text import without_compression

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

    from muxly_connector_file._seen import FoundFile

FORMATS: dict[str, Literal["arrow", "csv", "jsonl", "parquet"]] = {
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


class Files(Protocol):
    """A place that has files."""

    def absolute(self, path: str) -> str: ...
    def kind(self, path: str) -> str: ...
    def find(self, base: str, pattern: str, folder: str | None = None) -> Iterable[FoundFile]: ...
    def look(self, path: str, id: str) -> FoundFile | None: ...
    def open(self, path: str) -> BinaryIO: ...


@frozen
class Part:
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

    def is_local_file(self, files: Files) -> bool:
        """Whether the part is one path of this machine, and no pattern."""
        return not self.pattern and isinstance(files, LocalFiles)

    def find(self, files: Files) -> list[FoundFile]:
        """The stream's files as they are now."""
        if not self.pattern:
            found = files.look(self.base, PurePosixPath(self.base).name)
            return [found] if found else []
        every = files.find(self.base, self.pattern, self.folder)
        return [one for one in every if not self.known_only or format_of(one.path)]


def place_of(path: str, storage: Mapping[str, str]) -> Files:
    """Where the files of a path are: on this machine, or in a remote store if it is a URL."""
    if "://" not in path:
        return LocalFiles()
    from muxly_connector_file._remote import RemoteFiles

    return RemoteFiles(path, storage)


def nothing(shown: str, files: Files) -> str:
    """A sentence that says that there are no files, and what to do."""
    base, pattern = _pattern.split(shown)
    if files.kind(base) == "missing":
        return f"{base} does not exist; correct path, or create it"
    what = f"no file below {base} matches {pattern}" if pattern else f"{base} holds no file of a known format"
    return f"{what}; nothing is read until there is one"


def format_of(path: str) -> Literal["arrow", "csv", "jsonl", "parquet"] | None:
    """The format that the file's name tells, or None."""
    return FORMATS.get(PurePosixPath(without_compression(path.lower())).suffix)


def parts(files: Files, path: str, stream: str | None, named: Mapping[str, str]) -> dict[str, Part]:
    """The streams, by name.

    Args:
        files: Where the files are.
        path: A file, a folder or a pattern.
        stream: One name for everything.
        named: A pattern below the folder ``path`` for each name.

    Raises:
        ConfigurationError: The options do not go together.
    """
    base, pattern = _pattern.split(files.absolute(path))
    if named:
        return _named(base, pattern, named)
    # A name with brackets in it may be a plain file; if there is none, they are a pattern.
    kind = files.kind(files.absolute(path)) if not pattern or set(pattern) & set("[{") else "pattern"
    if kind == "file" or (kind == "missing" and not pattern):
        whole = files.absolute(path)
        return {stream or _stem(whole): Part(whole, "")}
    everything = Part(files.absolute(path) if kind == "folder" else base, pattern or "**", known_only=kind == "folder")
    if stream:
        return {stream: everything}
    return _by_folder(everything, files)


def _named(base: str, pattern: str, named: Mapping[str, str]) -> dict[str, Part]:
    if pattern:
        raise ConfigurationError(
            f"path is a folder if files gives a pattern for each stream; move {pattern!r} into these patterns",
            path=("path",),
        )
    return {name: Part(base, one.strip("/")) for name, one in named.items()}


def _by_folder(everything: Part, files: Files) -> dict[str, Part]:
    folders = {one.id.rpartition("/")[0] for one in everything.find(files)}
    own = PurePosixPath(everything.base).name or "files"
    return {
        folder or own: Part(everything.base, everything.pattern, folder, everything.known_only)
        for folder in sorted(folders)
    }


def _stem(path: str) -> str:
    name = PurePosixPath(without_compression(path)).name
    return PurePosixPath(name).stem or name
