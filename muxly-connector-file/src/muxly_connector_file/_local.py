"""Files on this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from muxly.errors import StreamError
from muxly_connector_file import _pattern
from muxly_connector_file._seen import FoundFile

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        matches = _pattern.compile_pattern(pattern).match
        deepest = _pattern.depth(pattern) if folder is None else 0
        for path, relative in self._walk(Path(base) / (folder or ""), folder or "", deepest):
            if matches(relative) and (found := self._look(str(path), relative)):
                yield found

    def look(self, path: str, id: str) -> FoundFile | None:
        """The file as it is now; None if it is not there."""
        return self._look(path, id)

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        return Path(path).open("rb", buffering=0)

    def _walk(self, folder: Path, relative: str, deepest: int | None) -> Iterator[tuple[Path, str]]:
        """All paths of files with their path below the base; folders behind links are left out."""
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
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
