"""Files on this machine and in remote stores, and the patterns that find them.

A pattern has ``*``, ``?``, ``[a-z]`` and ``{a,b}`` inside one name, and ``**`` across folders.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from attrs import frozen

from muxly.errors import ConfigurationError, StreamError


@frozen(kw_only=True)
class FoundFile:
    """One file as it was when it was looked at.

    Args:
        id: Its path below the root, with ``/``; names the partition.
        path: Where it is: an absolute path, or a path inside a remote file system.
        size: In bytes.
        version: Its modification time in nanoseconds, or what the remote store calls a version.
    """

    id: str
    path: str
    size: int
    version: int | str


class FileStore(Protocol):
    """The files of this machine, or of a remote store."""

    def absolute(self, path: str) -> str: ...
    def kind(self, path: str) -> str: ...
    def find(self, base: str, pattern: str, folder: str | None = None) -> Iterable[FoundFile]: ...
    def look(self, path: str, id: str) -> FoundFile | None: ...
    def open(self, path: str) -> BinaryIO: ...


class LocalFiles:
    """Finds and opens files in the file system of this machine."""

    def absolute(self, path: str) -> str:
        """The path with ``/`` and without ``..``; relative paths count from the working directory."""
        return Path(os.path.abspath(Path(path).expanduser())).as_posix()  # noqa: PTH100 - keeps links

    def kind(self, path: str) -> str:
        """``"file"``, ``"folder"`` or ``"missing"``."""
        if Path(path).is_dir():
            return "folder"
        return "file" if Path(path).exists() else "missing"

    def find(self, base: str, pattern: str, folder: str | None = None) -> Iterator[FoundFile]:
        """Files below a folder whose relative path matches; names with a leading dot never do.

        Args:
            base: The folder that ids are relative to.
            pattern: The pattern below it.
            folder: Only files directly in this folder below the base; None = all.

        Raises:
            StreamError: A folder cannot be listed.
        """
        matches = compile_pattern(pattern).match
        deepest = pattern_depth(pattern) if folder is None else 0
        for path, relative in self._walk(Path(base) / (folder or ""), folder or "", deepest):
            if matches(relative) and (file := self._look(str(path), relative)):
                yield file

    def look(self, path: str, id: str) -> FoundFile | None:
        """The file as it is now; None if it is not there."""
        return self._look(path, id)

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        return Path(path).open("rb", buffering=0)

    def _walk(self, folder: Path, relative: str, deepest: int | None) -> Iterator[tuple[Path, str]]:
        """All paths of files with their path below the base; folders behind links are left out."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StreamError(f"the folder {folder} cannot be listed: {error.strerror}; grant access to it") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            below = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_dir(follow_symlinks=False):
                if deepest is None or deepest > 0:
                    yield from self._walk(Path(entry.path), below, deepest and deepest - 1)
            elif not entry.is_dir():
                yield Path(entry.path), below

    def _look(self, path: str, id: str) -> FoundFile | None:
        try:
            facts = os.stat(path)  # noqa: PTH116 - one call without a Path, for every file of a folder
        except (FileNotFoundError, NotADirectoryError):
            return None
        # A pipe or a device would be waited for without end.
        if not stat.S_ISREG(facts.st_mode):
            return None
        return FoundFile(id=id, path=path, size=facts.st_size, version=facts.st_mtime_ns)


def store_of(path: str, storage: Mapping[str, str]) -> FileStore:
    """Where the files of a path are: on this machine, or in a remote store if it is a URL."""
    if "://" not in path:
        return LocalFiles()

    return RemoteFiles(path, storage)


_WILD = re.compile(r"[*?\[{]")


def split_pattern(path: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the pattern below it; ``""`` if there is none.

    ``"a/b/*.csv"`` gives ``("a/b", "*.csv")``; ``"a/b.csv"`` gives ``("a/b.csv", "")``.
    """
    wildcard = _WILD.search(path)
    if wildcard is None:
        return path, ""
    edge = path.rfind("/", 0, wildcard.start()) + 1
    return (path[:edge].rstrip("/") or path[:edge] or "."), path[edge:]


def pattern_depth(pattern: str) -> int | None:
    """How many folders below its base a pattern can match: 0 = none; None = any number."""
    return None if "**" in pattern else pattern.count("/")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches the whole relative path of the files meant.

    Raises:
        ValueError: A bracket is not closed, or a range is the wrong way round.
    """
    try:
        return re.compile(_expression(pattern) + r"\Z", re.DOTALL)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a path pattern: {error}") from None


def _next_expression(pattern: str, index: int) -> tuple[str, int]:
    """The expression of the pattern's next element, and where it ends."""
    if pattern.startswith("**/", index):
        return r"(?:[^/]+/)*", index + 3
    if pattern.startswith("**", index):
        return r".*", index + 2
    letter = pattern[index]
    if letter in "[{":
        return _bracket(pattern, index)
    return {"*": r"[^/]*", "?": r"[^/]"}.get(letter, re.escape(letter)), index + 1


def _bracket(pattern: str, index: int) -> tuple[str, int]:
    close = pattern.find("]" if pattern[index] == "[" else "}", index + 2)
    if close < 0:
        raise ValueError(f"{pattern!r} is not a path pattern: the {pattern[index]!r} is never closed")
    inner = pattern[index + 1 : close]
    if pattern[index] == "{":
        return f"(?:{'|'.join(map(_expression, inner.split(',')))})", close + 1
    negated = inner[0] in "!^"
    letters = re.sub(r"([\\\]\[&~|^])", r"\\\1", inner[1:] if negated else inner)
    return f"(?!/)[{'^' if negated else ''}{letters}]", close + 1


def _expression(pattern: str) -> str:
    parts, index = [], 0
    while index < len(pattern):
        text, index = _next_expression(pattern, index)
        parts.append(text)
    return "".join(parts)


_VERSIONS = ("ETag", "etag", "version_id", "mtime", "LastModified", "last_modified", "modified", "created")


class RemoteFiles:
    """Finds and opens files below a URL.

    Args:
        url: Any URL of the store; says which one it is.
        storage: What the store's fsspec class takes: a region, an endpoint.

    Raises:
        ConfigurationError: fsspec, or the package for this kind of URL, is not installed.
    """

    def __init__(self, url: str, storage: Mapping[str, Any]) -> None:
        try:
            import fsspec

            self._store = fsspec.core.url_to_fs(url, **storage)[0]
        except ImportError as error:
            raise ConfigurationError(
                f"reading {url.split('://', maxsplit=1)[0]}:// needs a package that is not installed ({error}); "
                'run: pip install "muxly-connector-file[remote]" and the fsspec package of the store',
                path=("path",),
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"{url!r} cannot be used: {error}", path=("path",)) from error

    def absolute(self, path: str) -> str:
        """The path inside the store."""
        return str(self._store._strip_protocol(path))

    def kind(self, path: str) -> str:
        """``"file"``, ``"folder"`` or ``"missing"``."""
        if self._store.isfile(path):
            return "file"
        return "folder" if self._store.isdir(path) else "missing"

    def find(self, base: str, pattern: str, folder: str | None = None) -> Iterator[FoundFile]:
        """Files below a folder whose relative path matches; see ``LocalFiles.find``."""
        matches = compile_pattern(pattern).match
        deepest = pattern_depth(pattern) if folder is None else 0
        start = f"{base}/{folder}" if folder else base
        depth = None if deepest is None else deepest + 1
        self._store.invalidate_cache()
        for path, facts in sorted(self._store.find(start, maxdepth=depth, detail=True).items()):
            relative = path[len(base) :].lstrip("/")
            hidden = any(part.startswith(".") for part in relative.split("/"))
            if not hidden and matches(relative):
                yield _remote_file(relative, path, facts)

    def look(self, path: str, id: str) -> FoundFile | None:
        """The file as it is now; None if it is not there."""
        self._store.invalidate_cache()
        try:
            return _remote_file(id, path, self._store.info(path))
        except FileNotFoundError:
            return None

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        opened: BinaryIO = self._store.open(path, "rb")
        return opened


def _remote_file(id: str, path: str, facts: Mapping[str, Any]) -> FoundFile:
    version = next((facts[key] for key in _VERSIONS if facts.get(key) is not None), "")
    # Some stores give a time as a datetime in one answer and as a number in another.
    text = str(version.timestamp() if isinstance(version, datetime) else version)
    return FoundFile(id=id, path=path, size=facts.get("size") or 0, version=text)
